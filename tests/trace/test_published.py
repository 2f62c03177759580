from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from residentkv.errors import InputError
from residentkv.trace import events as ours
from residentkv.trace.codec import decode_line, encode_event
from residentkv.trace.events import AnyEvent, RuntimeEvent
from residentkv.trace.published import PublishedDecoder
from residentkv.trace.published_fields import FIELDS
from residentkv.trace.published_map import COMMON, ENVELOPE, EVENTS, Derived, Maybe, Take
from residentkv.trace.reader import TraceDigest, read_any
from tests.trace.published_samples import FAILED_LOAD, MODEL, NAMED, Record, encode, live, reference


def imported(records: list[Record]) -> list[AnyEvent]:
    """Import records that have no error."""
    events, error = PublishedDecoder().decode_chunk(encode(records))
    assert error is None, str(error)
    assert len(events) == len(records)
    return events


def refusal(records: list[Record]) -> InputError:
    """Import records of which one is wrong."""
    events, error = PublishedDecoder().decode_chunk(encode(records))
    assert error is not None
    assert error.line == len(events) + 1
    return error


def changed(records: list[Record], at: int, **fields: object) -> list[Record]:
    """Return the records with some fields of one of them set, or left out where the value is `...`."""
    record = {k: v for k, v in (records[at] | fields).items() if v is not ...}
    return [*records[:at], record, *records[at + 1 :]]


def test_live_trace_becomes_our_events_one_by_one() -> None:
    """Every event of a failed load keeps its place and becomes what it says, and no opening or close is invented."""
    events = imported(FAILED_LOAD)
    assert [e.seq for e in events] == list(range(20))
    assert {(e.source, e.epoch, e.run_id) for e in events} == {("published", 0, "hook:x")}
    assert [(e.mono_ns, e.wall_ns) for e in events] == [(100 + i, 1000 + i) for i in range(20)]
    assert [type(e).__name__ if not isinstance(e, RuntimeEvent) else e.name for e in events] == [
        "RequestInitialized",
        "LookupResult",
        "JobCreated",
        "offload_worker_transfer_submitted",
        "TransferFinished",
        "ClaimOffloaded",
        "offload_job_completed",
        "offload_request_finished_no_pending_jobs",
        "RequestInitialized",
        "LookupResult",
        "ClaimRestoreRequired",
        "JobCreated",
        "TransferFinished",
        "offload_worker_load_failed",
        "SchedulerRestorationFailed",
        "SchedulerRequestRefused",
        "offload_request_finished_pending_jobs",
        "offload_load_job_failed",
        "ClaimRestorationFailed",
        "RequestRefused",
    ]
    failed = events[12]
    assert isinstance(failed, ours.TransferFinished)
    assert (failed.success, failed.direction, failed.job_id, failed.bytes) == (False, "load", 6, 4096)
    assert (failed.ok_pos, failed.failed_pos, failed.reason) == ((), (), "broken")
    outcome = events[14]
    assert isinstance(outcome, ours.SchedulerRestorationFailed)
    assert (outcome.outcome_claim_id, outcome.blocking_claim_ids) == ("claim:a", ("claim:a",))
    assert (outcome.invalid_block_ids, outcome.failure_policy, outcome.finish_status) == ((8, 9), "fail", "error")


def test_imported_events_are_events_of_ours() -> None:
    """What the importer gives could have been read from a native trace: it encodes and decodes to the same."""
    for event in imported(FAILED_LOAD) + imported(MODEL):
        assert decode_line(encode_event(event)[:-1]) == event


def test_claim_events_carry_the_identity_that_they_state() -> None:
    """The whole identity comes from the event itself; the owner, which the format does not know, is a fixed word."""
    for event in imported(FAILED_LOAD) + imported(MODEL):
        if isinstance(event, ours.ClaimEvent):
            assert (event.claim_id, event.owner_scope) == ("claim:a", "published:no-owner")
            assert (event.object_id, event.token_map_id) == ("object:a", "tokens:a")
            assert (event.cache_identity, event.predicate) == ("cache:1", "leading_prefix_at_least(2)")


