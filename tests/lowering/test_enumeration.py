"""The relation, complete: every combination of what can become of the obligations of every mode, at every depth.

There are too many assignments to judge one by one (4^12 for `hard_protected`, more with the depths of the supports),
and they need not be: the verdict is a function of a summary that adds up over obligations.

1. *One obligation.* Every set of at most two statements, out of all 30 kinds, is judged. What each leaves in the
   summary is compared with spec section 5, and what taking a support away or losing sight of a statement does to it is
   collected. A statement is one of: verified against, unverified against, a support that counts at its depth, an
   unverified support, nothing. What a pair leaves is a function of which of these occur, and every combination of them,
   of any size, is judged as well; so larger sets add nothing.
2. *Adding up.* All 48 summaries: the sum is commutative, associative and idempotent, so that neither order nor
   repetition of obligations counts, and the empty summary is neutral.
3. *The verdict.* `judge_row` hands `conclude` the sum and two flags and nothing else (a spy sees what it is given), and
   every sum that can occur is judged once with the real relation, by an assignment that gives it.
4. *Counting.* Assignments are counted by adding obligation after obligation, a table of summaries with exact numbers;
   the small modes are also judged one by one, and the counts agree.
5. *Laws.* For every sum of the other obligations and every change of one: taking a support away or losing sight of
   anything never makes a verdict better. No positive verdict without all obligations satisfied.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from functools import cache

import pytest

from residentkv.claims.modes import Mode
from residentkv.lowering import relation
from residentkv.lowering.depth import Depth
from residentkv.lowering.obligations import BUNDLES, Obligation, allowed_depths
from residentkv.lowering.relation import (
    EvidenceClass,
    Exhibit,
    Standing,
    Status,
    Summary,
    Verdict,
    conclude,
    judge_obligation,
    judge_row,
    summarise,
)
from tests.lowering.statements import SUPPORTS, UNREADABLE, counts, every_statement, expected_status, statement

C, U, M, S = Status.CONTRADICTED, Status.UNKNOWN, Status.MISSING, Status.SATISFIED
EVERY = [Summary(c, u, m, d) for c, u, m in itertools.product((False, True), repeat=3) for d in (None, *Depth)]
FLAGS = list(itertools.product((False, True), repeat=2))
RELATED = Standing("like", True, False, "verified", "unchanged")


@cache
def pairs_of(mode: Mode, obligation: Obligation, depth: Depth) -> dict[frozenset[Exhibit], Summary]:
    """What every set of at most two statements about an obligation leaves in the summary, by the real relation."""
    alphabet = every_statement(obligation)
    sets = (c for size in range(3) for c in itertools.combinations(alphabet, size))
    return {frozenset(s): summarise(judge_obligation(obligation, mode, depth, s)) for s in sets}


def atoms_of(mode: Mode, obligation: Obligation, depth: Depth) -> dict[Summary, tuple[Exhibit, ...]]:
    """Every different thing that can become of an obligation, with statements that make it so."""
    found: dict[Summary, tuple[Exhibit, ...]] = {}
    for some, summary in pairs_of(mode, obligation, depth).items():
        found.setdefault(summary, tuple(some))
    return found


def cells() -> Iterator[tuple[Mode, Obligation, Depth]]:
    """Every obligation of every mode at every depth."""
    for mode, depth in itertools.product(Mode, Depth):
        for obligation in BUNDLES[mode]:
            yield mode, obligation, depth


def status_of(summary: Summary) -> Status:
    """The status that one obligation's part of a summary stands for."""
    if summary.is_contradicted:
        return C
    if summary.is_unknown:
        return U
    return M if summary.is_missing else S


def test_every_pair_of_statements_leaves_in_the_summary_what_spec_section_5_says(capsys):
    """Exactly one of the four statuses, and the shallowest depth that counts."""
    judged: Counter[Status] = Counter()
    for mode, obligation, depth in cells():
        kinds: dict[frozenset[object], Summary] = {}
        for some, summary in pairs_of(mode, obligation, depth).items():
            expected = expected_status(some, mode, depth)
            assert (
                sum((summary.is_contradicted, summary.is_unknown, summary.is_missing, summary.deepest is not None)) == 1
            )
            assert status_of(summary) is expected
            used = [e.depth for e in some if counts(e, mode, depth)]
            assert summary.deepest is (min(used, key=lambda d: d.rank) if expected is S else None)
            kind = frozenset(part for e in some if (part := part_of(e, mode, depth)) is not None)
            assert kinds.setdefault(kind, summary) == summary, "a statement is more than what its part says"
            judged[expected] += 1
        judged += judge_all_parts(mode, obligation, depth)
    told = ", ".join(f"{judged[s]} {s}" for s in Status)
    _report(capsys, f"one obligation: {sum(judged.values())} sets of statements in {len(list(cells()))} cells, {told}")


