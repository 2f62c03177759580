"""The claim as it comes over the wire."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from residentkv.claims.model import (
    CacheIdentity,
    ClaimRequest,
    bind_claim,
    decode_claim_request,
    token_map_digest,
)
from residentkv.claims.modes import Mode, OnRestoreFailure
from residentkv.errors import InputError, UsageError
from residentkv.trace.events import ClaimRejected

GOOD: dict[str, Any] = {
    "claim_id": "c1",
    "owner_scope": "tenant-a",
    "predicate": "leading_prefix_at_least(4)",
    "mode": "hard_protected",
}
IDENTITY = CacheIdentity(
    model="m",
    model_revision="r",
    weights_epoch=0,
    tokenizer="t",
    kv_dtype="bf16",
    kv_layout="nhd",
    block_size_tokens=16,
)


def test_minimal_claim_gets_the_documented_defaults() -> None:
    """Refuse on a failed restoration, no term, revision and priority 0; identities are the runtime's to fill in."""
    request = decode_claim_request(GOOD)
    assert request.on_restore_failure == "refuse"
    assert (request.ttl_s, request.revision, request.priority) == (None, 0, 0)
    assert (request.cache_identity, request.object_id, request.token_map_id) == (None, None, None)


@pytest.mark.parametrize("missing", ["claim_id", "owner_scope", "predicate", "mode"])
def test_missing_field_is_refused_by_name(missing: str) -> None:
    """A claim without a name, an owner, a predicate or a mode is no claim."""
    with pytest.raises(InputError, match=missing):
        decode_claim_request({k: v for k, v in GOOD.items() if k != missing})


BAD = [
    ("claim_id", ""),
    ("claim_id", "x" * 257),
    ("claim_id", "a\nb"),
    ("claim_id", "a\x7fb"),
    ("claim_id", "a\x85b"),
    ("claim_id", "a\u202eb"),
    ("claim_id", "a\u2028b"),
    ("claim_id", "\ud800"),
    ("claim_id", 7),
    ("owner_scope", ""),
    ("owner_scope", None),
    ("cache_identity", ""),
    ("object_id", "\x00"),
    ("token_map_id", "x" * 300),
    ("mode", "pinned"),
    ("mode", "HARD_PROTECTED"),
    ("mode", None),
    ("predicate", "blocks(59)"),
    ("on_restore_failure", "ignore"),
    ("ttl_s", 0),
    ("ttl_s", -1.5),
    ("ttl_s", float("inf")),
    ("ttl_s", float("nan")),
    ("ttl_s", 1e300),
    ("ttl_s", 10**400),
    ("ttl_s", "30"),
    ("ttl_s", True),
    ("footprint_blocks", 0),
    ("footprint_blocks", -1),
    ("footprint_blocks", 2.0),
    ("footprint_blocks", 10**30),
    ("revision", -1),
    ("revision", 1 << 31),
    ("priority", 1 << 31),
    ("priority", -(1 << 31)),
    ("priority", "high"),
    ("pinned", True),
]


@pytest.mark.parametrize(("field", "value"), BAD, ids=[f"{f}-{i}" for i, (f, _) in enumerate(BAD)])
def test_bad_field_is_an_input_error_that_names_it(field: str, value: object) -> None:
    """The message names the field, and a word that is no mode is an input error too, not a usage error."""
    with pytest.raises(InputError) as caught:
        decode_claim_request({**GOOD, field: value})
    assert field in str(caught.value)
    assert caught.value.code in ("RKV001", "RKV003")


@pytest.mark.parametrize("raw", [None, 7, "claim", [], [GOOD], {1: 2}, b"x"])
def test_what_is_no_mapping_of_fields_is_refused(raw: object) -> None:
    """Only an object with the named fields is a claim."""
    with pytest.raises(InputError):
        decode_claim_request(raw)


@settings(max_examples=300, deadline=None)
@given(
    st.text(max_size=20),
    st.integers(),
    st.one_of(st.none(), st.floats(), st.integers()),
    st.integers(),
)
def test_every_decoded_claim_can_be_written_into_a_trace(name: str, priority: int, ttl_s: Any, revision: int) -> None:
    """What passes the decoder can always be encoded as JSON: a hostile claim cannot stop the event log."""
    try:
        request = decode_claim_request(
            {**GOOD, "claim_id": name, "priority": priority, "ttl_s": ttl_s, "revision": revision}
        )
    except InputError:
        return
    event = ClaimRejected(
        schema=1,
        run_id="r",
        source="s",
        epoch=0,
        seq=0,
        mono_ns=0,
        wall_ns=0,
        claim_id=request.claim_id,
        owner_scope=request.owner_scope,
        object_id="o",
        token_map_id="t",
        cache_identity="c",
        predicate=request.predicate,
        request_id=None,
        generation=0,
        mode=request.mode,
        reason="x",
        detail="",
    )
    assert msgspec.json.decode(msgspec.json.encode(event), type=ClaimRejected) == event
    assert msgspec.json.decode(msgspec.json.encode(request), type=ClaimRequest) == request