def test_generations_of_the_live_variant_count_from_one() -> None:
    """Stores count from 0 there and ours from 1; loads count from 1; the scheduler's events state none."""
    events = imported(FAILED_LOAD)
    found = {i: e.generation for i, e in enumerate(events) if isinstance(e, ours.ClaimEvent | ours.JobCreated)}
    assert found == {2: 0, 5: 1, 10: 1, 11: 1, 14: None, 18: 1}


def test_generations_of_the_reference_variant_are_ours() -> None:
    """There the generation counts the offloaded events of the claim, as ours does."""
    events = [e for e in imported(MODEL) if isinstance(e, ours.ClaimEvent)]
    assert [e.generation for e in events] == [0, 0, 1, 1, 1, 1, None]


def test_reference_trace_becomes_our_events() -> None:
    """A model's trace: sequence numbers from 1 become numbers from 0, and a missing monotonic clock becomes 0."""
    events = imported(MODEL)
    assert [e.seq for e in events] == list(range(7))
    assert [(e.mono_ns, e.wall_ns, e.run_id) for e in events] == [(0, 1001 + i, "run:x") for i in range(7)]
    accepted, materialized, offloaded, required, restored, _, demoted = events
    assert isinstance(accepted, ours.ClaimAccepted)
    assert (accepted.mode, accepted.decision, accepted.footprint_blocks) == ("offloadable", "accepted", 2)
    assert (accepted.revision, accepted.usable_blocks, accepted.ttl_s) == (1, 16, None)
    assert isinstance(materialized, ours.ClaimMaterialized)
    assert (materialized.retrievable_pos, materialized.object_blocks) == (((0, 2),), 3)
    assert isinstance(offloaded, ours.ClaimOffloaded)
    assert (offloaded.retrievable_pos, offloaded.job_ids) == ((), ())
    assert isinstance(required, ours.ClaimRestoreRequired)
    assert (required.tier_from, required.tier_to) == ("host_offload_tier", "published:not-stated")
    assert isinstance(restored, ours.ClaimRestored)
    assert (restored.job_id, restored.retrievable_pos) == (None, ())
    assert isinstance(demoted, ours.ClaimDemoted)
    assert (demoted.reason, demoted.outcome_claim_id) == ("demote", "claim:a")


def test_gap_in_the_published_sequence_stays_a_gap() -> None:
    """Leaving out any event leaves out exactly its number: also the first, because the base is that of the variant."""
    for records in (FAILED_LOAD, MODEL):
        for at in range(len(records)):
            rest = records[:at] + records[at + 1 :]
            assert [e.seq for e in imported(rest)] == [i for i in range(len(records)) if i != at]


def test_counter_without_a_claim_is_a_counter() -> None:
    """Process-wide numbers name no claim and become counters, each with its value."""
    records = [
        {"event": n, "event_sequence": i, "timestamp_ns": i, "run_id": "r", v: i + 10}
        for i, (n, v) in enumerate(
            [
                ("generic_kv_transfer_failed_counter", "failure_count"),
                ("generic_request_error_counter", "request_failures"),
                ("generic_kv_blocks_offloaded", "generic_offload_blocks"),
                ("generic_kv_blocks_onboarded", "generic_onboard_blocks"),
            ],
            1,
        )
    ]
    events = imported(records)
    assert [(type(e), e.name, e.value) for e in events] == [
        (ours.GenericCounter, r["event"], 10 + i) for i, r in enumerate(records, 1)
    ]


@pytest.mark.parametrize(
    ("at", "fields", "name"),
    [
        (0, {"claim_registration": "post_hoc"}, 'resident_claim_accepted:claim_registration="post_hoc"'),
        (0, {"claim_registration": ...}, "resident_claim_accepted:claim_registration=absent"),
        (1, {"predicate_materialized": False}, "resident_claim_materialized:predicate_materialized=false"),
        (
            3,
            {"predicate_satisfied_from_primary": True},
            "resident_claim_restore_required:predicate_satisfied_from_primary=true",
        ),
        (
            4,
            {"restoration_source": "fallback_recompute"},
            'resident_claim_restored:restoration_source="fallback_recompute"',
        ),
        (4, {"restored_from_offload_tier": False}, "resident_claim_restored:restored_from_offload_tier=false"),
        (4, {"restoration_completed": ...}, "resident_claim_restored:restoration_completed=absent"),
        (5, {"predicate_satisfied": False}, "resident_claim_reuse_after_restore:predicate_satisfied=false"),
    ],
)
def test_event_that_is_not_what_its_name_says_is_no_evidence(at: int, fields: Record, name: str) -> None:
    """A flag that takes back what the name says makes it an event of the runtime, at its place, that says so."""
    event = imported(changed(MODEL, at, **fields))[at]
    assert isinstance(event, RuntimeEvent)
    assert (event.name, event.seq) == (name, at)


