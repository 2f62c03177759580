"""Renewals that a request asks for: `resident_claim_renew` in its kv_transfer_params, one object or a list of them."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from residentkv.claims.ledger import StaleRevision
from residentkv.claims.model import MAX_NUMBER, MAX_TTL_S
from residentkv.claims.params import RENEW_PARAM
from residentkv.errors import UsageError
from residentkv.runtimes.vllm.claimbook import ClaimBook

MAX_ITEMS = 256
"""Renewals, or releases, that one request may ask for: they are carried out before anything else goes on."""


class Renewal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One renewal on the wire; `ttl_s` counts from now, null for no term."""

    claim_id: Annotated[str, Meta(min_length=1)]
    owner_scope: Annotated[str, Meta(min_length=1)]
    revision: Annotated[int, Meta(ge=0, le=MAX_NUMBER)]
    ttl_s: float | None


def check_ttl(ttl_s: float | None) -> None:
    """Check the bounds of a term.

    Raises:
        UsageError: it is not within them.
    """
    if ttl_s is not None and not 0 < ttl_s <= MAX_TTL_S:
        raise UsageError(f"found {ttl_s}, expected a number above 0, at most {MAX_TTL_S:.0f}")


def carry_out_renewals(book: ClaimBook, raw: object, request_id: str) -> list[dict[str, Any]]:
    """Renew what is asked for, and answer each; a claim that the owner does not have is not found."""
    if raw is None:
        return []
    try:
        renewals = msgspec.convert(raw if isinstance(raw, list) else [raw], list[Renewal], strict=True)
    except (msgspec.ValidationError, OverflowError) as e:
        return [{"renewed": False, "reason": f"{RENEW_PARAM}: {e}"}]
    if len(renewals) > MAX_ITEMS:
        why = f"{RENEW_PARAM}: found {len(renewals)} renewals, expected at most {MAX_ITEMS}"
        return [{"renewed": False, "reason": why}]
    return [_carry_out(book, renewal, request_id) for renewal in renewals]


def _carry_out(book: ClaimBook, renewal: Renewal, request_id: str) -> dict[str, Any]:
    named = {"owner_scope": renewal.owner_scope, "claim_id": renewal.claim_id}
    track = book.find(renewal.owner_scope, renewal.claim_id)
    if track is None:
        return {**named, "renewed": False, "reason": "not_found"}
    if book.log.failure is not None:
        return {**named, "renewed": False, "reason": "event_log_failed"}
    try:
        check_ttl(renewal.ttl_s)
        book.renew(track, revision=renewal.revision, ttl_s=renewal.ttl_s, request_id=request_id)
    except StaleRevision:
        return {**named, "renewed": False, "reason": "stale_revision"}
    except UsageError as e:
        return {**named, "renewed": False, "reason": f"ttl_s: {e}"}
    return {**named, "renewed": True, "reason": "", "revision": renewal.revision}
