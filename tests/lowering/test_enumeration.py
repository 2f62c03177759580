"""The relation enumerated: every combination of what can become of the obligations of a mode, counted and printed.

What is enumerated in full, and what is not:

1. *One obligation.* Every (mode, obligation, row depth) with every set of at most two statements out of 30: polarity,
   five depths, dynamic or static kind, verified or not. Against the formula of spec section 5, written a second time.
2. *One row.* Every assignment of satisfied, missing, unknown and contradicted to the obligations of `best_effort`
   (4^4, all depths), `soft_priority` (4^8, native and patch) and `expiring` (4^9, patch).
3. *Large modes.* `demotable` (4^9), `routed_reuse` (4^10), `offloadable` (4^11) and `hard_protected` (4^12) are not
   enumerated in full. What is: every assignment with at most three obligations that are not satisfied, and every one
   that is constant but for at most two obligations, at all depths; and 5,000 drawn with a fixed seed.

Why that is enough for 3: the result of an obligation depends on the statements about this obligation only (asserted
for every row judged here, against 1). The verdict is then a function of the set of statuses that occur, of the depths
of the supports used, and of `related`, and every one of the 15 sets of statuses is among the assignments (asserted).
That the verdict depends on the set alone, and not on which obligation has which status, is read off the code of
`judge_row` and tested by 2 in full for the smaller modes, by 3 in part; for the larger modes it is not proven by test.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from operator import getitem, is_

import pytest

from residentkv.claims.modes import Mode
from residentkv.lowering import relation
from residentkv.lowering.depth import Depth
from residentkv.lowering.format import EvidenceKind, Polarity
from residentkv.lowering.obligations import BEHAVIOURAL, BUNDLES, Obligation, allowed_depths
from residentkv.lowering.relation import Exhibit, Standing, Status, Verdict, judge_obligation, judge_row

VERIFIED = Standing("a", True, False, "verified", "unchanged")
UNREADABLE = Standing("b", False, False, "unreadable", "no copy was found")
S, M, U, C = Status.SATISFIED, Status.MISSING, Status.UNKNOWN, Status.CONTRADICTED
SUPPORTS, CONTRADICTS = Polarity.SUPPORTS, Polarity.CONTRADICTS
TRACE, SOURCE = EvidenceKind.TRACE, EvidenceKind.SOURCE


class One(Exhibit):
    """A statement that is equal to itself only; there is one object for each, and comparing is most of the work."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__


def statement(
    obligation: Obligation,
    polarity: Polarity = SUPPORTS,
    depth: Depth = Depth.NATIVE,
    standing: Standing = VERIFIED,
    kind: EvidenceKind = TRACE,
) -> Exhibit:
    """Return the one statement of this kind."""
    return _one(obligation, polarity, depth, standing, kind)


@cache
def _one(obligation: Obligation, polarity: Polarity, depth: Depth, standing: Standing, kind: EvidenceKind) -> Exhibit:
    source = "native" if depth is Depth.NATIVE else "adapter"
    return One(obligation, polarity, kind, depth, standing, source, "note", "d.yaml:1:1")


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
        return C
    if against:
        return U
    if any(counts(e, mode, depth) for e in seen):
        return S
    return U if any(not e.standing.is_verified for e in seen) else M


def expected_verdict(cells: Sequence[tuple[Exhibit, ...]], mode: Mode, depth: Depth, related: bool) -> Verdict:
    """Spec section 5 for a row."""
    statuses = [expected_status(cell, mode, depth) for cell in cells]
    if C in statuses:
        return Verdict.REJECTED
    if U in statuses:
        return Verdict.UNKNOWN
    if M in statuses:
        return Verdict.APPROXIMATE if related else Verdict.UNKNOWN
    native = all(any(counts(e, mode, depth) and e.depth is Depth.NATIVE for e in cell) for cell in cells)
    return Verdict.NATIVE_SOUND if native else Verdict.SOUND_WITH_ADAPTER


def test_every_set_of_two_statements_about_one_obligation_is_judged_as_the_formula_says(capsys):
    """Also: order and repetition change nothing; taking support away, or losing sight of anything, never helps."""
    judged: Counter[Status] = Counter()
    taken = 0
    for mode in Mode:
        for obligation in BUNDLES[mode]:
            alphabet = [
                statement(obligation, polarity, depth, standing, kind)
                for polarity, depth, standing in itertools.product(
                    (SUPPORTS, CONTRADICTS), Depth, (VERIFIED, UNREADABLE)
                )
                for kind in ((TRACE, SOURCE) if polarity is SUPPORTS else (SOURCE,))
            ]
            sets = [c for size in range(3) for c in itertools.combinations(alphabet, size)]
            for depth in Depth:
                status = {}
                for some in sets:
                    result = judge_obligation(obligation, mode, depth, some)
                    again = judge_obligation(obligation, mode, depth, (*reversed(some), *some))
                    assert result == again
                    assert result.status is expected_status(some, mode, depth), (mode, obligation, depth, some)
                    assert (result.used is not None) == (result.status is S)
                    status[frozenset(some)] = result.status
                    judged[result.status] += 1
                for some, was in status.items():
                    for e in some:
                        without = status[some - {e}]
                        if e.polarity is SUPPORTS:
                            assert without is not S or was is S
                            assert (without is C) == (was is C)
                            taken += 1
                        if e.standing.is_verified:
                            lost = statement(obligation, e.polarity, e.depth, UNREADABLE, e.kind)
                            assert status[(some - {e}) | {lost}] is not S or was is S
                            taken += 1
    _report(capsys, f"one obligation: {sum(judged.values())} sets judged, {_told(judged)}; {taken} taken away or lost")
    assert set(judged) == set(Status)