@pytest.mark.parametrize(
    ("at", "fields", "name"),
    [
        (4, {"request_id": ...}, "offload_worker_transfer_finished:request_id=absent"),
        (14, {"scheduler_side_failure_outcome": False}, "scheduler_side_failure_outcome=false"),
        (15, {"scheduler_side_refusal": False}, "scheduler_side_refusal=false"),
        (15, {"native_scheduler_admission_refusal": True}, "native_scheduler_admission_refusal=true"),
        (18, {"fallback_recompute_counted_as_satisfying_claim": True}, "counted_as_satisfying_claim=true"),
    ],
)
def test_live_event_that_is_not_what_its_name_says_is_no_evidence(at: int, fields: Record, name: str) -> None:
    """The same for the live variant; a transfer that names no request joins nothing."""
    event = imported(changed(FAILED_LOAD, at, **fields))[at]
    assert isinstance(event, RuntimeEvent)
    assert event.name.endswith(name)
    assert event.job_id == FAILED_LOAD[at].get("job_id")


@pytest.mark.parametrize(
    "field",
    [
        "claim_id",
        "request_id",
        "reusable_object_id",
        "request_token_map_id",
        "cache_identity",
        "materialization_predicate",
    ],
)
def test_identity_that_an_event_leaves_out_is_missing(field: str) -> None:
    """It is not filled in from the events around it, which state it: the import stops and names it."""
    for records in (MODEL, FAILED_LOAD):
        at = next(i for i, r in enumerate(records) if r["event"] == "resident_claim_offloaded")
        error = refusal(changed(records, at, resident_claim=..., resident_claim_id=..., **{field: ...}))
        assert (error.code, error.line) == ("RKV104", at + 1)
        assert repr(field) in str(error)


def test_claim_may_stand_under_its_other_name() -> None:
    """`resident_claim_id` is an alias on the same event; when both are there they must agree."""
    assert imported(changed(FAILED_LOAD, 5, claim_id=...)) == imported(FAILED_LOAD)
    error = refusal(changed(FAILED_LOAD, 5, resident_claim_id="claim:b"))
    assert (error.code, error.line) == ("RKV105", 6)


