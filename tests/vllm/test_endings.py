"""Claims and tiers that end while something is under way: nothing is told late, and nobody pays for another's end."""

from __future__ import annotations

from pathlib import Path

import pytest

from residentkv.audit.model import Verdict
from residentkv.runtimes.vllm.active import Lookup
from residentkv.runtimes.vllm.jobs import OpenJob
from tests.vllm.bench import Bench, claim, prompt


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.mark.parametrize("ended_by", ["release", "term"])
def test_the_wish_for_recomputation_outlives_the_claim(bench: Bench, ended_by: str) -> None:
    """A claim that ends while its load is under way does not turn a failed load into the end of the request."""
    terms = claim(on_restore_failure="recompute", ttl_s=5.0)
    bench.serve("r1", prompt(), terms)
    bench.reset_primary()
    bench.arrive("r2", prompt(), terms)
    job = bench.schedule("r2")
    assert isinstance(job, OpenJob)
    if ended_by == "release":
        bench.arrive("r3", [1], resident_claim_release={"claim_id": "c", "owner_scope": "tenant"})
        bench.end("r3", "length", 1)
    else:
        bench.now_ns += 10_000_000_000
    assert not bench.finish_job(job, failed=(2,))
    assert job.recompute
    bench.compute("r2")
    report = bench.stop()
    assert report.verdict is Verdict.CONFORMING, report.all_findings()


def test_a_prompt_as_long_as_the_claim_is_not_told_that_its_last_block_is_lost(bench: Bench) -> None:
    """The engine never looks for the block of the last token; with all blocks in the primary tier nothing is lost."""
    tokens = prompt()[:-1]
    bench.arrive("r1", tokens, claim())
    assert bench.schedule("r1") is None
    bench.tiers.primary.update(bench.prompts["r1"].hashes)
    bench.residency.step_done("r1", 0, len(tokens))
    bench.arrive("r2", tokens, claim())
    assert bench.residency.lookup("r2", 3, 0) is Lookup.PROCEED
    bench.tiers.primary.discard(bench.prompts["r1"].hashes[3])
    bench.arrive("r3", tokens, claim())
    assert bench.residency.lookup("r3", 3, 0) is Lookup.REFUSE


def test_a_transfer_that_ends_after_the_tier_was_emptied_changes_no_copy(bench: Bench) -> None:
    """Its key may have been stored anew by then: a late failure drops nothing, a late success shows nothing."""
    bench.serve("r1", prompt(), claim())
    bench.reset_primary()
    bench.arrive("r2", prompt(), claim())
    load = bench.schedule("r2")
    bench.arrive("r3", prompt(2), claim("late"))
    assert bench.schedule("r3") is None
    store = bench.make_job("r3", False, range(4))
    assert isinstance(load, OpenJob)
    bench.residency.before_reset(primary=True, tier=True)
    bench.tiers.tier.clear()
    bench.finish_job(load, failed=(1,))
    assert load.drop == frozenset()
    bench.finish_job(store)
    late = bench.book.find("tenant", "late")
    assert late is not None
    assert late.store_jobs == {}


def test_a_restoration_is_reused_by_its_own_request_only(bench: Bench) -> None:
    """A request overtaken by the restoration of another one does not report that one as its own."""
    bench.serve("r1", prompt(), claim())
    bench.reset_primary()
    bench.arrive("r2", prompt(), claim())
    bench.arrive("r3", prompt(), claim())
    for request_id in ("r2", "r3"):
        job = bench.schedule(request_id)
        assert isinstance(job, OpenJob)
        bench.finish_job(job)
        if request_id == "r2":
            bench.tiers.primary.clear()
    bench.compute("r2")
    bench.compute("r3")
    (reuse,) = bench.events("resident_claim_reuse_after_restore")
    assert getattr(reuse, "request_id", None) == "r3"
    assert bench.stop().verdict is Verdict.INCONCLUSIVE