def bound(request: ClaimRequest) -> Any:
    return bind_claim(request, cache_identity="cache:1", object_id="o1", token_map_id="t1", footprint_blocks=4)


def test_runtime_fills_in_what_the_client_left_out() -> None:
    """The bound claim carries the computed identity and the parsed words."""
    claim = bound(decode_claim_request({**GOOD, "ttl_s": 30, "priority": 3}))
    assert (claim.cache_identity, claim.object_id, claim.token_map_id) == ("cache:1", "o1", "t1")
    assert claim.mode is Mode.HARD_PROTECTED and claim.on_restore_failure is OnRestoreFailure.REFUSE
    assert claim.key == ("tenant-a", "c1") and claim.predicate.count == 4 and claim.ttl_s == 30.0


@pytest.mark.parametrize(
    ("field", "stated"),
    [("cache_identity", "cache:2"), ("object_id", "o2"), ("token_map_id", "t2"), ("footprint_blocks", 5)],
)
def test_stated_identity_that_differs_from_the_computed_one_is_refused(field: str, stated: object) -> None:
    """A claim about other tokens, another cache or another size than what was sent is never bound."""
    with pytest.raises(InputError, match=field) as caught:
        bound(decode_claim_request({**GOOD, field: stated}))
    assert caught.value.code == "RKV002"


def test_stated_identity_that_agrees_is_bound() -> None:
    """A client may say what it means and is then held to it."""
    request = decode_claim_request(
        {**GOOD, "cache_identity": "cache:1", "object_id": "o1", "token_map_id": "t1", "footprint_blocks": 4}
    )
    assert bound(request).object_id == "o1"


@pytest.mark.parametrize(
    "change",
    [
        {"model": "m2"},
        {"model_revision": "r2"},
        {"weights_epoch": 1},
        {"tokenizer": "t2"},
        {"kv_dtype": "fp8"},
        {"kv_layout": "hnd"},
        {"block_size_tokens": 32},
        {"cache_salt": "s"},
        {"lora_adapter": "l"},
    ],
    ids=lambda c: next(iter(c)),
)
def test_every_part_of_the_cache_identity_changes_its_digest(change: dict[str, Any]) -> None:
    """Two caches that differ in anything that matters never share a name."""
    changed = msgspec.structs.replace(IDENTITY, **change)
    assert changed.digest() != IDENTITY.digest()


def test_salt_does_not_appear_in_the_digest() -> None:
    """The name of a cache is safe to log."""
    digest = msgspec.structs.replace(IDENTITY, cache_salt="tenant-secret").digest()
    assert digest.startswith("cache:") and "tenant-secret" not in digest and len(digest) == 38


def test_salt_and_adapter_are_not_confused() -> None:
    """The same text as a salt or as an adapter names two caches."""
    a = msgspec.structs.replace(IDENTITY, cache_salt="x")
    b = msgspec.structs.replace(IDENTITY, lora_adapter="x")
    assert a.digest() != b.digest()


def test_token_map_digest_is_sha256_over_little_endian_u32() -> None:
    """Another implementation can compute the same digest from the documented rule."""
    tokens = [0, 1, 258, (1 << 32) - 1]
    raw = b"".join(t.to_bytes(4, "little") for t in tokens)
    assert token_map_digest(tokens) == "tokens:" + hashlib.sha256(raw).hexdigest()
    assert token_map_digest([1, 2]) != token_map_digest([2, 1]) != token_map_digest([1])


@pytest.mark.parametrize("token", [-1, 1 << 32])
def test_token_outside_of_u32_is_not_digested(token: int) -> None:
    """No wrap-around makes two token maps equal."""
    with pytest.raises(OverflowError):
        token_map_digest([token])


def test_unknown_mode_names_the_nearest_one() -> None:
    """A typing error gets a suggestion."""
    with pytest.raises(UsageError, match="did you mean 'hard_protected'"):
        Mode.parse("hard_protect")