CELLS = (S, M, U, C)


def cell(status: Status, obligation: Obligation, mode: Mode, depth: Depth) -> tuple[Exhibit, ...]:
    """Return statements that give an obligation this status; the support is as deep as the row, where it may be."""
    at = depth if depth in allowed_depths(obligation, mode) else Depth.NATIVE
    support = statement(obligation, depth=at)
    if status is S:
        return (support,)
    if status is M:
        return ()
    if status is U:
        return (statement(obligation, depth=at, standing=UNREADABLE),)
    return (support, statement(obligation, CONTRADICTS))


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> Callable[..., relation.ObligationResult]:
    """Remember the result of each (obligation, mode, depth, statements); the relation itself is the real one."""
    known: dict[tuple[object, ...], relation.ObligationResult] = {}

    def remembered(obligation, mode, depth, exhibits):
        key = (obligation, mode, depth, *exhibits)
        if key not in known:
            known[key] = judge_obligation(obligation, mode, depth, exhibits)
        return known[key]

    monkeypatch.setattr(relation, "judge_obligation", remembered)
    monkeypatch.setattr(relation, "_order", cache(relation._order))
    return remembered


RELATED = Standing("like", True, False, "verified", "unchanged")


def check_all(
    mode: Mode, depth: Depth, vectors: Iterable[tuple[int, ...]], alone: Callable[..., relation.ObligationResult]
) -> Counter[Verdict]:
    """Judge the rows given by indices into `CELLS`, against spec section 5, and count verdicts.

    Also assert that the result of each obligation is the one that its own statements alone give.
    """
    table = [[cell(status, o, mode, depth) for status in CELLS] for o in BUNDLES[mode]]
    results = [
        [alone(o, mode, depth, sorted(some, key=relation._order)) for some in cells]
        for o, cells in zip(BUNDLES[mode], table, strict=True)
    ]
    native = all(e.depth is Depth.NATIVE for cells in table for e in cells[0])
    positive = Verdict.NATIVE_SOUND if native else Verdict.SOUND_WITH_ADAPTER
    found: Counter[Verdict] = Counter()
    chain = itertools.chain.from_iterable
    for vector in vectors:
        row = judge_row(mode, depth, chain(map(getitem, table, vector)), related=(RELATED,))
        assert all(map(is_, row.obligations, map(getitem, results, vector)))
        verdict = row.verdict
        if 3 in vector:
            assert verdict is Verdict.REJECTED
        elif 2 in vector:
            assert verdict is Verdict.UNKNOWN
        elif 1 in vector:
            assert verdict is Verdict.APPROXIMATE
        else:
            assert verdict is positive
        found[verdict] += 1
    return found


FULL = [
    *((Mode.BEST_EFFORT, depth) for depth in Depth),
    (Mode.SOFT_PRIORITY, Depth.NATIVE),
    (Mode.SOFT_PRIORITY, Depth.PATCH),
    (Mode.EXPIRING, Depth.PATCH),
]


@pytest.mark.parametrize(("mode", "depth"), FULL)
def test_every_assignment_of_a_mode_is_judged_as_the_formula_says(mode, depth, fast, capsys):
    """Exactly one of all 4^n is positive: the one in which every obligation is satisfied."""
    size = len(BUNDLES[mode])
    found = check_all(mode, depth, itertools.product(range(4), repeat=size), fast)
    _report(capsys, f"{mode} at {depth}: all {4**size} assignments judged, {_told(found)}")
    assert sum(found.values()) == 4**size
    assert found[Verdict.REJECTED] == 4**size - 3**size
    assert found[Verdict.UNKNOWN] == 3**size - 2**size
    assert found[Verdict.APPROXIMATE] == 2**size - 1


def few_open(size: int, rest: int, most: int) -> Iterator[tuple[int, ...]]:
    """Yield every assignment that is `rest` but for at most `most` obligations."""
    others = [n for n in range(4) if n != rest]
    for count in range(most + 1):
        for places in itertools.combinations(range(size), count):
            for values in itertools.product(others, repeat=count):
                vector = [rest] * size
                for place, value in zip(places, values, strict=True):
                    vector[place] = value
                yield tuple(vector)


