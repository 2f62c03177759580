"""Random workloads: what must hold after every step, whatever comes, and what the audit says about the whole run."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from residentkv.audit.api import audit_file
from residentkv.audit.model import Verdict
from residentkv.claims.ledger import ClaimKeyInUse, StaleRevision
from residentkv.claims.lifecycle import OPEN, State
from residentkv.claims.modes import HOLDS_PRIMARY, Mode
from residentkv.errors import UsageError
from residentkv.runtimes.reference.engine import ClaimNotFound
from tests.reference.stages import Bench, claim_of, prompt_of, tag

MODES = ("best_effort", "soft_priority", "expiring", "demotable", "offloadable", "hard_protected")
ENDS = {f"resident_claim_{word}" for word in ("released", "expired", "demoted", "harmed")}


def check_invariants(b: Bench) -> None:
    parts = b.engine.parts
    held = [block for block in parts.pool.blocks if block.held_by]
    assert all(block.name is not None and block.data for block in held), "what is held is there"
    assert len(held) <= parts.ledger.protected_blocks, "the sum is never below what is held"
    assert parts.ledger.protected_blocks + parts.pool.count_active() <= b.config.usable_blocks
    assert parts.tier.reserved_blocks <= b.config.offload_blocks
    for kept in b.engine.desk.kept.values():
        record = kept.record
        if record.mode in HOLDS_PRIMARY and record.state is State.MATERIALIZED:
            for name in kept.needed_names:
                block = parts.pool.find(name)
                assert block is not None and record.claim.key in block.held_by
        if record.mode is Mode.OFFLOADABLE and record.state in OPEN - {State.ACCEPTED, State.MATERIALIZED}:
            assert all(parts.tier.holds(name) for name in kept.needed_names)
    referenced = [id(block) for live in b.engine.running for block in live.blocks]
    assert sum(block.ref_count for block in parts.pool.blocks) == len(referenced)


def play(b: Bench, rng: random.Random, length: int) -> dict[str, tuple[tuple[int, ...], int]]:
    asked: dict[str, tuple[tuple[int, ...], int]] = {}
    names = [f"c{n}" for n in range(5)]
    for _ in range(length):
        what = rng.randrange(12)
        try:
            if what <= 5:
                first, blocks = rng.randrange(1, 6), rng.randrange(1, 9)
                prompt = (*prompt_of(first, blocks), *range(rng.randrange(3)))
                claim = reuse = None
                if rng.random() < 0.5:
                    needed = rng.randrange(1, blocks + 2)
                    policy = rng.choice(["refuse", "recompute"])
                    ttl_s = rng.choice([1.0, 5.0, None])
                    more = {"on_restore_failure": policy, "ttl_s": ttl_s, "priority": rng.randrange(4)}
                    claim = claim_of(rng.choice(names), rng.choice(MODES), needed, **more)
                elif rng.random() < 0.8:
                    reuse = rng.choice(names)
                max_tokens = rng.choice([0, 1, 3]) if claim else rng.randrange(1, 4)
                request = b.request(prompt, claim=claim, reuse=reuse, max_tokens=max_tokens)
                b.engine.submit(request)
                asked[request.request_id] = (prompt, max_tokens)
            elif what <= 8:
                b.engine.step()
            elif what == 9:
                b.clock.advance_s(rng.choice([0.3, 1.0, 4.0]))
            elif what == 10:
                if rng.random() < 0.5:
                    b.engine.release("a", rng.choice(names))
                else:
                    b.engine.renew("a", rng.choice(names), revision=rng.randrange(1, 9), ttl_s=5.0)
            elif rng.random() < 0.4:
                b.engine.reset_prefix_cache()
            else:
                rng.choice([b.faults.fail_loads, b.faults.fail_stores])()
        except (ClaimKeyInUse, ClaimNotFound, StaleRevision, UsageError):
            pass
        check_invariants(b)
    return asked


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**48),
    st.sampled_from([0.0, 2.0]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 1),
)
def test_random_runs_keep_every_promise(
    seed: int, defer_s: float, eager: bool, defer_claims: bool, load_retries: int
) -> None:
    """Invariants after every step, right outputs, one outcome a claim, and an audit that finds no violation."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        b = Bench(
            Path(folder),
            usable_blocks=rng.randrange(9, 30),
            offload_blocks=rng.randrange(1, 20),
            eager_offload=eager,
            defer_claims=defer_claims,
            defer_s=defer_s,
            load_retries=load_retries,
            clip_to=rng.choice([None, Mode.BEST_EFFORT, Mode.SOFT_PRIORITY]),
        )
        asked = play(b, rng, 60)
        b.engine.run()
        check_invariants(b)
        b.engine.shutdown()
        for request_id, (prompt, max_tokens) in asked.items():
            result = b.engine.results[request_id]
            if result.status == "finished":
                assert result.output == b.alone(prompt, max_tokens)
            else:
                assert result.blocking_claim_ids, "whoever is not served is told which claims were in the way"
        accepted = [e for e in b.events() if tag(e) == "resident_claim_accepted"]
        ended = [e for e in b.events() if tag(e) in ENDS]
        assert sorted(e.claim_id for e in accepted) == sorted(e.claim_id for e in ended)
        report = audit_file(b.path)
        wrong = [f for f in report.all_findings() if f.verdict is Verdict.VIOLATING]
        assert not wrong, [(f.slug, f.story) for f in wrong]


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**48))
def test_damaged_tier_never_gives_a_wrong_output(seed: int) -> None:
    """Bits flip and blocks vanish at random; whatever is finished is right, whatever is lost is told."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        b = Bench(Path(folder), usable_blocks=16, offload_blocks=16)
        asked: dict[str, tuple[int, ...]] = {}
        for n in range(3):
            prompt = prompt_of(n + 1, 5)
            claim = claim_of(f"c{n}", "offloadable", 5, on_restore_failure=rng.choice(["refuse", "recompute"]))
            b.serve(prompt, claim=claim)
        for _ in range(12):
            b.engine.reset_prefix_cache()
            names = [name for name in b.engine.parts.tier.entries if rng.random() < 0.1]
            rng.choice([b.faults.corrupt, b.faults.zero, b.faults.drop])(names)
            n = rng.randrange(3)
            prompt = (*prompt_of(n + 1, 5), rng.randrange(4))
            asked[f"r{b.count + 1}"] = prompt
            b.serve(prompt, reuse=rng.choice([f"c{n}", None]))
        b.engine.shutdown()
        for request_id, prompt in asked.items():
            result = b.engine.results[request_id]
            if result.status == "finished":
                assert result.output == b.alone(prompt)
            else:
                assert result.outcome_claim_id is not None


@pytest.mark.parametrize("seed", range(3))
def test_two_runs_of_one_workload_write_the_same_bytes(tmp_path: Path, seed: int) -> None:
    """There is no hidden clock, thread or randomness."""
    traces = []
    for n in range(2):
        folder = tmp_path / str(n)
        folder.mkdir()
        b = Bench(folder, usable_blocks=18, offload_blocks=12, defer_s=1.0)
        play(b, random.Random(seed), 40)
        b.engine.run()
        b.engine.shutdown()
        traces.append(b.path.read_bytes())
    assert traces[0] == traces[1]
