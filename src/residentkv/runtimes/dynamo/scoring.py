"""A routing score taken for a binding, and answers for outcomes; a control that keeps nothing.

Requests name no worker, so the KV router decides by its scores. What a client could conclude from the answers is
written as it would say it: the worker of the first answer is the one, and an answer that names it again was served
there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from residentkv.claims.ledger import ClaimRecord
from residentkv.claims.modes import Mode
from residentkv.runtimes.dynamo.client import Response
from residentkv.runtimes.dynamo.fleet import BLOCK_TOKENS
from residentkv.runtimes.dynamo.observer import Observer
from residentkv.trace.events import ClaimRouteOutcome


class ScoreBelief(Observer):
    """Names claims as `Observer` does, and calls it a route when the score found the same worker again."""

    mode = Mode.ROUTED_REUSE

    def watch(self, wire: dict[str, Any], tokens: Sequence[int], tail: Sequence[int]) -> Response:
        """Name a prefix, send it once, and remember whom the answer names."""
        answer = super().watch(wire, tokens, tail)
        self._first = answer.worker_id
        return answer

    def _conclude(
        self,
        record: ClaimRecord,
        request_id: str,
        answer: Response,
        holder: int | None,
        blocks: int,
        seen: dict[int, int],
    ) -> int | None:
        """Say what the answer suggests, whatever the events show."""
        if answer.worker_id is not None:
            self.log.emit_claim(
                ClaimRouteOutcome,
                record,
                request_id,
                worker_id=str(answer.worker_id),
                worker_epoch=0,
                outcome="served_by_binding" if answer.worker_id == self._first else "moved",
                reused_blocks=min((answer.cached_tokens or 0) // BLOCK_TOKENS, blocks),
                outcome_claim_id=record.claim.claim_id,
            )
        return holder
