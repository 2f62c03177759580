"""Statements about an obligation, every kind of them, and spec section 5 for one obligation, written a second time."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from functools import cache

from residentkv.claims.modes import Mode
from residentkv.lowering.depth import Depth
from residentkv.lowering.format import EvidenceKind, Polarity
from residentkv.lowering.obligations import BEHAVIOURAL, Obligation, allowed_depths
from residentkv.lowering.relation import Exhibit, Standing, Status

VERIFIED = Standing("a", True, False, "verified", "unchanged")
UNREADABLE = Standing("b", False, False, "unreadable", "no copy was found")
SUPPORTS, CONTRADICTS = Polarity.SUPPORTS, Polarity.CONTRADICTS
TRACE, SOURCE = EvidenceKind.TRACE, EvidenceKind.SOURCE


class One(Exhibit):
    """A statement that is equal to itself only; there is one object for each, and comparing is most of the work."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__


@cache
def statement(
    obligation: Obligation,
    polarity: Polarity = SUPPORTS,
    depth: Depth = Depth.NATIVE,
    standing: Standing = VERIFIED,
    kind: EvidenceKind = TRACE,
) -> Exhibit:
    """Return the one statement of this kind."""
    source = "native" if depth is Depth.NATIVE else "adapter"
    return One(obligation, polarity, kind, depth, standing, source, "note", "d.yaml:1:1")


def every_statement(obligation: Obligation) -> list[Exhibit]:
    """Return all 30: polarity, depth, verified or not, and for a support dynamic or static."""
    return [
        statement(obligation, polarity, depth, standing, kind)
        for polarity, depth, standing in itertools.product((SUPPORTS, CONTRADICTS), Depth, (VERIFIED, UNREADABLE))
        for kind in ((TRACE, SOURCE) if polarity is SUPPORTS else (SOURCE,))
    ]


def counts(e: Exhibit, mode: Mode, depth: Depth) -> bool:
    """supports(e, o), anchored(e) and depth_allowed(depth(e), o, m), and within what the row is judged at."""
    return (
        e.polarity is SUPPORTS
        and e.standing.is_verified
        and e.depth in allowed_depths(e.obligation, mode)
        and e.depth.within(depth)
        and (e.obligation not in BEHAVIOURAL or e.kind is TRACE)
    )


def expected_status(evidence: Iterable[Exhibit], mode: Mode, depth: Depth) -> Status:
    """Spec section 5 for one obligation: what is out of reach of the row is as if it were not there."""
    seen = [e for e in evidence if e.depth.within(depth)]
    against = [e for e in seen if e.polarity is CONTRADICTS]
    if any(e.standing.is_verified for e in against):
        return Status.CONTRADICTED
    if against:
        return Status.UNKNOWN
    if any(counts(e, mode, depth) for e in seen):
        return Status.SATISFIED
    return Status.UNKNOWN if any(not e.standing.is_verified for e in seen) else Status.MISSING
