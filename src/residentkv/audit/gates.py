"""The published gates, only to compare with published figures; they ask for less than the contract does.

Two gates over the events of one trace, joined by claim, request and job, in the order of `seq`:

- `observation`: a claim was offloaded, its restoration was required, a load of it succeeded, it was restored and
  reused. Acceptance, materialization, a lookup and an end are not asked for.
- `failure_outcome`: a restoration was required, a load of the claim failed, the scheduler said so naming the claim, and
  refused the request naming the claim among the blocking ones.

A third line, `sequence`, says whether numbers are without gaps; the published tables report it beside the gates.
Source: arXiv 2606.01387 and its public artifact; the figures are in spec section 8.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from residentkv.audit.model import AuditReport, Gate, Profile, Verdict
from residentkv.errors import InputError
from residentkv.trace import events as ev

OBSERVATION = (
    "resident_claim_offloaded",
    "resident_claim_restore_required",
    "offload_worker_transfer_finished (load, success)",
    "resident_claim_restored",
    "resident_claim_reuse_after_restore",
)
FAILURE_OUTCOME = (
    "resident_claim_restore_required",
    "offload_worker_transfer_finished (load, failure)",
    "scheduler_resident_claim_restoration_failed",
    "scheduler_active_request_refused",
)

Key = tuple[str, int, str]
Progress = dict[tuple[Key, str], int]


class GateKeeper:
    """Follows how far each claim, and each request of it, got on the way through both gates."""

    def __init__(self) -> None:
        self._next_seq: dict[tuple[str, int], int] = {}
        self._broken = ""
        self._offloaded: set[Key] = set()
        self._load_claims: dict[tuple[str, int, int], Key | None] = {}
        self._observed: Progress = {}
        self._failed: Progress = {}
        self.events = 0

    def feed(self, events: Iterable[ev.Event]) -> None:
        """Follow some events."""
        for e in events:
            self.events += 1
            place = (e.source, e.epoch)
            expected = self._next_seq.get(place, 0)
            if e.seq != expected and not self._broken:
                self._broken = f"seq {expected} of {e.source}/{e.epoch}"
            self._next_seq[place] = e.seq + 1
            if isinstance(e, ev.ClaimEvent):
                self._claim(e, (e.source, e.epoch, e.claim_id))
            elif isinstance(e, ev.JobCreated):
                if e.direction == "load":
                    key = (e.source, e.epoch, e.claim_id) if e.claim_id is not None else None
                    self._load_claims[e.source, e.epoch, e.job_id] = key
            elif isinstance(e, ev.TransferFinished):
                key = self._load_claims.get((e.source, e.epoch, e.job_id))
                if key is not None and e.direction == "load":
                    if e.success:
                        self._advance(self._observed, key, e.request_id, 2)
                    else:
                        self._advance(self._failed, key, e.request_id, 1)
            elif isinstance(e, ev.SchedulerRequestRefused) and e.outcome_claim_id in e.blocking_claim_ids:
                self._advance(self._failed, (e.source, e.epoch, e.outcome_claim_id), e.request_id, 3)

    def _claim(self, e: ev.ClaimEvent, key: Key) -> None:
        request = e.request_id or ""
        if isinstance(e, ev.ClaimOffloaded):
            self._offloaded.add(key)
        elif isinstance(e, ev.ClaimRestoreRequired):
            self._observed[key, request] = max(
                self._observed.get((key, request), 0), 2 if key in self._offloaded else 0
            )
            self._failed[key, request] = max(self._failed.get((key, request), 0), 1)
        elif isinstance(e, ev.ClaimRestored):
            self._advance(self._observed, key, request, 3)
        elif isinstance(e, ev.ClaimReusedAfterRestore):
            self._advance(self._observed, key, request, 4)
        elif isinstance(e, ev.SchedulerRestorationFailed) and e.outcome_claim_id == e.claim_id:
            self._advance(self._failed, key, request, 2)

    def _advance(self, progress: Progress, key: Key, request: str, step: int) -> None:
        if progress.get((key, request)) == step:
            progress[key, request] = step + 1

    def gates(self) -> tuple[Gate, ...]:
        """Return both gates and the sequence line."""
        return (
            _gate("observation", self._observed, OBSERVATION),
            _gate("failure_outcome", self._failed, FAILURE_OUTCOME),
            Gate(name="sequence", passed=not self._broken, claims=(), missing_event=self._broken or None),
        )


def _gate(name: str, progress: Progress, order: tuple[str, ...]) -> Gate:
    passed = sorted({key[2] for (key, _), step in progress.items() if step == len(order)})
    furthest = max(progress.values(), default=0)
    return Gate(name=name, passed=bool(passed), claims=tuple(passed), missing_event=None if passed else order[furthest])


def judge_gates(chunks: Iterable[Sequence[ev.Event]], *, path: str) -> AuditReport:
    """Apply the published gates; `conforming` means only that one of them passed, and is never evidence."""
    keeper = GateKeeper()
    unreadable = False
    try:
        for chunk in chunks:
            keeper.feed(chunk)
    except InputError:
        unreadable = True
    gates = keeper.gates()
    passed = not unreadable and any(g.passed for g in gates if g.name != "sequence")
    return AuditReport(
        path=path,
        sha256="",
        profile=Profile.PUBLISHED,
        verdict=Verdict.CONFORMING if passed else Verdict.INCONCLUSIVE,
        events=keeper.events,
        sources=(),
        claims=(),
        findings=(),
        gates=gates,
    )
