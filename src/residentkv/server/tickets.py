"""Tickets: how the API process and the engine process speak of the same request."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import msgspec

from residentkv.server.wire import RefusalView

TICKET_PARAM = "residentkv_ticket"
MAX_TICKETS = 8192


MAX_NAMED = 64
"""Claims of one owner that a refusal names at most, so that thousands of refusals beside thousands of claims fit."""


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """Why the engine refused a request: how many claims were in the way, and the first ones of each owner."""

    reason: str
    restoration: bool
    blocking_claims: int
    named: dict[str, tuple[str, ...]]
    need_blocks: int | None = None
    shortfall_blocks: int | None = None
    retry_after_s: float | None = None

    def seen_by(self, owner_scope: str | None) -> RefusalView:
        """Return what a caller may see: only claims of its own are named, the others are counted."""
        return RefusalView(
            outcome="restoration_failed" if self.restoration else "refused",
            reason=self.reason,
            claim_ids=self.named.get(owner_scope, ()) if owner_scope is not None else (),
            blocking_claims=self.blocking_claims,
            need_blocks=self.need_blocks,
            shortfall_blocks=self.shortfall_blocks,
            retry_after_s=self.retry_after_s,
        )


def name_by_owner(claims: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """Return the first claims of each owner, given (owner_scope, claim_id) of all."""
    named: dict[str, list[str]] = {}
    for owner_scope, claim_id in claims:
        of_owner = named.setdefault(owner_scope, [])
        if len(of_owner) < MAX_NAMED:
            of_owner.append(claim_id)
    return {owner_scope: tuple(claim_ids) for owner_scope, claim_ids in named.items()}


class Note(msgspec.Struct, kw_only=True):
    """What is known about the requests of one ticket: a completion of several prompts is several requests.

    `owner_scope` is whom the token belongs to; `begun` tells whether somebody asked for the ticket beforehand.
    """

    begun: bool = False
    owner_scope: str | None = None
    claim: dict[str, Any] | None = None
    refused: Refused | None = None


class Tickets:
    """The last tickets; the oldest is forgotten when there are too many, and its request is then unauthenticated."""

    def __init__(self, limit: int = MAX_TICKETS) -> None:
        self._notes: OrderedDict[str, Note] = OrderedDict()
        self._limit = limit

    def __len__(self) -> int:
        """Count the tickets that are remembered."""
        return len(self._notes)

    def find(self, ticket: object) -> Note | None:
        """Return what is known about a ticket, whatever a client put in its place."""
        return self._notes.get(ticket) if isinstance(ticket, str) else None

    def begin(self, ticket: str, owner_scope: str | None) -> None:
        """Open a ticket for an owner."""
        self._note(ticket).begun = True
        self._note(ticket).owner_scope = owner_scope

    def tell_claim(self, ticket: str, reply: dict[str, Any]) -> None:
        """Note the decision about a claim; the first request of a ticket speaks for the others."""
        note = self._note(ticket)
        if note.claim is None:
            note.claim = reply

    def tell_refused(self, ticket: str, refused: Refused) -> None:
        """Note a refusal; the first one stands, because the whole HTTP request ends with it."""
        note = self._note(ticket)
        if note.refused is None:
            note.refused = refused

    def _note(self, ticket: str) -> Note:
        note = self._notes.get(ticket)
        if note is None:
            note = self._notes[ticket] = Note()
            if len(self._notes) > self._limit:
                self._notes.popitem(last=False)
        return note
