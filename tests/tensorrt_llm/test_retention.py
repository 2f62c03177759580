"""The retention adapter: what it asks of the engine, and what it tells of claims. Published shapes only, no engine."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from residentkv.audit.api import audit_file
from residentkv.audit.model import Verdict
from residentkv.claims.model import ResidentClaim, token_map_digest
from residentkv.claims.modes import Mode
from residentkv.claims.predicates import parse_predicate
from residentkv.cli.main import main
from residentkv.errors import InputError
from residentkv.runtimes.tensorrt_llm.events import decode_event
from residentkv.runtimes.tensorrt_llm.journal import EventJournal
from residentkv.runtimes.tensorrt_llm.retention import (
    DEFAULT_PRIORITY,
    LEVELS,
    RetentionAdapter,
    build_config,
    plan_retention,
    version_fields,
)
from residentkv.trace.writer import TraceWriter
from tests.tensorrt_llm.shapes import BLOCK, created, moved, removed, stored

HIGH, LOW = tuple(range(100, 108)), tuple(range(200, 208))


def claim_on(tokens: tuple[int, ...], name: str, priority: int, **more) -> ResidentClaim:
    fields = {
        "claim_id": name,
        "owner_scope": "tenant",
        "cache_identity": "cache:" + "0" * 32,
        "object_id": f"prefix-{name}",
        "token_map_id": token_map_digest(tokens),
        "predicate": parse_predicate(f"leading_prefix_at_least({len(tokens) // BLOCK})"),
        "footprint_blocks": len(tokens) // BLOCK,
        "mode": Mode.SOFT_PRIORITY,
        "priority": priority,
    }
    return ResidentClaim(**(fields | more))


@pytest.fixture
def adapter(tmp_path: Path) -> RetentionAdapter:
    journal = EventJournal(
        lambda epoch: TraceWriter(tmp_path / "trace.jsonl", source="engine", run_id="shape", epoch=epoch),
        runtime_version="1.4.0rc2",
        stands_in=("engine",),
        **version_fields(),
    )
    return RetentionAdapter(journal, BLOCK)


def told(tmp_path: Path) -> list[tuple[str, str | None]]:
    lines = [json.loads(line) for line in (tmp_path / "trace.jsonl").read_text().splitlines()]
    return [(e["event"], e.get("claim_id")) for e in lines if "claim" in e["event"] or e["event"] == "trace_closed"]


def play(adapter: RetentionAdapter, *events: dict) -> None:
    for event in events:
        adapter.note(decode_event(event))


def respond(adapter: RetentionAdapter, name: str) -> None:
    adapter.note_response(
        ("tenant", name), "r1", prompt_tokens=9, cached_tokens=9, output_tokens=1, finish_status="stop"
    )


def chain(event_id: int, tokens: tuple[int, ...], first: int) -> dict:
    blocks = [tokens[i : i + BLOCK] for i in range(0, len(tokens), BLOCK)]
    return stored(event_id, None, {first + i: block for i, block in enumerate(blocks)})


def test_a_claim_becomes_one_token_range_above_the_default_without_a_duration():
    """More important claims have a higher priority, and every claim one above unclaimed blocks."""
    plans = [plan_retention(claim_on(HIGH, "a", p), BLOCK) for p in range(LEVELS)]
    assert [p.priority for p in plans] == list(range(DEFAULT_PRIORITY + 1, 101))
    assert {p.end_tokens for p in plans} == {len(HIGH)}
    calls = []

    class Config(SimpleNamespace):
        TokenRangeRetentionConfig = staticmethod(lambda *a: calls.append(a) or ("range", *a))

    made = build_config(plans[3], Config)
    assert calls == [(0, 8, 39, None)]
    assert made.token_range_retention_configs == [("range", 0, 8, 39, None)]
    assert (made.decode_retention_priority, made.decode_duration_ms) == (DEFAULT_PRIORITY, None)


@pytest.mark.parametrize(
    "more",
    [
        {"mode": Mode.HARD_PROTECTED},
        {"mode": Mode.EXPIRING, "ttl_s": 60.0},
        {"ttl_s": 60.0},
        {"priority": -1},
        {"priority": LEVELS},
    ],
)
def test_what_the_configuration_cannot_say_is_refused_and_not_clipped(more):
    """A priority is no protection, a duration is no deadline, and 100 is the end."""
    with pytest.raises(InputError, match="expected"):
        plan_retention(claim_on(HIGH, "a", **({"priority": 0} | more)), BLOCK)


def test_blocks_before_a_range_are_needed_too():
    """A block is found only through all blocks before it."""
    claim = msgspec.structs.replace(claim_on(HIGH, "a", 0), predicate=parse_predicate("contiguous_range(1, 1)"))
    assert plan_retention(claim, BLOCK).end_tokens == 8
    whole = msgspec.structs.replace(claim, predicate=parse_predicate("whole_object"))
    assert plan_retention(whole, BLOCK).end_tokens == 8


def test_claims_that_would_override_each_other_are_refused(adapter):
    """The engine lets the latest priority of a shared block win; so does a name that is taken, or other tokens."""
    adapter.admit(claim_on(HIGH, "a", 5), HIGH)
    adapter.admit(claim_on(HIGH, "same", 5), HIGH)
    for bad in (claim_on(HIGH, "b", 6), claim_on(LOW, "a", 5), claim_on(LOW, "c", 5, token_map_id="tokens:0")):
        with pytest.raises(InputError):
            adapter.admit(bad, LOW if bad.claim_id != "b" else HIGH)
    with pytest.raises(InputError, match="its predicate needs"):
        adapter.admit(claim_on(LOW[:4], "d", 5, predicate=parse_predicate("leading_prefix_at_least(2)")), LOW[:4])


def test_a_loss_names_the_claim_whose_blocks_are_gone_from_every_level(adapter, tmp_path):
    """The less important one goes first; a move to host memory is no loss; the audit can follow it all."""
    adapter.admit(claim_on(HIGH, "high", 9), HIGH)
    adapter.admit(claim_on(LOW, "low", 1), LOW)
    play(adapter, created(), chain(1, HIGH, 10), chain(2, LOW, 20))
    respond(adapter, "low")
    play(adapter, moved(3, 21, 0, 1), removed(4, 21))
    adapter.release(("tenant", "high"), "finished")
    adapter.close()
    assert told(tmp_path) == [
        ("resident_claim_accepted", "high"),
        ("resident_claim_accepted", "low"),
        ("resident_claim_materialized", "high"),
        ("resident_claim_materialized", "low"),
        ("resident_claim_reused", "low"),
        ("resident_claim_harmed", "low"),
        ("resident_claim_released", "high"),
        ("trace_closed", None),
    ]
    report = audit_file(tmp_path / "trace.jsonl")
    assert report.verdict is Verdict.CONFORMING, [f.story for c in report.claims for f in c.findings]


def test_after_a_gap_the_adapter_tells_nothing_and_the_audit_is_inconclusive(adapter, tmp_path):
    """Whether the claim's blocks are still there is not known, and not guessed."""
    adapter.admit(claim_on(HIGH, "a", 9), HIGH)
    play(adapter, created(), chain(1, HIGH, 10), removed(7, 10))
    respond(adapter, "a")
    adapter.close()
    assert adapter.is_blind
    assert told(tmp_path)[-1] == ("resident_claim_materialized", "a")
    assert audit_file(tmp_path / "trace.jsonl").verdict is Verdict.INCONCLUSIVE


