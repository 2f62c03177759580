"""A routing score taken for a binding, and answers for outcomes; a control that keeps nothing.

Requests name no worker, so the KV router decides by its scores. What a client could conclude from the answers is
written as it would say it: the worker of the first answer is the one, and an answer that names it again was served
there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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

    def request(self, claim_id: str, tail: Sequence[int]) -> tuple[Response, int | None]:
        """Send the claim's tokens again, to wherever the score sends them; say what the answer suggests."""
        record, tokens, local = self._watched[claim_id]
        claim = record.claim
        request_id = self._begin(claim.owner_scope, claim_id, len(tokens) + len(tail))
        answer = self._frontend.complete([*tokens, *tail])
        holder = self._find_holder([*tokens, *tail])
        if answer.served and answer.worker_id is not None:
            self.log.emit_claim(
                ClaimRouteOutcome,
                record,
                request_id,
                worker_id=str(answer.worker_id),
                worker_epoch=0,
                outcome="served_by_binding" if answer.worker_id == self._first else "moved",
                reused_blocks=min((answer.cached_tokens or 0) // BLOCK_TOKENS, len(local)),
                outcome_claim_id=claim_id,
            )
        self._end(request_id, answer)
        return answer, holder
