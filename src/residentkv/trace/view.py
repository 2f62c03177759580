"""The public view of an event log: what one owner may see of it, with nothing of the others.

Events of the owner's claims and of its requests stay as they are; in lists of claims only its own are left. All other
events go, so the numbers have gaps and no view can be audited: it is for reading, the log is for judging.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from residentkv.trace import events as ev

_ABOUT_NOBODY = (ev.TraceOpened, ev.TraceClosed)


def owner_view(events: Iterable[ev.AnyEvent], owner_scope: str) -> Iterator[ev.AnyEvent]:
    """Yield what an owner may see, in order.

    A request is the owner's from the moment when it is joined to one of its claims; the requests of others, and those
    of nobody, are not shown, although they may have been refused because of its claims.
    """
    claims: set[str] = set()
    requests: set[tuple[str, int, str]] = set()
    for event in events:
        if isinstance(event, _ABOUT_NOBODY):
            yield event
            continue
        owner = getattr(event, "owner_scope", None)
        request_id = getattr(event, "request_id", None)
        request = (event.source, event.epoch, request_id) if isinstance(request_id, str) else None
        if owner is not None:
            if owner != owner_scope:
                continue
            if isinstance(event, ev.ClaimEvent):
                claims.add(event.claim_id)
            if request is not None and isinstance(event, ev.RequestInitialized):
                requests.add(request)
        elif request is None or request not in requests:
            continue
        yield _only_own(event, claims)


def _only_own(event: ev.AnyEvent, claims: set[str]) -> ev.AnyEvent:
    """Return the event with the owner's claims in place of all claims."""
    changes: dict[str, object] = {}
    blocking = getattr(event, "blocking_claim_ids", None)
    if blocking is not None:
        changes["blocking_claim_ids"] = tuple(c for c in blocking if c in claims)
    actions = getattr(event, "actions", None)
    if actions is not None:
        changes["actions"] = tuple(a for a in actions if a.partition(":")[2] in claims)
    outcome = getattr(event, "outcome_claim_id", None)
    if outcome is not None and outcome not in claims:
        changes["outcome_claim_id"] = None
    return msgspec.structs.replace(event, **changes) if changes else event
