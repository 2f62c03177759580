"""From what a client sent to a decision about its claim; everything is checked before anything else happens."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from residentkv.claims.arbiter import Answer
from residentkv.claims.lifecycle import OPEN
from residentkv.claims.model import MAX_NAME_CHARS, ClaimRequest, bind_claim, decode_claim_request, token_map_digest
from residentkv.claims.modes import HOLDS_PRIMARY, Mode
from residentkv.claims.params import CLAIM_PARAM, OWNER_PARAMS, RELEASE_PARAM, RENEW_PARAM
from residentkv.claims.predicates import parse_predicate
from residentkv.errors import ResidentKVError
from residentkv.runtimes.vllm.claimbook import ClaimBook
from residentkv.runtimes.vllm.claimtrack import ClaimTrack, TierKey
from residentkv.runtimes.vllm.renewal import MAX_ITEMS, carry_out_renewals
from residentkv.trace import events as ev

KEEP_PARAM = "resident_keep_kv"
MAX_DETAIL_CHARS = 500


class RequestFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine knows about a new request; `token_ids` is None when the prompt is not only tokens.

    `hashes` and `keys` name the full blocks of the prompt, in order. `unreadable` says why the request cannot read
    cached blocks in full, if so. `barred` is (reason, detail) when it may not speak about the claims that it names.
    `max_tokens` is how many tokens it may be given, `keeps_kv` whether its blocks may be found by others, `rank` its
    place in the engine's order of priority.
    """

    request_id: str
    params: Mapping[str, Any]
    token_ids: Sequence[int] | None
    prompt_tokens: int
    block_tokens: int
    hashes: Sequence[bytes]
    keys: Sequence[TierKey]
    cache_identity: str
    unreadable: str | None = None
    barred: tuple[str, str] | None = None
    max_tokens: int = 1
    keeps_kv: bool = True
    rank: tuple[Any, ...] = ()


class Intake(msgspec.Struct, kw_only=True):
    """The answer: the claim that the request acts for, if any, whose it says it is, and what the client is told."""

    track: ClaimTrack | None = None
    owner_scope: str | None = None
    reply: dict[str, Any] | None = None
    releases: list[dict[str, Any]] = msgspec.field(default_factory=list)
    renewals: list[dict[str, Any]] = msgspec.field(default_factory=list)


def read_release(raw: object) -> list[tuple[str, str]]:
    """Read (owner_scope, claim_id) pairs to be released: one object or a list of them.

    Raises:
        ValueError: it is something else.
    """
    items = raw if isinstance(raw, list) else [raw]
    if len(items) > MAX_ITEMS:
        raise ValueError(f"{RELEASE_PARAM}: found {len(items)} claims, expected at most {MAX_ITEMS}")
    out = []
    for item in items:
        if not isinstance(item, dict) or set(item) != {"claim_id", "owner_scope"}:
            raise ValueError(f"{RELEASE_PARAM}: expected claim_id and owner_scope, found {str(item)[:80]}")
        if not all(isinstance(v, str) and v for v in item.values()):
            raise ValueError(f"{RELEASE_PARAM}: claim_id and owner_scope must be non-empty strings")
        out.append((item["owner_scope"], item["claim_id"]))
    return out


def take_in(book: ClaimBook, facts: RequestFacts) -> Intake:
    """Announce the request, carry out its releases and renewals and decide about its claim, in this order."""
    if facts.barred is not None:
        return _turn_away(book, facts, *facts.barred)
    raw = facts.params.get(CLAIM_PARAM)
    request: ClaimRequest | None = None
    why = ""
    if raw is not None:
        try:
            request = decode_claim_request(raw)
        except (ResidentKVError, UnicodeError) as e:
            why = _readable(str(e))
    named = _named(raw) if raw is not None else None
    object_blocks = _object_blocks(request, facts)
    token_map = token_map_digest((facts.token_ids or ())[: object_blocks * facts.block_tokens])
    computed = {
        "object_id": _object_id(facts.cache_identity, token_map),
        "token_map_id": token_map,
        "cache_identity": facts.cache_identity,
    }
    existing = book.find(*named) if named is not None and named not in _asked_releases(facts) else None
    conflict = ""
    if existing is not None and request is not None:
        conflict = _conflict(existing, request, facts)
    joins = named is not None and not conflict and not (existing is not None and request is None)
    if facts.unreadable and existing is not None:
        joins, conflict = False, facts.unreadable
    book.log.emit(
        ev.RequestInitialized,
        request_id=facts.request_id,
        claim_id=named[1] if joins and named is not None else None,
        owner_scope=named[0] if joins and named is not None else None,
        prompt_tokens=facts.prompt_tokens,
    )
    intake = Intake(
        owner_scope=named[0] if named is not None else None,
        releases=_release(book, facts),
        renewals=carry_out_renewals(book, facts.params.get(RENEW_PARAM), facts.request_id),
    )
    if raw is None:
        return intake
    if request is None or named is None:
        intake.reply = _reply(named, "rejected", "claim_invalid", why, computed)
        if named is not None and existing is None:
            _reject_raw(book, raw, named, computed, facts.request_id, why)
        else:
            _remark(book, "resident_claim_invalid", facts.request_id)
        return intake
    existing = book.find(*named)  # None when it has just been released.
    if existing is not None:
        if conflict:
            intake.reply = _reply(named, "rejected", "claim_id_in_use", conflict, {})
            _remark(book, "resident_claim_conflict", facts.request_id)
            return intake
        intake.track = existing
        intake.reply = describe(existing) | {"decision": "joined"}
        return intake
    _decide_new(book, facts, request, computed, object_blocks, intake)
    return intake


