"""Cross-check of transfers: what the scheduler learned against what worker processes wrote in logs of their own.

Logs of several processes have no common order, so each side is summed up in a way that depends neither on order nor on
the process that sums: a count and the sum of digests a worker. Equal sums agree; for unequal ones the kept details name
the culprit.
"""

from __future__ import annotations

from hashlib import blake2b

import msgspec

from residentkv.audit.ranges import clean
from residentkv.trace.events import Ranges, TransferFinished

Part = tuple[int, int]
"""(job, worker): one worker's part of a job, as long as job numbers are not used again after a restart."""

Detail = tuple[str, bool, int, Ranges, Ranges, str, str | None, str | None, int]
"""(direction, success, bytes, good and failed positions, request, owner, claim, number of workers) of one part."""

Pair = tuple[Part, Detail, Detail]

MAX_DETAILS = 1 << 12

_encode = msgspec.msgpack.Encoder().encode


class WorkerLedger:
    """One side's word on finished transfers; `details` are bounded, the sums are complete.

    A part that was told in two ways, as two incarnations with the same job numbers do, keeps no detail but None.
    `workers_total` is how many workers the first transfer said that there are, 0 before it.
    """

    __slots__ = ("details", "places", "sums", "workers_total")

    def __init__(self) -> None:
        self.workers_total = 0
        self.sums: dict[int, tuple[int, int]] = {}
        self.details: dict[Part, Detail | None] = {}
        self.places: dict[Part, tuple[str, int, int]] = {}

    def add(self, e: TransferFinished) -> None:
        """Enter one finished transfer."""
        self.workers_total = self.workers_total or e.workers_total
        worker = e.worker
        part = (e.job_id, worker)
        detail = (
            e.direction,
            e.success,
            e.bytes,
            clean(e.ok_pos),
            clean(e.failed_pos),
            e.request_id,
            e.owner_scope,
            e.claim_id,
            e.workers_total,
        )
        count, total = self.sums.get(worker, (0, 0))
        digest = blake2b(_encode((part, detail)), digest_size=16).digest()
        self.sums[worker] = (count + 1, total + int.from_bytes(digest, "little"))
        if part in self.details or len(self.details) < MAX_DETAILS:
            self._enter(part, detail, (e.source, e.epoch, e.seq))

    def absorb(self, other: WorkerLedger) -> None:
        """Add everything that another ledger holds; the order of absorbing does not matter."""
        for worker, (count, total) in other.sums.items():
            mine = self.sums.get(worker, (0, 0))
            self.sums[worker] = (mine[0] + count, mine[1] + total)
        for part, detail in other.details.items():
            self._enter(part, detail, other.places[part])

    def _enter(self, part: Part, detail: Detail | None, place: tuple[str, int, int]) -> None:
        if part not in self.details:
            self.details[part], self.places[part] = detail, place
        elif self.details[part] != detail:
            self.details[part] = None
        else:
            self.places[part] = min(place, self.places[part])


def compare_ledgers(learned: WorkerLedger, said: WorkerLedger) -> tuple[list[Pair], list[Pair], list[int]]:
    """Compare the scheduler's word with the workers' own, for the workers that write a log.

    Only incarnations of the same number are held against each other.

    Returns:
        Pairs (part, learned, said) that contradict each other; pairs that agree but for the number of workers; and
        workers whose sums differ without any such pair.
    """
    contradicting: list[Pair] = []
    miscounted: list[Pair] = []
    unequal = {worker for worker, total in said.sums.items() if learned.sums.get(worker) != total}
    named: set[int] = set()
    for part, detail in sorted(said.details.items()):
        mine = learned.details.get(part)
        if detail is None or mine is None or detail == mine or part[1] not in unequal:
            continue
        if learned.places[part][1] == said.places[part][1]:
            named.add(part[1])
            (miscounted if mine[:-1] == detail[:-1] else contradicting).append((part, mine, detail))
    return contradicting, miscounted, sorted(unequal - named)
