"""The resident claim: what was promised, to whom, about which KV object (spec section 2)."""

from __future__ import annotations

import hashlib
import sys
from array import array
from collections.abc import Iterable

import msgspec

from residentkv.claims.modes import Mode, NamedChoice, OnRestoreFailure
from residentkv.claims.predicates import Predicate, parse_predicate
from residentkv.errors import InputError, UsageError

MAX_NAME_CHARS = 256
MAX_TTL_S = 10 * 365 * 86400.0
MAX_NUMBER = (1 << 31) - 1
"""Bound of blocks, revisions and (both ways) priorities, so that every number fits every trace and every counter."""


class CacheIdentity(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that must be equal for two KV blocks of the same tokens to be interchangeable."""

    model: str
    model_revision: str
    weights_epoch: int
    tokenizer: str
    kv_dtype: str
    kv_layout: str
    block_size_tokens: int
    cache_salt: str | None = None
    lora_adapter: str | None = None

    def digest(self) -> str:
        """Return the stable name of this identity, `cache:` and 32 hex digits; a salt never appears in clear."""
        return "cache:" + hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:32]


class ResidentClaim(msgspec.Struct, frozen=True, kw_only=True):
    """One claim as submitted; build it with `decode_claim_request` and `bind_claim`, which check every field.

    `footprint_blocks` is in primary-tier blocks of `block_size_tokens`; `ttl_s` in seconds from acceptance.
    `cache_identity` is a `CacheIdentity.digest`, `token_map_id` a `token_map_digest`.
    """

    claim_id: str
    owner_scope: str
    cache_identity: str
    object_id: str
    token_map_id: str
    predicate: Predicate
    footprint_blocks: int
    mode: Mode
    on_restore_failure: OnRestoreFailure = OnRestoreFailure.REFUSE
    ttl_s: float | None = None
    revision: int = 0
    priority: int = 0

    @property
    def key(self) -> tuple[str, str]:
        """(owner_scope, claim_id): the name is unique only within its owner."""
        return (self.owner_scope, self.claim_id)


class ClaimRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The wire form of a claim, before the runtime fills in what only it knows.

    `cache_identity`, `object_id` and `token_map_id` may be left out by a client: the runtime computes them and
    answers with them. When they are stated and differ from what the runtime computed, the claim is rejected.
    """

    claim_id: str
    owner_scope: str
    predicate: str
    mode: str
    footprint_blocks: int | None = None
    cache_identity: str | None = None
    object_id: str | None = None
    token_map_id: str | None = None
    on_restore_failure: str = "refuse"
    ttl_s: float | None = None
    revision: int = 0
    priority: int = 0


def token_map_digest(token_ids: Iterable[int]) -> str:
    """Return the digest of exact token ids (unsigned 32-bit little endian), `tokens:` and 64 hex digits."""
    words = array("I", token_ids)
    if sys.byteorder == "big":
        words.byteswap()
    return "tokens:" + hashlib.sha256(words).hexdigest()


def decode_claim_request(raw: object) -> ClaimRequest:
    """Check the wire form strictly.

    Raises:
        InputError: unknown or missing field, wrong type, empty or overlong name, unknown mode or predicate;
            the message names the field.
    """
    try:
        request = msgspec.convert(raw, ClaimRequest, strict=True)
    except (msgspec.ValidationError, OverflowError) as e:
        raise InputError(f"resident_claim: {e}; see docs/contract.md for the fields", code="RKV001") from None
    for name in ("claim_id", "owner_scope", "cache_identity", "object_id", "token_map_id"):
        value = getattr(request, name)
        if value is None:
            continue
        if not 1 <= len(value) <= MAX_NAME_CHARS or not value.isprintable():
            raise _bad_field(name, repr(value[:40]), f"1 to {MAX_NAME_CHARS} printable characters")
    parse_predicate(request.predicate)
    words: tuple[tuple[str, type[NamedChoice], str], ...] = (
        ("mode", Mode, request.mode),
        ("on_restore_failure", OnRestoreFailure, request.on_restore_failure),
    )
    for name, choice, word in words:
        try:
            choice.parse(word)
        except UsageError as e:
            raise InputError(f"resident_claim.{name}: {e}", code="RKV001") from None
    if request.ttl_s is not None and not 0 < request.ttl_s <= MAX_TTL_S:
        raise _bad_field("ttl_s", request.ttl_s, f"a number above 0, at most {MAX_TTL_S:.0f}")
    if request.footprint_blocks is not None and not 1 <= request.footprint_blocks <= MAX_NUMBER:
        raise _bad_field("footprint_blocks", request.footprint_blocks, f"1 to {MAX_NUMBER}")
    if not 0 <= request.revision <= MAX_NUMBER:
        raise _bad_field("revision", request.revision, f"0 to {MAX_NUMBER}")
    if not -MAX_NUMBER <= request.priority <= MAX_NUMBER:
        raise _bad_field("priority", request.priority, f"-{MAX_NUMBER} to {MAX_NUMBER}")
    return request


def _bad_field(name: str, found: object, expected: str) -> InputError:
    return InputError(f"resident_claim.{name}: found {found}, expected {expected}", code="RKV001")


def bind_claim(
    request: ClaimRequest, *, cache_identity: str, object_id: str, token_map_id: str, footprint_blocks: int
) -> ResidentClaim:
    """Complete a wire claim with what the runtime computed.

    Raises:
        InputError: the client stated an identity or footprint that differs from the computed one (RKV002).
    """
    computed: dict[str, str | int] = {
        "cache_identity": cache_identity,
        "object_id": object_id,
        "token_map_id": token_map_id,
        "footprint_blocks": footprint_blocks,
    }
    for name, value in computed.items():
        stated = getattr(request, name)
        if stated is not None and stated != value:
            raise InputError(
                f"resident_claim.{name}: found {stated!r}, the runtime computed {value!r}; "
                "leave the field out or claim the object that you send",
                code="RKV002",
            )
    return ResidentClaim(
        claim_id=request.claim_id,
        owner_scope=request.owner_scope,
        cache_identity=cache_identity,
        object_id=object_id,
        token_map_id=token_map_id,
        predicate=parse_predicate(request.predicate),
        footprint_blocks=footprint_blocks,
        mode=Mode.parse(request.mode),
        on_restore_failure=OnRestoreFailure.parse(request.on_restore_failure),
        ttl_s=request.ttl_s,
        revision=request.revision,
        priority=request.priority,
    )