@pytest.mark.parametrize(
    ("records", "at", "fields", "code"),
    [
        (MODEL, 0, {"event": "resident_claim_adopted"}, "RKV106"),
        (MODEL, 0, {"event": ...}, "RKV104"),
        (MODEL, 0, {"event": None}, "RKV105"),
        (MODEL, 0, {"mood": "good"}, "RKV103"),
        (MODEL, 0, {"success": True}, "RKV103"),
        (MODEL, 2, {"schema": 1}, "RKV113"),
        (MODEL, 2, {"schema_version": 2}, "RKV107"),
        (MODEL, 2, {"monotonic_ns": 5, "wall_time_ns": 5}, "RKV113"),
        (FAILED_LOAD, 2, {"monotonic_ns": ..., "timestamp_ns": 5}, "RKV113"),
        (MODEL, 2, {"event_sequence": ...}, "RKV104"),
        (MODEL, 2, {"event_sequence": 0}, "RKV105"),
        (MODEL, 2, {"event_sequence": -1}, "RKV105"),
        (MODEL, 2, {"event_sequence": 2.0}, "RKV105"),
        (MODEL, 2, {"timestamp_ns": ...}, "RKV104"),
        (MODEL, 2, {"run_id": ...}, "RKV104"),
        (MODEL, 2, {"cache_tier_from": ...}, "RKV104"),
        (MODEL, 2, {"claim_id": ""}, "RKV105"),
        (MODEL, 2, {"claim_id": 7}, "RKV105"),
        (MODEL, 2, {"block_ids": [1, "2"]}, "RKV105"),
        (MODEL, 2, {"cache_tier_to": "t" * 65}, "RKV105"),
        (MODEL, 2, {"predicate_id": "predicate:b"}, "RKV105"),
        (MODEL, 2, {"prefix_id": "prefix:b"}, "RKV105"),
        (MODEL, 2, {"lifecycle_generation": 2}, "RKV105"),
        (MODEL, 0, {"protection_mode": "strong"}, "RKV105"),
        (MODEL, 0, {"protection_mode": ...}, "RKV104"),
        (MODEL, 0, {"confidence": "high"}, "RKV105"),
        (FAILED_LOAD, 0, {"resident_claim": False}, "RKV105"),
        (FAILED_LOAD, 0, {"claim_id": ..., "resident_claim_id": ...}, "RKV104"),
        (FAILED_LOAD, 6, {"is_store": False}, "RKV105"),
        (FAILED_LOAD, 12, {"transfer_type": ["GPU", "CPU"]}, "RKV105"),
        (FAILED_LOAD, 12, {"transfer_type": ["CPU", "DISK"]}, "RKV105"),
        (FAILED_LOAD, 12, {"transfer_type": ...}, "RKV104"),
        (FAILED_LOAD, 11, {"restoration_generation": None}, "RKV104"),
        (FAILED_LOAD, 9, {"num_hit_tokens": ...}, "RKV104"),
        (FAILED_LOAD, 14, {"invalid_block_count": 3}, "RKV105"),
        (FAILED_LOAD, 14, {"scheduler_failure_policy": "hope"}, "RKV105"),
        (FAILED_LOAD, 14, {"outcome_claim_id": ...}, "RKV104"),
        (FAILED_LOAD, 19, {"blocking_claim_ids": ...}, "RKV104"),
    ],
)
def test_what_is_not_understood_stops_the_import(records: list[Record], at: int, fields: Record, code: str) -> None:
    """Unknown names, missing and contradictory fields are errors at their line; nothing is dropped or repaired."""
    error = refusal(changed(records, at, **fields))
    assert (error.code, error.line) == (code, at + 1)
    assert error.column >= 1


@pytest.mark.parametrize("records", [MODEL, FAILED_LOAD])
def test_duplicate_key_and_malformed_line_are_errors(records: list[Record]) -> None:
    """The published format is read as strictly as ours."""
    data = encode(records)
    for old, new, code in (
        (b'"event_sequence": 3,', b'"event_sequence": 3, "event_sequence": 3,', "RKV102"),
        (b'"event_sequence": 3,', b'"event_sequence": NaN,', "RKV101"),
        (b'"event_sequence": 3,', b'"event_sequence": 1e999,', "RKV101"),
        (b'"event_sequence": 3,', b'"event_sequence": 3,\n', "RKV101"),
        (b'"claim:a"', b'"claim:\xff"', "RKV109"),
    ):
        assert old in data
        _, error = PublishedDecoder().decode_chunk(data.replace(old, new, 1))
        assert error is not None
        assert error.code == code


@pytest.mark.parametrize(
    ("tokens", "hashes", "computed", "hit", "pos"),
    [
        (480, 30, 0, 448, ((0, 28),)),
        (481, 30, 16, 432, ((1, 28),)),
        (480, 30, 0, 0, ()),
        (480, 30, 0, 440, ()),
        (480, 30, 3, 448, ()),
        (40, 2, 0, 32, ()),
        (5, 0, 0, 5, ()),
        (0, 0, 0, 16, ()),
    ],
)
def test_hit_becomes_positions_only_when_one_block_size_is_possible(
    tokens: int, hashes: int, computed: int, hit: int, pos: ours.Ranges
) -> None:
    """480 tokens in 30 whole blocks are 16 a block; 40 tokens in 2 may be 14 to 20, and then no position follows."""
    request = {"request_id": "q", "num_prompt_tokens": tokens, "num_block_hashes": hashes}
    lookup = {"request_id": "q", "num_computed_tokens": computed, "num_hit_tokens": hit}
    event = imported(live(("request_initialized", request), ("offload_lookup_result", lookup)))[1]
    assert isinstance(event, ours.LookupResult)
    assert event.hit_pos == pos
    assert (event.claim_id, event.owner_scope) == (None, None)
    elsewhere = live(("request_initialized", request | {"request_id": "p"}), ("offload_lookup_result", lookup))
    other = imported(elsewhere)[1]
    assert isinstance(other, ours.LookupResult)
    assert other.hit_pos == ()


