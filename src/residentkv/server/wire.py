"""What travels over the claims socket: one JSON object a line each way, decoded strictly and bounded.

The socket is open to its own user only (mode 0600), so whoever can connect may name any owner. What comes from HTTP
carries a token's digest instead, and the owner is whom the token belongs to.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from residentkv.claims.model import MAX_NAME_CHARS, MAX_NUMBER
from residentkv.errors import InputError

MAX_ASK_BYTES = 1 << 16
MAX_ANSWER_BYTES = 1 << 23
PAGE_CLAIMS = 500

Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME_CHARS)]
Ticket = Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Revision = Annotated[int, Meta(ge=0, le=MAX_NUMBER)]

ProblemCode = Literal[
    "invalid", "unauthenticated", "not_found", "stale_revision", "unavailable", "internal", "event_log_failed"
]


class Ask(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="op"):
    """What every question carries: whose it is. `token_sha256` comes from HTTP, `owner_scope` from the local user."""

    token_sha256: Digest | None = None
    owner_scope: Name | None = None


class Begin(Ask, frozen=True, kw_only=True, tag="begin"):
    """A request with a claim is about to be sent: whose is it? The ticket travels with the request."""

    ticket: Ticket


class ReadOutcome(Ask, frozen=True, kw_only=True, tag="outcome"):
    """What became of the request with this ticket, as far as is known now."""

    ticket: Ticket


class ListClaims(Ask, frozen=True, kw_only=True, tag="list"):
    """Open claims of the owner (of everybody, for the local user who names none), by (owner_scope, claim_id)."""

    after: tuple[str, str] | None = None
    limit: Annotated[int, Meta(ge=1, le=PAGE_CLAIMS)] = PAGE_CLAIMS


class ShowClaim(Ask, frozen=True, kw_only=True, tag="show"):
    """One open claim."""

    claim_id: Name


class ReleaseClaim(Ask, frozen=True, kw_only=True, tag="release"):
    """Let a claim go."""

    claim_id: Name


class RenewClaim(Ask, frozen=True, kw_only=True, tag="renew"):
    """Give an open claim a new term from now on, in seconds; none: no term any more."""

    claim_id: Name
    revision: Revision
    ttl_s: float | None


class ReadMetrics(Ask, frozen=True, kw_only=True, tag="metrics"):
    """The numbers, in the text format of Prometheus."""


AnyAsk = Begin | ReadOutcome | ListClaims | ShowClaim | ReleaseClaim | RenewClaim | ReadMetrics


class ClaimView(msgspec.Struct, frozen=True, kw_only=True):
    """An open claim as its owner may see it; `expires_in_s` is null when it has no term."""

    claim_id: str
    owner_scope: str
    mode: str
    state: str
    predicate: str
    footprint_blocks: int
    protected_blocks: int
    priority: int
    revision: int
    generation: int
    on_restore_failure: str
    object_id: str
    token_map_id: str
    cache_identity: str
    expires_in_s: float | None


class RefusalView(msgspec.Struct, frozen=True, kw_only=True):
    """Why a request was refused, with the claims that this caller may see; numbers are blocks.

    `outcome` is `restoration_failed` when the claim that the request itself named could not be given back, and
    `refused` when the request did not fit beside claims. `blocking_claims` counts those of others too.
    """

    outcome: Literal["refused", "restoration_failed"]
    reason: str
    claim_ids: tuple[str, ...] = ()
    blocking_claims: int = 0
    need_blocks: int | None = None
    shortfall_blocks: int | None = None
    retry_after_s: float | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True, tag_field="answer"):
    """Base of the answers."""


class Began(Answer, frozen=True, kw_only=True, tag="began"):
    """The ticket is open; `owner_scope` is null when the engine has no owners file and believes the request."""

    owner_scope: str | None


class OutcomeRead(Answer, frozen=True, kw_only=True, tag="outcome"):
    """What is known: the decision about the claim, and the refusal if the request was refused."""

    claim: dict[str, Any] | None = None
    refusal: RefusalView | None = None


class Claims(Answer, frozen=True, kw_only=True, tag="claims"):
    """A page of claims; `next_after` is null on the last one."""

    claims: tuple[ClaimView, ...]
    next_after: tuple[str, str] | None


class Claim(Answer, frozen=True, kw_only=True, tag="claim"):
    """One claim, after what was asked for was done; `done` says what."""

    claim: ClaimView
    done: Literal["shown", "released", "renewed"]


class Metrics(Answer, frozen=True, kw_only=True, tag="metrics"):
    """The numbers as text."""

    text: str


class Problem(Answer, frozen=True, kw_only=True, tag="problem"):
    """Nothing was done; `param` names the wrong field."""

    code: ProblemCode
    message: str
    param: str | None = None


AnyAnswer = Began | OutcomeRead | Claims | Claim | Metrics | Problem

NOT_FOUND = Problem(code="not_found", message="no such open claim of this owner")
"""The same words for a claim that does not exist, has ended, or belongs to another owner."""

UNAUTHENTICATED = Problem(
    code="unauthenticated",
    message="no owner has this token; send it as 'Authorization: Bearer' or 'X-ResidentKV-Token'",
)

_ASKS: msgspec.json.Decoder[AnyAsk] = msgspec.json.Decoder(AnyAsk, strict=True)
_ANSWERS: msgspec.json.Decoder[AnyAnswer] = msgspec.json.Decoder(AnyAnswer, strict=True)
_ENCODER = msgspec.json.Encoder()


def encode_line(message: Ask | Answer) -> bytes:
    """Return the one line of a message, line end included."""
    return _ENCODER.encode(message) + b"\n"


def decode_ask(line: bytes) -> AnyAsk:
    """Decode a question.

    Raises:
        InputError: it is not one of the questions, or a field is wrong; the message names it.
    """
    try:
        return _ASKS.decode(line)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as e:
        raise InputError(f"claims socket: {e}; see docs/server.md for the questions") from None


def decode_answer(line: bytes) -> AnyAnswer:
    """Decode an answer.

    Raises:
        InputError: it is none, such as when the other end speaks another version.
    """
    try:
        return _ANSWERS.decode(line)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as e:
        raise InputError(f"claims socket: the engine's answer is not understood: {e}; use the same release") from None