def with_blocks(event: dict, **fields: object) -> dict:
    for block in event["data"]["blocks"]:
        block.update(fields)
    return event


def with_extra_ids(event: dict) -> dict:
    for block in event["data"]["blocks"]:
        block["tokens"] = [token | {"token_extra_id": 9} for token in block["tokens"]]
    return event


KEY = {"type": "mm_key", "hash": "ab", "start_offset": 0, "uuid": None}


@pytest.mark.parametrize(
    "foreign",
    [
        with_blocks(chain(1, HIGH, 1), cache_salt="another-tenant"),
        with_blocks(chain(1, HIGH, 1), lora_id=7),
        with_blocks(chain(1, HIGH, 1), mm_keys=[KEY]),
        with_extra_ids(chain(1, HIGH, 1)),
    ],
    ids=["salt", "adapter", "picture", "extra ids"],
)
def test_the_same_tokens_in_another_namespace_are_not_the_claims(adapter, tmp_path, foreign):
    """Neither reuse nor loss of another tenant's or adapter's blocks is told of the claim."""
    adapter.admit(claim_on(HIGH, "a", 9), HIGH)
    play(adapter, created(), foreign)
    respond(adapter, "a")
    play(adapter, removed(2, 1))
    adapter.close()
    assert told(tmp_path) == [("resident_claim_accepted", "a"), ("trace_closed", None)]
    assert audit_file(tmp_path / "trace.jsonl").verdict is Verdict.INCONCLUSIVE


