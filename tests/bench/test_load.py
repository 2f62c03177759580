"""The judge of a load, on small evidence from the plugin's own logic: each condition can fail, and for its reason."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from bench.load.judge import (
    WARM_SAMPLES,
    Answers,
    Evidence,
    Record,
    Truth,
    as_json,
    count_claims,
    judge,
    measure_rate,
    measure_reuse,
    read_answers,
    verdict_of,
)
from bench.load.plan import Item, Kind, Plan, Shape, make_plan
from bench.load.server import MemorySample, command_line
from bench.load.text import render

from residentkv.audit import audit_file
from residentkv.errors import InputError
from residentkv.trace import events as ev
from residentkv.trace.writer import TraceWriter
from tests.vllm.bench import Bench, prompt

SHAPE = Shape(hard=2, soft=2, unclaimed=2, variants=1, hard_mode="offloadable", soft_mode="best_effort", short_every=9)


def wire(claim: dict[str, Any] | None) -> dict[str, Any] | None:
    return claim and {k: v for k, v in claim.items() if k not in ("footprint_blocks", "predicate")} | {
        "predicate": "leading_prefix_at_least(4)"
    }


def record(number: int, prompt: int, **changes: Any) -> Record:
    fields = {"anew": False, "first": number < 4, "status": 200, "error": "", "tokens": [prompt, 1], "cached": 64}
    fields |= {"finish": "length", "ttft_ns": 2_000_000, "hung": False, "done": True, "start_ns": 1, "end_ns": 9}
    return Record(number=number, prompt=prompt, **(fields | changes))


def replace(answers: Answers, at: int, **changes: Any) -> Answers:
    records = list(answers.records)
    records[at] = msgspec.structs.replace(records[at], **changes)
    return msgspec.structs.replace(answers, records=records)


def samples(*megabytes: int) -> list[MemorySample]:
    return [MemorySample(at_s=n, rss_bytes=m << 20, anonymous_bytes=m << 20) for n, m in enumerate(megabytes)]


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """Every claim of a small plan taken, each prefix asked for twice, one failed restoration refused by name."""
    plan = make_plan(SHAPE, 12)
    bench = Bench(tmp_path_factory.mktemp("load"))
    for n in range(4):
        bench.serve(f"a{n}", prompt(n + 1), wire(plan.claims[n]))
    bench.reset_primary()
    bench.serve("b0", prompt(1), wire(plan.claims[0]))
    bench.serve("b1", prompt(2), wire(plan.claims[1]), fail=(2,))
    report = bench.stop()
    claimed = [record(n, n % 6) for n in range(12)]
    refused = record(12, 1, status=503, error="refused", tokens=[], done=False)
    return Evidence(
        plan=plan,
        claimed=Answers(records=[*claimed, refused], begun=13),
        stock=Answers(records=[record(n, n % 6, cached=16) for n in range(12)], begun=12),
        report=report,
        counts=count_claims(bench.path),
        memory=samples(*range(WARM_SAMPLES), *[1000] * 8),
        control=[(0, [7, 7])],
    )


def truths(evidence: Evidence) -> dict[str, Truth]:
    return {c.name: c.truth for c in judge(evidence)}


def test_a_load_that_went_well_holds_in_every_condition(evidence: Evidence) -> None:
    """And only then; nothing to judge by is not a pass."""
    found = judge(evidence)
    assert [(c.name, c.found) for c in found if c.truth is not Truth.HOLDS] == []
    assert verdict_of(found) is Truth.HOLDS
    assert verdict_of([]) is Truth.UNKNOWN


@pytest.mark.parametrize(
    ("word", "changes"),
    [
        ("hangs", {"hung": True, "done": False}),
        ("wrong outputs", {"tokens": [99, 1]}),
        ("served", {"done": False}),
        ("served", {"status": 500, "error": "Internal server error"}),
        ("served", {"finish": None}),
    ],
)
def test_one_bad_answer_breaks_the_load(evidence: Evidence, word: str, changes: dict[str, Any]) -> None:
    """One of many is enough."""
    bad = msgspec.structs.replace(evidence, claimed=replace(evidence.claimed, 5, **changes))
    assert {name for name, truth in truths(bad).items() if truth is Truth.BROKEN and word in name}


def test_a_request_without_an_end_breaks_the_load(evidence: Evidence) -> None:
    """Begun and never seen again; and a generator that does not say how many it began leaves it unknown."""
    for begun, truth in ((14, Truth.BROKEN), (None, Truth.UNKNOWN)):
        claimed = msgspec.structs.replace(evidence.claimed, begun=begun)
        changed = msgspec.structs.replace(evidence, claimed=claimed)
        assert truths(changed)["no request hangs or passes its deadline"] is truth


def test_a_deferred_request_is_let_in_before_its_deadline_or_not_at_all(tmp_path: Path) -> None:
    """Let in late, or left waiting: counted; let in early, refused or left by its client: not."""
    numbers = {"need_blocks": 9, "protected_blocks": 9, "active_blocks": 0, "usable_blocks": 10}
    writer = TraceWriter(tmp_path / "t.jsonl", source="s", run_id="r", mono_ns=iter(range(100, 10_000, 100)).__next__)
    for request_id, deadline_ns in (("late", 650), ("early", 10_000), ("waits", 10_000), ("refused", 10_000)):
        more = {"shortfall_blocks": 8, "blocking_claim_ids": ("c",), "deadline_ns": deadline_ns}
        writer.emit(ev.RequestDeferred, request_id=request_id, **numbers, **more)
    for request_id in ("early", "never deferred", "late"):
        writer.emit(ev.RequestAdmitted, request_id=request_id, actions=(), **numbers)
    names = {"outcome_claim_id": None, "blocking_claim_ids": ("c",), "shortfall_blocks": 8}
    writer.emit(ev.RequestRefused, request_id="refused", reason="claims_hold", **numbers, **names)
    counts = count_claims(tmp_path / "t.jsonl")
    assert (counts.deferred, counts.late, counts.refused) == (4, 2, 1)


@pytest.mark.parametrize("what", ["missing", "differing", "control"])
def test_outputs_that_cannot_be_compared_are_unknown(evidence: Evidence, what: str) -> None:
    """No counterpart, a stock engine that differs from itself, or a control that does not change: never a pass."""
    if what == "missing":
        stock = Answers(records=[r for r in evidence.stock.records if r.prompt != 3], begun=10)
        changed = msgspec.structs.replace(evidence, stock=stock)
    elif what == "differing":
        changed = msgspec.structs.replace(evidence, stock=replace(evidence.stock, 7, tokens=[0]))
    else:
        changed = msgspec.structs.replace(evidence, control=[(0, [0, 1])])
    found = judge(changed)
    assert verdict_of(found) is Truth.UNKNOWN
    assert [c.name for c in found if c.truth is Truth.UNKNOWN]


def test_the_log_decides_about_claims(evidence: Evidence, tmp_path: Path) -> None:
    """A lost end, an outcome twice, harm of a hard claim, a claim that was never made: each has its condition."""
    lines = Path(evidence.report.path).read_bytes().splitlines(keepends=True)
    ends = [n for n, line in enumerate(lines) if b'"resident_claim_released"' in line]
    hard = next(n for n in ends if b"hard-0" in lines[n])
    first = next(n for n, line in enumerate(lines) if b"accepted" in line and b"soft-2" in line)

    def look(changed: Sequence[bytes]) -> dict[str, Truth]:
        path = tmp_path / "trace.jsonl"
        path.write_bytes(b"".join(changed))
        report, counts = audit_file(path), count_claims(path)
        return truths(msgspec.structs.replace(evidence, report=report, counts=counts))

    lost = look([line for n, line in enumerate(lines) if n != hard])
    assert lost["every accepted claim ends in exactly one outcome"] is Truth.BROKEN
    assert lost["the log conforms"] is not Truth.HOLDS
    assert look([*lines, lines[hard]])["every accepted claim ends in exactly one outcome"] is Truth.BROKEN
    assert look([line for n, line in enumerate(lines) if n != first])["the claims of the plan were accepted"] is (
        Truth.BROKEN
    )
    harmed = lines[hard].replace(b'"resident_claim_released"', b'"resident_claim_harmed"')
    raw = msgspec.json.decode(harmed)
    del raw["released_by"]
    harmed = msgspec.json.encode(raw | {"lost_pos": [[0, 4]]}) + b"\n"
    found = look([harmed if n == hard else line for n, line in enumerate(lines)])
    assert found["0 harmed hard claims"] is Truth.BROKEN


def test_memory_that_grows_is_not_flat(evidence: Evidence) -> None:
    """The last quarter against the first one that is warm; a start that fills caches is not held against it."""
    name = "memory is flat"
    for megabytes, truth in (
        ((1000, 1000, 1000, 1000, 1000, 1010, 1010, 1010), Truth.HOLDS),
        ((1000, 1000, 1000, 1000, 1050, 1060, 1100, 1200), Truth.BROKEN),
        ((1000, 1000), Truth.UNKNOWN),
    ):
        memory = samples(*range(WARM_SAMPLES), *megabytes)
        assert truths(msgspec.structs.replace(evidence, memory=memory))[name] is truth


def test_hit_rates_and_times_are_of_reuse_only(evidence: Evidence) -> None:
    """The first request of a prefix reuses nothing; a hit beyond the prefix counts as the prefix."""
    rows = {row.kind: row for row in measure_reuse(evidence.plan, evidence.claimed)}
    assert (rows["unclaimed"].requests, rows["hard and soft"].requests) == (2, 4)
    assert rows["hard"].hit_rate == 1.0
    assert measure_reuse(evidence.plan, evidence.stock)[0].hit_rate == 0.25
    assert rows["soft"].ttft_median_ms == rows["soft"].ttft_p95_ms == 2.0


def test_the_table_says_what_the_data_says(evidence: Evidence) -> None:
    """Every condition and every kind of prefix has its row."""
    about = {"command": "make soak", "duration_s": 1.0, "requests": 13, "stock_requests": 12, "cores": 2}
    result = as_json(evidence, judge(evidence), about | {"vllm": "0.32.0", "locust": "2.47.0"})
    text = render(result)
    assert "## Load (`make soak`)" in text and "Result: **holds**." in text
    assert all(f"| {c['name']}: holds |" in text for c in result["conditions"])
    assert "| stock: hard and soft | 4 | 0.25 |" in text
    assert "Requests served a second: 12000000000.0 with claims, - by stock vLLM." in render(
        result | {"requests_per_s": {"claims": 12e9, "stock": None}}
    )


def test_the_rate_is_of_served_requests_by_the_clock(evidence: Evidence) -> None:
    """From the begin of the first to the end of the last; refused ones do not count; no time, no rate."""
    second = 10**9
    spread = [record(n, n % 6, start_ns=n * second, end_ns=(n + 2) * second) for n in range(4)]
    refused = record(9, 1, status=503, error="refused", tokens=[], done=False, start_ns=0, end_ns=99 * second)
    assert measure_rate(Answers(records=[*spread, refused], begun=5)) == 0.8
    assert measure_rate(Answers(records=[refused], begun=1)) is None


def test_a_plan_claims_every_prefix_once_and_then_mixes(tmp_path: Path) -> None:
    """The same seed gives the same plan; every claim comes first, of both owners, and the file reads back."""
    shape = Shape()
    plan = make_plan(shape, 2000)
    assert plan == make_plan(shape, 2000)
    first = [item for item in plan.sequence if item.first]
    assert first == plan.sequence[: shape.hard + shape.soft]
    assert len({str(plan.claims[item.prompt]) for item in first}) == 250
    assert {c["owner_scope"] for c in plan.claims if c} == {"owner-0", "owner-1"}
    mixed = {plan.kinds[item.prompt] for item in plan.sequence[250:]}
    assert mixed == set(Kind)
    assert any(item.anew for item in plan.sequence)
    assert msgspec.json.decode(msgspec.json.encode(plan), type=Plan) == plan
    records = tmp_path / "records.jsonl"
    records.write_bytes(msgspec.json.encode(record(0, 3)) + b"\n" + b'{"begun": 1}\n')
    answers = read_answers(records)
    assert (answers.begun, answers.items) == (1, [Item(3, False, True)])
    records.write_bytes(b'{"number": 1}\n')
    with pytest.raises(InputError, match=r"records\.jsonl:1: no record of a request"):
        read_answers(records)


def test_the_stock_server_has_nothing_of_the_plugin() -> None:
    """The comparison is with vLLM as shipped; all other settings are the same."""
    stock = command_line(SHAPE, Path("model"), 1, None, 1)
    with_claims = command_line(SHAPE, Path("model"), 1, {"trace_path": "t"}, 1)
    assert with_claims[: len(stock)] == stock
    assert "residentkv" in " ".join(with_claims[len(stock) :]) and "residentkv" not in " ".join(stock)