def test_surviving_blocks_are_positions_only_under_a_leading_predicate() -> None:
    """`leading_blocks_survived` says nothing about another predicate, and a block count says nothing at all."""
    for fields in (
        {"materialization_predicate": "whole_object"},
        {"leading_blocks_survived": 0},
        {"leading_blocks_survived": ...},
    ):
        event = imported(changed(MODEL, 1, **fields))[1]
        assert isinstance(event, ours.ClaimMaterialized)
        assert event.retrievable_pos == ()


def test_harm_is_imported_and_expiry_without_a_term_is_no_evidence() -> None:
    """The format's expiry states no deadline that could be checked, so it becomes an event of the runtime."""
    ended = {"request_id": "b", "arbiter_action": "x", "outcome_claim_id": "claim:a", "outcome_type": "harm"}
    harmed, expired = imported(reference(("resident_claim_harmed", ended), ("resident_claim_expired", ended)))
    assert isinstance(harmed, ours.ClaimHarmed)
    assert (harmed.outcome_claim_id, harmed.lost_pos) == ("claim:a", ())
    assert isinstance(expired, RuntimeEvent)
    assert expired.name == "resident_claim_expired"


def test_refusal_without_a_restoration_names_no_outcome_claim() -> None:
    """A capacity refusal states its numbers as far as the format has them; the rest is null."""
    named = {k: v for k, v in NAMED.items() if k != "outcome_claim_id"}
    event = imported(reference(("active_request_refused", named | {"request_id": "b", "arbiter_action": "full"})))[0]
    assert isinstance(event, ours.RequestRefused)
    assert (event.outcome_claim_id, event.usable_blocks, event.need_blocks) == (None, 16, None)


def test_published_file_is_read_with_its_digest(tmp_path: Path) -> None:
    """The reader gives the same events as the decoder, and the digest of the file."""
    path = tmp_path / "t.jsonl"
    path.write_bytes(encode(FAILED_LOAD))
    digest = TraceDigest()
    assert [e for chunk in read_any(path, digest=digest) for e in chunk] == imported(FAILED_LOAD)
    assert digest.events == len(FAILED_LOAD)
    assert digest.sha256 is not None


@given(st.data())
def test_no_change_of_a_published_trace_gives_anything_but_events_or_one_error(data: st.DataObject) -> None:
    """Whatever value stands in whatever field, the importer raises nothing but its own error, at that line."""
    records = data.draw(st.sampled_from([MODEL, FAILED_LOAD]))
    at = data.draw(st.integers(0, len(records) - 1))
    field = data.draw(st.sampled_from([*FIELDS, "schema", "x"]))
    numbers = st.integers(-1, 1 << 70) | st.floats(allow_nan=False)
    lists = st.lists(st.integers(0, 3) | st.text(max_size=2), max_size=3)
    objects = st.dictionaries(st.text(max_size=1), st.none())
    value = data.draw(st.none() | st.booleans() | numbers | st.text(max_size=3) | lists | objects)
    events, error = PublishedDecoder().decode_chunk(encode(changed(records, at, **{field: value})))
    if error is None:
        assert len(events) == len(records)
    else:
        assert at + 1 <= error.line
        assert error.code.startswith("RKV1")


def test_the_tables_fit_each_other() -> None:
    """Every field an event takes or may have is in the field table; every field is used or says why it is not."""
    taken: set[str] = set()
    for mapping in EVENTS.values():
        allowed = COMMON | mapping.may_have
        assert allowed <= set(FIELDS)
        assert set(mapping.means) <= allowed
        required = set(mapping.kind.__struct_fields__) - set(ENVELOPE)
        assert set(mapping.origins) == required
        for origin in (*mapping.origins.values(), *ENVELOPE.values()):
            if isinstance(origin, Take | Maybe):
                assert set(origin.names) <= allowed
                taken |= set(origin.names)
            elif isinstance(origin, Derived):
                assert origin.says
    derived = {"event", "event_sequence", "claim_id", "transfer_type", "protection_mode", "leading_blocks_survived"}
    derived |= {"num_hit_tokens", "num_computed_tokens", "num_block_hashes", "offload_generation"}
    derived |= {"restoration_generation", "job_id"}
    for name, field in FIELDS.items():
        assert field.note or name in taken | derived, name
