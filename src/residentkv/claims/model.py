"""The resident claim: what was promised, to whom, about which KV object (spec section 2)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from residentkv.claims.modes import Mode, OnRestoreFailure
from residentkv.claims.predicates import Predicate, parse_predicate
from residentkv.errors import InputError

MAX_NAME_CHARS = 256


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
    """One claim as submitted; build it with `decode_claim`, which checks every field.

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
    h = hashlib.sha256()
    for t in token_ids:
        h.update(t.to_bytes(4, "little"))
    return "tokens:" + h.hexdigest()


def decode_claim_request(raw: object) -> ClaimRequest:
    """Check the wire form strictly.

    Raises:
        InputError: unknown or missing field, wrong type, empty or overlong name, unknown mode or predicate;
            the message names the field.
    """
    try:
        request = msgspec.convert(raw, ClaimRequest, strict=True)
    except msgspec.ValidationError as e:
        raise InputError(f"resident_claim: {e}; see docs/contract.md for the fields", code="RKV001") from None
    for name in ("claim_id", "owner_scope", "cache_identity", "object_id", "token_map_id"):
        value = getattr(request, name)
        if value is None:
            continue
        if not value or len(value) > MAX_NAME_CHARS or any(ord(c) < 0x20 or ord(c) == 0x7F for c in value):
            raise InputError(
                f"resident_claim.{name}: found {value[:40]!r}, expected 1 to {MAX_NAME_CHARS} printable characters",
                code="RKV001",
            )
    parse_predicate(request.predicate)
    Mode.parse(request.mode)
    OnRestoreFailure.parse(request.on_restore_failure)
    ttl_s = request.ttl_s
    if ttl_s is not None and not 0 < ttl_s < float("inf"):
        raise InputError(f"resident_claim.ttl_s: found {ttl_s}, expected a finite number above 0", code="RKV001")
    if request.footprint_blocks is not None and request.footprint_blocks < 1:
        raise InputError(
            f"resident_claim.footprint_blocks: found {request.footprint_blocks}, expected at least 1", code="RKV001"
        )
    if request.revision < 0:
        raise InputError(f"resident_claim.revision: found {request.revision}, expected 0 or more", code="RKV001")
    return request


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
