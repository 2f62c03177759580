"""Transfer jobs as the scheduler process follows them: made once, finished by every worker."""

from __future__ import annotations

from typing import Any

import msgspec

from residentkv.claims.predicates import ranges_of
from residentkv.runtimes.vllm.claimtrack import ClaimTrack, TierKey


class JobPart(msgspec.Struct, frozen=True, kw_only=True):
    """One worker's word on its part of a job; `failed` are positions, times are of the worker's clock."""

    job_id: int
    worker: int
    failed: tuple[int, ...]
    bytes: int
    reason: str
    damaged: bool
    start_ns: int
    end_ns: int


class OpenJob(msgspec.Struct, kw_only=True):
    """A job under way.

    `failed`, `reason` and `damaged` sum up the workers; `drop` names copies that must leave the tier because of the
    result, and `recompute` tells whether the request goes on without this load. `void` is set when the tier was emptied
    while the job was under way: the engine then takes no note of its end, so it stored nothing and drops nothing.
    """

    job_id: int
    request_id: str
    is_load: bool
    claim: ClaimTrack | None
    keys: tuple[TierKey, ...]
    positions: tuple[int, ...]
    block_ids: tuple[int, ...]
    workers_total: int
    workers: set[int] = msgspec.field(default_factory=set)
    failed: tuple[int, ...] = ()
    reason: str = ""
    damaged: bool = False
    drop: frozenset[TierKey] = frozenset()
    recompute: bool = False
    void: bool = False

    @property
    def claim_id(self) -> str | None:
        """The claim that the job was made for."""
        return self.claim.claim.claim_id if self.claim is not None else None

    @property
    def owner_scope(self) -> str | None:
        """The owner of that claim."""
        return self.claim.claim.owner_scope if self.claim is not None else None

    @property
    def over(self) -> bool:
        """Whether all workers have reported."""
        return len(self.workers) >= self.workers_total

    def take(self, part: JobPart) -> dict[str, Any]:
        """Take in one worker's part and return the fields of the event that tells it."""
        self.workers.add(part.worker)
        if part.failed:
            self.failed = tuple(sorted({*self.failed, *part.failed}))
            self.reason = self.reason or part.reason
            self.damaged = self.damaged or part.damaged
        return {
            "request_id": self.request_id,
            "job_id": self.job_id,
            "direction": "load" if self.is_load else "store",
            "claim_id": self.claim_id,
            "owner_scope": self.owner_scope,
            "worker": part.worker,
            "workers_total": self.workers_total,
            "success": not part.failed,
            "ok_pos": ranges_of(p for p in self.positions if p not in part.failed),
            "failed_pos": ranges_of(part.failed),
            "bytes": part.bytes,
            "reason": part.reason,
            "worker_start_ns": part.start_ns,
            "worker_end_ns": part.end_ns,
        }
