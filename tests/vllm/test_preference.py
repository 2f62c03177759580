"""Soft claims: last in the free queue, in order of priority, and told when they are lost all the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from residentkv.audit.model import Verdict
from residentkv.runtimes.vllm.preference import Preference
from tests.vllm.bench import Bench, claim, prompt


class Queue:
    """A free queue that only remembers what was put at its end."""

    def __init__(self, free: int) -> None:
        self.free = free
        self.taken = 0
        self.placed: list[bytes] = []

    def free_blocks(self) -> int:
        return self.free

    def taken_blocks(self) -> int:
        return self.taken

    def make_last(self, block_hashes: Sequence[bytes]) -> int:
        self.placed += block_hashes
        return len(block_hashes)


def soft(bench: Bench, name: str, seed: int, priority: int) -> tuple[bytes, ...]:
    terms = claim(name, mode="soft_priority", predicate="leading_prefix_at_least(2)", priority=priority)
    bench.serve(f"r-{name}", prompt(seed, blocks=2), terms)
    return tuple(bench.prompts[f"r-{name}"].hashes)


def test_the_least_important_claim_goes_first_and_the_end_of_a_prefix_before_its_beginning(tmp_path: Path) -> None:
    """What is appended first is evicted first; without its end a prefix is shorter, without its beginning nothing."""
    bench = Bench(tmp_path)
    high, low = soft(bench, "high", 1, 5), soft(bench, "low", 2, 1)
    queue = Queue(free=20)
    Preference(bench.book, queue).before_step(4)
    assert queue.placed == [low[1], low[0], high[1], high[0]]


def test_the_second_tier_gets_the_same_order_and_it_follows_the_claims(tmp_path: Path) -> None:
    """Two claims that share a block: it goes with the more important one, and with the other once that has ended."""
    bench = Bench(tmp_path)
    hashes = [h + b"\0" for h in soft(bench, "low", 1, 1)]
    terms = claim("high", mode="soft_priority", predicate="leading_prefix_at_least(1)", priority=5)
    bench.serve("r-high", prompt(1, blocks=2), terms)
    other = [h + b"\0" for h in soft(bench, "middle", 2, 3)]
    preference = Preference(bench.book, Queue(free=20))
    assert list(preference.tier_order()) == [hashes[1], *reversed(other), hashes[0]]
    assert list(Preference(bench.book, Queue(free=20), ranks=False).tier_order()) == []
    (high,) = [track for track in bench.book if track.claim.claim_id == "high"]
    bench.book.release(high, "owner", "done")
    assert list(preference.tier_order()) == [hashes[1], hashes[0], *reversed(other)]


def test_the_order_is_restored_only_before_it_can_matter(tmp_path: Path) -> None:
    """16 blocks lie ahead of the claims: as long as no more are taken, nothing is looked at."""
    bench = Bench(tmp_path)
    soft(bench, "high", 1, 5)
    soft(bench, "low", 2, 1)
    queue = Queue(free=20)
    preference = Preference(bench.book, queue)
    preference.before_step(4)
    for queue.taken in (0, 5, 12):
        preference.before_step(4)
    assert len(queue.placed) == 4
    queue.taken = 13
    preference.before_step(4)
    assert len(queue.placed) == 8


def test_a_soft_claim_turns_nobody_away_and_its_loss_is_told(tmp_path: Path) -> None:
    """It protects no blocks; once one that it needs is evicted, it is harmed by name, which breaks no promise."""
    bench = Bench(tmp_path, usable=8)
    hashes = soft(bench, "s", 1, 1)
    assert bench.book.ledger.protected_blocks == 0
    assert bench.serve("r2", prompt(2, blocks=6)) == "served"
    bench.tiers.primary.discard(hashes[1])
    bench.tiers.tier.clear()
    bench.residency.primary_lost([hashes[1]])
    (told,) = bench.events("resident_claim_harmed")
    assert (getattr(told, "claim_id", ""), getattr(told, "lost_pos", ())) == ("s", ((1, 2),))
    assert bench.book.soft == {}
    assert bench.stop().verdict is Verdict.CONFORMING


def test_a_soft_claim_that_comes_back_from_the_tier_is_no_recomputation(tmp_path: Path) -> None:
    """vLLM tells of a request's blocks before the load that it waits for, and again after it: decided once."""
    bench = Bench(tmp_path)
    hashes = soft(bench, "s", 1, 1)
    bench.tiers.primary.clear()
    bench.residency.primary_lost(hashes)
    terms = claim("s", mode="soft_priority", predicate="leading_prefix_at_least(2)", priority=1)
    bench.arrive("r2", prompt(1, blocks=2), terms)
    job = bench.schedule("r2")
    assert job is not None and job != "refused"
    bench.finish_job(job)  # type: ignore[arg-type]
    bench.residency.admitted("r2", 0)
    bench.compute("r2")
    assert bench.events("active_request_recomputed", "resident_claim_harmed") == []
    assert bench.stop().verdict is Verdict.CONFORMING