def _turn_away(book: ClaimBook, facts: RequestFacts, reason: str, detail: str) -> Intake:
    """Serve a request unclaimed and answer all that it says about claims with no, whether they exist or not."""
    book.log.emit(
        ev.RequestInitialized,
        request_id=facts.request_id,
        claim_id=None,
        owner_scope=None,
        prompt_tokens=facts.prompt_tokens,
    )
    _remark(book, f"resident_claim_{reason}", facts.request_id)
    asked = {name for name in OWNER_PARAMS if facts.params.get(name) is not None}
    return Intake(
        reply=_reply(None, "rejected", reason, detail, {}) if CLAIM_PARAM in asked else None,
        releases=[{"released": False, "reason": reason}] if RELEASE_PARAM in asked else [],
        renewals=[{"renewed": False, "reason": reason}] if RENEW_PARAM in asked else [],
    )


def describe(track: ClaimTrack) -> dict[str, Any]:
    """Say what a client may know about its own claim."""
    claim = track.claim
    return {
        "claim_id": claim.claim_id,
        "owner_scope": claim.owner_scope,
        "object_id": claim.object_id,
        "token_map_id": claim.token_map_id,
        "cache_identity": claim.cache_identity,
        "predicate": str(claim.predicate),
        "mode": track.record.mode.value,
        "state": track.record.state.value,
        "footprint_blocks": claim.footprint_blocks,
        "generation": track.record.generation,
    }


def _decide_new(
    book: ClaimBook,
    facts: RequestFacts,
    request: ClaimRequest,
    computed: dict[str, str],
    object_blocks: int,
    intake: Intake,
) -> None:
    named = (request.owner_scope, request.claim_id)
    try:
        claim = bind_claim(request, footprint_blocks=_footprint_blocks(request, object_blocks), **computed)
    except ResidentKVError as e:
        book.reject_unbound(request, computed, facts.request_id, str(e))
        intake.reply = _reply(named, "rejected", "identity_differs", str(e), computed)
        return
    decision, track = book.decide(
        claim, facts.hashes[:object_blocks], facts.keys[:object_blocks], facts.request_id, _unclaimable(facts)
    )
    intake.track = track
    if track is None:
        intake.reply = _reply(named, "rejected", decision.reason, decision.detail, computed)
        return
    intake.reply = describe(track) | {
        "decision": decision.verdict.value,
        "reason": decision.reason,
        "detail": decision.detail,
    }
    if decision.verdict is Answer.CLIPPED:
        intake.reply["clipped_from"] = claim.mode.value


def _unclaimable(facts: RequestFacts) -> tuple[str, str] | None:
    if facts.token_ids is None:
        return "prompt_not_tokens", "the object of a claim is named by token ids, and this prompt has other input"
    if not facts.keys:
        return "object_empty", f"the prompt fills no block of {facts.block_tokens} tokens"
    if facts.unreadable:
        return "request_reads_no_cache", facts.unreadable
    return None


def _object_blocks(request: ClaimRequest | None, facts: RequestFacts) -> int:
    """Return how many leading blocks the claim is about: as many as its footprint says, else all full ones."""
    full = len(facts.keys)
    if request is not None and request.footprint_blocks is not None:
        return min(request.footprint_blocks, full)
    return full


def _footprint_blocks(request: ClaimRequest, object_blocks: int) -> int:
    """Return what the claim needs when resident; in the primary tier that is all up to what its predicate needs."""
    if request.footprint_blocks is None and Mode.parse(request.mode) in HOLDS_PRIMARY:
        start, count = parse_predicate(request.predicate).needed(object_blocks)
        return max(min(start + count, object_blocks), 1)
    return max(object_blocks, 1)


