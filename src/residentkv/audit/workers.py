"""Cross-check of transfers: what the scheduler learned against what worker processes wrote in logs of their own.

Logs of several processes have no common order, so each side is summed up in a way that does not depend on order: a
count and an exclusive-or of digests a worker. Equal sums agree; for unequal ones the kept details name the culprit.
"""

from __future__ import annotations

from residentkv.trace.events import Ranges, TransferFinished

Detail = tuple[str, bool, int, Ranges, Ranges, str, str | None, str | None]
"""(direction, success, bytes, good and failed positions, request, owner, claim) of one worker's part of a job."""

MAX_DETAILS = 1 << 12


class WorkerLedger:
    """One side's word on finished transfers; `details` are bounded, the sums are complete.

    `workers_total` is how many workers the first transfer said that there are, 0 before it.
    """

    __slots__ = ("details", "places", "sums", "workers_total")

    def __init__(self) -> None:
        self.workers_total = 0
        self.sums: dict[int, tuple[int, int]] = {}
        self.details: dict[tuple[int, int], Detail] = {}
        self.places: dict[tuple[int, int], tuple[str, int, int]] = {}

    def add(self, e: TransferFinished) -> None:
        """Enter one finished transfer."""
        self.workers_total = self.workers_total or e.workers_total
        worker = e.worker
        key = (e.job_id, worker)
        detail = (e.direction, e.success, e.bytes, e.ok_pos, e.failed_pos, e.request_id, e.owner_scope, e.claim_id)
        count, digest = self.sums.get(worker, (0, 0))
        self.sums[worker] = (count + 1, digest ^ hash((key, detail)))
        if len(self.details) < MAX_DETAILS:
            self.details[key] = detail
            self.places[key] = (e.source, e.epoch, e.seq)

    def absorb(self, other: WorkerLedger) -> None:
        """Add everything that another ledger holds; the order of absorbing does not matter for the sums."""
        for worker, (count, digest) in other.sums.items():
            mine = self.sums.get(worker, (0, 0))
            self.sums[worker] = (mine[0] + count, mine[1] ^ digest)
        for key, detail in other.details.items():
            self.details.setdefault(key, detail)
            self.places.setdefault(key, other.places[key])


def compare_ledgers(
    learned: WorkerLedger, said: WorkerLedger
) -> tuple[list[tuple[tuple[int, int], Detail, Detail]], list[int]]:
    """Compare the scheduler's word with the workers' own, for the workers that write a log.

    Returns:
        Pairs that contradict each other ((job, worker), learned, said), and workers whose sums differ without a
        contradicting pair that could be named.
    """
    contradicting = []
    unmatched = []
    for worker, total in sorted(said.sums.items()):
        if learned.sums.get(worker, (0, 0)) == total:
            continue
        pairs = [
            (key, learned.details[key], detail)
            for key, detail in sorted(said.details.items())
            if key[1] == worker and key in learned.details and learned.details[key] != detail
        ]
        contradicting.extend(pairs)
        if not pairs:
            unmatched.append(worker)
    return contradicting, unmatched
