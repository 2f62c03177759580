"""The public view of an event log: what one owner may see of it, with nothing of the others.

Events of the owner's claims and of its requests stay as they are; in lists of claims only its own are left. All other
events go, so the numbers have gaps and no view can be audited: it is for reading, the log is for judging.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from residentkv.claims.modes import RESERVES, Mode
from residentkv.trace import events as ev

_ABOUT_NOBODY = (ev.TraceOpened, ev.TraceClosed)
_ENDS = (ev.ClaimReleased, ev.ClaimExpired, ev.ClaimDemoted, ev.ClaimHarmed)


def owner_view(events: Iterable[ev.AnyEvent], owner_scope: str) -> Iterator[ev.AnyEvent]:
    """Yield what an owner may see, in order.

    A request is the owner's from the moment when it is joined to one of its claims; the requests of others, and those
    of nobody, are not shown, although they may have been refused because of its claims.
    """
    own = _Own()
    requests: dict[tuple[str, int, str], str | None] = {}
    for event in events:
        if isinstance(event, _ABOUT_NOBODY):
            yield event
            continue
        owner = getattr(event, "owner_scope", None)
        request_id = getattr(event, "request_id", None)
        request = (event.source, event.epoch, request_id) if isinstance(request_id, str) else None
        if request is not None and isinstance(event, ev.RequestInitialized):
            requests.pop(request, None)  # The name of a request that is over may be used again, by anybody.
        if owner is not None:
            if owner != owner_scope:
                continue
            if isinstance(event, ev.ClaimEvent):
                own.take(event)
            if request is not None and isinstance(event, ev.RequestInitialized):
                requests[request] = event.claim_id
        elif request is None or request not in requests:
            continue
        yield _only_own(event, own, requests.get(request) if request is not None else None)


class _Own:
    """What the owner's claims do: a list names claims without their owners, and others may use the same names."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self._holding: dict[str, Mode] = {}
        self._ended_ns: dict[str, int] = {}

    def take(self, event: ev.ClaimEvent) -> None:
        """Take in an event of one of the claims."""
        name = event.claim_id
        self.names.add(name)
        if isinstance(event, ev.ClaimAccepted):
            if event.mode in RESERVES:
                self._holding[name] = Mode(event.mode)
        elif isinstance(event, _ENDS):
            self._holding.pop(name, None)
            self._ended_ns[name] = event.mono_ns
        elif isinstance(event, ev.ClaimOffloaded) and self._holding.get(name) is Mode.OFFLOADABLE:
            del self._holding[name]

    def holds(self, name: str) -> bool:
        """Tell whether the claim of this name holds blocks of the primary tier."""
        return name in self._holding

    def gave_up(self, name: str, at_ns: int) -> bool:
        """Tell whether the claim of this name ended at this instant."""
        return self._ended_ns.get(name) == at_ns


def _only_own(event: ev.AnyEvent, own: _Own, request_claim: str | None) -> ev.AnyEvent:
    """Return the event with the owner's claims in place of all claims.

    Of claims in the way, that of the request itself is left out, too: the request does not wait for itself, so its name
    there would be that of another owner's claim.
    """
    changes: dict[str, object] = {}
    if isinstance(event, ev.RequestRefused | ev.RequestDeferred):
        outcome = getattr(event, "outcome_claim_id", None)
        shown = (c for c in event.blocking_claim_ids if c == outcome or (own.holds(c) and c != request_claim))
        changes["blocking_claim_ids"] = tuple(shown)
    elif (blocking := getattr(event, "blocking_claim_ids", None)) is not None:
        changes["blocking_claim_ids"] = tuple(c for c in blocking if c in own.names)
    if isinstance(event, ev.RequestAdmitted):
        shown = (a for a in event.actions if own.gave_up(a.partition(":")[2], event.mono_ns))
        changes["actions"] = tuple(shown)
    return msgspec.structs.replace(event, **changes) if changes else event