def _object_id(cache_identity: str, token_map: str) -> str:
    return "kv:" + hashlib.sha256(f"{cache_identity}\n{token_map}".encode()).hexdigest()[:32]


def _conflict(track: ClaimTrack, request: ClaimRequest, facts: RequestFacts) -> str:
    """Say why a request may not act for an open claim of the same name, or return an empty string."""
    claim = track.claim
    tokens = (facts.token_ids or ())[: track.object_blocks * facts.block_tokens]
    if facts.cache_identity != claim.cache_identity:
        return "the claim is open for another cache identity"
    if tuple(facts.hashes[: track.object_blocks]) != track.hashes or token_map_digest(tokens) != claim.token_map_id:
        return "the claim is open for other tokens; release it, or use another claim_id"
    for name in ("object_id", "token_map_id", "cache_identity", "footprint_blocks"):
        stated = getattr(request, name)
        if stated is not None and stated != getattr(claim, name):
            return f"{name} differs from that of the open claim"
    for name, value in (
        ("predicate", parse_predicate(request.predicate) == claim.predicate),
        ("mode", request.mode == claim.mode.value),
        ("on_restore_failure", request.on_restore_failure == claim.on_restore_failure.value),
        ("ttl_s", request.ttl_s == claim.ttl_s),
        ("revision", request.revision == claim.revision),
        ("priority", request.priority == claim.priority),
    ):
        if not value:
            return f"{name} differs from that of the open claim; a promise is not changed by reusing it"
    return ""


def _named(raw: object) -> tuple[str, str] | None:
    """Return (owner_scope, claim_id) of a raw claim if it has names at all, so that its rejection can be told."""
    if not isinstance(raw, dict):
        return None
    owner_scope, claim_id = raw.get("owner_scope"), raw.get("claim_id")
    if not isinstance(owner_scope, str) or not isinstance(claim_id, str):
        return None
    names = (owner_scope, claim_id)
    return names if all(0 < len(n) <= MAX_NAME_CHARS and n.isprintable() for n in names) else None


def _readable(text: str) -> str:
    """Cut what quotes a client to what a log and an answer can carry, whatever the client sent."""
    return text[:MAX_DETAIL_CHARS].encode("utf-8", "backslashreplace").decode("utf-8")


def _reject_raw(
    book: ClaimBook, raw: object, named: tuple[str, str], computed: dict[str, str], request_id: str, why: str
) -> None:
    fields = raw if isinstance(raw, dict) else {}

    def word(name: str) -> str:
        value = fields.get(name)
        return value[:MAX_NAME_CHARS] if isinstance(value, str) and value and value.isprintable() else "unreadable"

    book.log.emit(
        ev.ClaimRejected,
        claim_id=named[1],
        owner_scope=named[0],
        **computed,
        predicate=word("predicate"),
        request_id=request_id,
        generation=0,
        mode=word("mode"),
        reason="claim_invalid",
        detail=why,
    )


def _reply(
    named: tuple[str, str] | None, decision: str, reason: str, detail: str, computed: dict[str, str]
) -> dict[str, Any]:
    out: dict[str, Any] = {"decision": decision, "reason": reason, "detail": detail, **computed}
    if named is not None:
        out |= {"owner_scope": named[0], "claim_id": named[1]}
    return out


def _remark(book: ClaimBook, name: str, request_id: str) -> None:
    book.log.emit(ev.RuntimeEvent, name=name, request_id=request_id, job_id=None)


def _asked_releases(facts: RequestFacts) -> list[tuple[str, str]]:
    """Return what `_release` is going to let go before the claim of the same request is decided."""
    raw = facts.params.get(RELEASE_PARAM)
    try:
        return read_release(raw) if raw is not None else []
    except ValueError:
        return []


def _release(book: ClaimBook, facts: RequestFacts) -> list[dict[str, Any]]:
    """Carry out the releases that the request asks for; a claim that the owner does not have is not found."""
    raw = facts.params.get(RELEASE_PARAM)
    if raw is None:
        return []
    try:
        pairs = read_release(raw)
    except ValueError as e:
        return [{"released": False, "reason": str(e)}]
    out: list[dict[str, Any]] = []
    for owner_scope, claim_id in pairs:
        track = book.find(owner_scope, claim_id)
        released = track is not None and track.record.state in OPEN
        if track is not None and released:
            book.release(track, owner_scope, "asked_by_owner", facts.request_id)
        out.append(
            {
                "owner_scope": owner_scope,
                "claim_id": claim_id,
                "released": released,
                "reason": "" if released else "not_found",
            }
        )
    return out