def large(mode: Mode, depth: Depth) -> set[tuple[int, ...]]:
    """Return the assignments of a large mode that the module docstring names."""
    size = len(BUNDLES[mode])
    chosen = set(few_open(size, 0, 3))
    for rest in range(1, 4):
        chosen.update(few_open(size, rest, 2))
    if depth is Depth.PATCH:
        draw = random.Random(f"{mode}")
        chosen.update(tuple(draw.choices(range(4), k=size)) for _ in range(5_000))
    return chosen


@pytest.mark.parametrize("mode", [Mode.DEMOTABLE, Mode.ROUTED_REUSE, Mode.OFFLOADABLE, Mode.HARD_PROTECTED])
def test_assignments_of_a_large_mode_are_judged_as_the_formula_says(mode, fast, capsys):
    """Every set of statuses that contains satisfied, or that one status fills, occurs; see the module docstring."""
    for depth in Depth:
        chosen = large(mode, depth)
        found = check_all(mode, depth, sorted(chosen), fast)
        size = len(BUNDLES[mode])
        _report(capsys, f"{mode} at {depth}: {len(chosen)} of {4**size} assignments judged, {_told(found)}")
        assert sum(v for k, v in found.items() if k.is_positive) == 1
        kinds = {frozenset(v) for v in chosen}
        assert {k for k in kinds if 0 in k} == {
            frozenset((0, *c)) for n in range(4) for c in itertools.combinations((1, 2, 3), n)
        }
        assert len(kinds) == 15, "every set of statuses that is not empty"


def rich_cells(obligation: Obligation, mode: Mode, depth: Depth) -> list[tuple[Exhibit, ...]]:
    """Cells with spare, useless, lost and contradicting statements, besides the four plain ones."""
    support = cell(S, obligation, mode, depth)[0]
    native = statement(obligation)
    blind = statement(obligation, depth=depth, standing=UNREADABLE)
    static = statement(obligation, kind=SOURCE)
    doubt = statement(obligation, CONTRADICTS, standing=UNREADABLE)
    against = statement(obligation, CONTRADICTS)
    out = [(), (support,), (native, support), (support, blind), (static,), (blind,), (support, doubt)]
    out += [(support, against), (against,)]
    return list(dict.fromkeys(tuple(dict.fromkeys(c)) for c in out))


@pytest.mark.parametrize("mode", list(Mode))
def test_taking_evidence_away_order_and_repetition_never_improve_a_row(mode, fast, capsys):
    """All of best_effort; else every pair of neighbours through every rich cell while the rest is satisfied."""
    bundle = BUNDLES[mode]
    draw = random.Random(f"{mode}")
    rows = away = 0
    for depth in Depth:
        rich = [rich_cells(o, mode, depth) for o in bundle]
        plain = [cell(S, o, mode, depth) for o in bundle]
        if mode is Mode.BEST_EFFORT:
            several: Iterable[list[tuple[Exhibit, ...]]] = map(list, itertools.product(*rich))
        else:
            several = _pairs(plain, rich)
        for cells in several:
            row = judge_row(mode, depth, itertools.chain.from_iterable(cells))
            assert row.verdict is expected_verdict(cells, mode, depth, related=False)
            assert not row.verdict.is_positive or all(r.status is S for r in row.obligations)
            rows += 1
            if rows % 7 == 0:
                evidence = [*itertools.chain.from_iterable(cells)] * 2
                draw.shuffle(evidence)
                assert judge_row(mode, depth, evidence) == row
            for n, some in enumerate(cells):
                for e in some:
                    if e.polarity is not SUPPORTS:
                        continue
                    rest = [c if m != n else tuple(x for x in c if x is not e) for m, c in enumerate(cells)]
                    less = judge_row(mode, depth, itertools.chain.from_iterable(rest)).verdict
                    assert less.rank <= row.verdict.rank
                    assert (less is Verdict.REJECTED) == (row.verdict is Verdict.REJECTED)
                    away += 1
    _report(
        capsys, f"{mode}: {rows} rows judged, {away} times one support taken away, every 7th row shuffled and doubled"
    )


def _pairs(
    plain: list[tuple[Exhibit, ...]], rich: list[list[tuple[Exhibit, ...]]]
) -> Iterator[list[tuple[Exhibit, ...]]]:
    for a, b in itertools.pairwise(range(len(plain))):
        for left, right in itertools.product(rich[a], rich[b]):
            yield [left if n == a else right if n == b else c for n, c in enumerate(plain)]


def _told(found: Counter) -> str:
    return ", ".join(f"{found[key]} {key}" for key in sorted(found))


def _report(capsys: pytest.CaptureFixture[str], line: str) -> None:
    with capsys.disabled():
        print(f"\n  enumerated: {line}", end="")