def judge_all_parts(mode: Mode, obligation: Obligation, depth: Depth) -> Counter[Status]:
    """Judge every combination of parts, with one statement for each, reversed and repeated."""
    parts = {part: e for e in every_statement(obligation) if (part := part_of(e, mode, depth)) is not None}
    judged: Counter[Status] = Counter()
    for size in range(3, len(parts) + 1):
        for some in itertools.combinations(parts.values(), size):
            result = judge_obligation(obligation, mode, depth, (*some, *reversed(some)))
            assert result.status is expected_status(some, mode, depth)
            used = [e.depth for e in some if counts(e, mode, depth)]
            if result.status is S:
                assert result.used is not None and result.used.depth is min(used, key=lambda d: d.rank)
            judged[result.status] += 1
    return judged


def part_of(e: Exhibit, mode: Mode, depth: Depth) -> object:
    """What one statement contributes; None for nothing. A deeper support than the one used contributes nothing more."""
    if not e.depth.within(depth):
        return None
    if e.polarity is not SUPPORTS:
        return "against" if e.standing.is_verified else "doubt"
    if counts(e, mode, depth):
        return e.depth
    return None if e.standing.is_verified else "unseen"


def test_summaries_add_up_in_any_order_and_repetition_adds_nothing(capsys):
    """All 48 summaries, all triples of them."""
    none = Summary()
    for a in EVERY:
        assert a + a == a
        assert a + none == none + a == a
    for a, b in itertools.product(EVERY, repeat=2):
        assert a + b == b + a
        for c in EVERY:
            assert (a + b) + c == a + (b + c)
    _report(capsys, f"sums: {len(EVERY)} summaries, {len(EVERY) ** 3} triples")


def test_a_positive_verdict_has_every_obligation_satisfied_and_what_it_leans_on_seen():
    """Of all 48 summaries and flags: nothing contradicted, unknown or missing, a support used, the basis seen."""
    for summary, (seen, related) in itertools.product(EVERY, FLAGS):
        verdict, evidence_class = conclude(summary, basis_is_seen=seen, is_related=related)
        clean = not (summary.is_contradicted or summary.is_unknown or summary.is_missing)
        assert verdict.is_positive == (clean and summary.deepest is not None and seen)
        assert (verdict is Verdict.REJECTED) == summary.is_contradicted
        assert (verdict is Verdict.NATIVE_SOUND) == (verdict.is_positive and summary.deepest is Depth.NATIVE)
        assert (evidence_class is EvidenceClass.ADAPTER_OBSERVATIONAL) == (
            verdict.is_positive and summary.deepest is Depth.OBSERVE
        )
        if verdict is Verdict.APPROXIMATE:
            assert summary.is_missing and related and seen and not summary.is_unknown


def assignments(mode: Mode, depth: Depth) -> dict[Summary, tuple[int, tuple[Exhibit, ...]]]:
    """How many assignments of a mode add up to each summary, and the statements of one of them.

    An assignment says for each obligation that it is contradicted, unknown, missing, or satisfied at some depth.
    """
    table: dict[Summary, tuple[int, tuple[Exhibit, ...]]] = {Summary(): (1, ())}
    for obligation in BUNDLES[mode]:
        longer: dict[Summary, tuple[int, tuple[Exhibit, ...]]] = {}
        for (sum_, (number, some)), (atom, more) in itertools.product(
            table.items(), atoms_of(mode, obligation, depth).items()
        ):
            before, shown = longer.get(sum_ + atom, (0, (*some, *more)))
            longer[sum_ + atom] = (before + number, shown)
        table = longer
    return table