def test_a_claim_under_a_salt_is_joined_to_the_blocks_of_that_salt(adapter, tmp_path):
    """Another tenant's blocks of the same tokens are others, with a priority of their own, and may go."""
    adapter.admit(claim_on(HIGH, "mine", 9), HIGH, cache_salt="tenant")
    adapter.admit(claim_on(HIGH, "theirs", 1), HIGH, cache_salt="other")
    mine = with_blocks(chain(1, HIGH, 1), cache_salt="tenant")
    play(adapter, created(), mine, with_blocks(chain(2, HIGH, 11), cache_salt="other"), removed(3, 12))
    respond(adapter, "mine")
    adapter.release(("tenant", "mine"), "finished")
    adapter.close()
    assert ("resident_claim_harmed", "theirs") in told(tmp_path)
    assert told(tmp_path)[-3:] == [
        ("resident_claim_reused", "mine"),
        ("resident_claim_released", "mine"),
        ("trace_closed", None),
    ]
    assert audit_file(tmp_path / "trace.jsonl").verdict is Verdict.CONFORMING


@pytest.mark.parametrize("pools", [{128}, {128, 4096}])
def test_blocks_of_several_windows_are_not_joined(adapter, tmp_path, pools):
    """Where every layer has one window its blocks are the claim's; where there are several nobody says which."""
    adapter.admit(claim_on(HIGH, "a", 9), HIGH)
    play(adapter, *(created(n, window_size=window) for n, window in enumerate(sorted(pools))))
    play(adapter, chain(len(pools), HIGH, 1) | {"window_size": 128})
    respond(adapter, "a")
    adapter.release(("tenant", "a"), "finished")
    adapter.close()
    several = len(pools) > 1
    assert adapter.is_blind is several
    assert (("resident_claim_materialized", "a") in told(tmp_path)) is not several
    verdict = audit_file(tmp_path / "trace.jsonl").verdict
    assert verdict is (Verdict.INCONCLUSIVE if several else Verdict.CONFORMING)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_prefix_is_there_when_one_rank_has_all_of_it(adapter, tmp_path, rank):
    """Its first block at one rank and its second at another are found by no request."""
    adapter.admit(claim_on(HIGH, "a", 9), HIGH)
    play(adapter, created(), created(attention_dp_rank=1), stored(1, None, {1: HIGH[:4]}))
    second = stored(1 if rank else 2, 1, {2: HIGH[4:]}, attention_dp_rank=rank)
    play(adapter, second)
    assert (("resident_claim_materialized", "a") in told(tmp_path)) is (rank == 0)


@pytest.mark.parametrize("how", ["harmed", "released"])
def test_a_response_after_the_claim_is_over_says_nothing_of_it(adapter, tmp_path, how):
    """What is still cached then is nobody's, and no promise is broken by it."""
    adapter.admit(claim_on(HIGH, "a", 9), HIGH)
    play(adapter, created(), chain(1, HIGH, 1))
    respond(adapter, "a")
    if how == "harmed":
        play(adapter, removed(2, 2))
    else:
        adapter.release(("tenant", "a"), "finished")
    adapter.note_response(
        ("tenant", "a"), "r2", prompt_tokens=9, cached_tokens=4, output_tokens=1, finish_status="stop"
    )
    adapter.close()
    assert [e for e, _ in told(tmp_path)].count("resident_claim_reused") == 1
    assert audit_file(tmp_path / "trace.jsonl").verdict is Verdict.CONFORMING


def test_no_verdict_comes_of_it(adapter, tmp_path, capsys):
    """The descriptor has no such adapter, so what a trace of it shows is placed nowhere and the row stays a no."""
    adapter.admit(claim_on(HIGH, "a", 9), HIGH)
    play(adapter, created(), chain(1, HIGH, 10), removed(2, 11))
    adapter.close()
    evidence = tmp_path / "evidence.json"
    main(["audit", str(tmp_path / "trace.jsonl"), "--evidence-out", str(evidence)])
    arguments = ["check", "--runtime", "tensorrt_llm", "--mode", "soft_priority", "--evidence", str(evidence)]
    assert main([*arguments, "--recorded"]) == 11
    assert "sound_with_adapter" not in capsys.readouterr().out