@pytest.mark.parametrize("mode", list(Mode))
def test_every_assignment_of_every_mode_at_every_depth_is_counted_and_judged(mode, capsys):
    """The real relation judges one assignment for every sum; the numbers are exact and add up to all there are."""
    total: Counter[Verdict] = Counter()
    for depth in Depth:
        found: Counter[Verdict] = Counter()
        for summary, (number, exhibits) in assignments(mode, depth).items():
            for seen, related in FLAGS:
                basis = () if seen else (UNREADABLE,)
                row = judge_row(mode, depth, exhibits, basis=basis, related=(RELATED,) if related else ())
                expected = conclude(summary, basis_is_seen=seen, is_related=related)
                assert (row.verdict, row.evidence_class) == expected
                assert not row.verdict.is_positive or all(r.status is S for r in row.obligations)
            found[conclude(summary, basis_is_seen=True, is_related=True)[0]] += number
        supports = [sum(d.within(depth) for d in allowed_depths(obligation, mode)) for obligation in BUNDLES[mode]]
        size = len(supports)
        assert sum(found.values()) == product(3 + n for n in supports)
        assert found[Verdict.REJECTED] == product(3 + n for n in supports) - product(2 + n for n in supports)
        assert found[Verdict.UNKNOWN] == product(2 + n for n in supports) - product(1 + n for n in supports)
        positive = found[Verdict.NATIVE_SOUND] + found[Verdict.SOUND_WITH_ADAPTER]
        assert positive == product(supports), "only assignments with every obligation satisfied"
        assert found[Verdict.APPROXIMATE] == product(1 + n for n in supports) - positive
        assert found[Verdict.NATIVE_SOUND] == 1
        total += found
    told = ", ".join(f"{total[v]:,} {v}" for v in Verdict)
    _report(capsys, f"{mode}: {sum(total.values()):,} assignments of {size} obligations at 5 depths, {told}")


def product(numbers) -> int:
    """The product of some numbers."""
    out = 1
    for n in numbers:
        out *= n
    return out


def test_counting_agrees_with_judging_one_by_one(capsys):
    """best_effort at every depth: each assignment through the real relation."""
    for depth in Depth:
        choices = [list(atoms_of(Mode.BEST_EFFORT, o, depth).values()) for o in BUNDLES[Mode.BEST_EFFORT]]
        one_by_one = Counter(
            judge_row(Mode.BEST_EFFORT, depth, itertools.chain(*cells), related=(RELATED,)).verdict
            for cells in itertools.product(*choices)
        )
        counted: Counter[Verdict] = Counter()
        for summary, (number, _) in assignments(Mode.BEST_EFFORT, depth).items():
            counted[conclude(summary, basis_is_seen=True, is_related=True)[0]] += number
        assert one_by_one == counted
    _report(capsys, f"best_effort at patch, one by one: {sum(one_by_one.values())}")


def test_a_row_gets_its_verdict_from_the_sum_and_two_flags_alone(monkeypatch):
    """What judge_row hands over is the sum of its obligations; and what comes back is the verdict, whatever it is."""
    given = []
    answer = (Verdict.APPROXIMATE, EvidenceClass.APPROXIMATION_SUBSTRATE)

    def spy(summary, *, basis_is_seen, is_related):
        given.append((summary, basis_is_seen, is_related))
        return answer

    monkeypatch.setattr(relation, "conclude", spy)
    for mode, depth in itertools.product(Mode, Depth):
        for summary, (_, exhibits) in assignments(mode, depth).items():
            for seen, related in FLAGS:
                basis = () if seen else (UNREADABLE,)
                shown = (*exhibits, *reversed(exhibits))
                row = judge_row(mode, depth, shown, basis=basis, related=(RELATED,) if related else ())
                assert given.pop() == (summary, seen, related)
                assert (row.verdict, row.evidence_class) == answer


def test_taking_evidence_away_or_losing_sight_of_it_never_improves_a_row(capsys):
    """Every change of one obligation that these make, beside every sum of the others, for every flag."""
    changes: set[tuple[Summary, Summary]] = set()
    for mode, obligation, depth in cells():
        known = pairs_of(mode, obligation, depth)
        for some, before in known.items():
            for e in some:
                if e.polarity is SUPPORTS:
                    changes.add((before, known[some - {e}]))
                if e.standing.is_verified:
                    lost = statement(e.obligation, e.polarity, e.depth, UNREADABLE, e.kind)
                    changes.add((before, known[(some - {e}) | {lost}]))
    judged = 0
    for (before, after), rest, (seen, related) in itertools.product(changes, EVERY, FLAGS):
        was, _ = conclude(rest + before, basis_is_seen=seen, is_related=related)
        for seen_after, related_after in {(seen, related), (False, related), (seen, False)}:
            becomes, _ = conclude(rest + after, basis_is_seen=seen and seen_after, is_related=related and related_after)
            assert becomes.rank <= was.rank, (before, after, rest)
            judged += 1
    assert any(a != b for a, b in changes)
    _report(capsys, f"losses: {len(changes)} changes of one obligation, {judged} rows before and after")


def _report(capsys: pytest.CaptureFixture[str], line: str) -> None:
    with capsys.disabled():
        print(f"\n  enumerated: {line}", end="")
