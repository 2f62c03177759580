"""No small lie stays positive: mutants of every conforming trace, counted and printed.

tests/live/test_mutants.py judges those of every positive row too, and leaves none out.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from residentkv.audit import Verdict, audit_events, audit_file
from residentkv.cli.suite import play_reference
from residentkv.report.suites import REASONS, render_tally
from residentkv.suite import tally as tally_module
from residentkv.suite.case import CASES, load_cases
from residentkv.suite.context import Context
from residentkv.suite.equivalent import EQUIVALENCES, equivalence_of
from residentkv.suite.mutate import mutate_trace
from residentkv.suite.mutate_row import ROW_EQUIVALENCES, tally_row
from residentkv.suite.positives import distinct_traces, twin_rows, twin_traces
from residentkv.suite.tally import NotPositive, Tally, support_of, tally_trace
from tests.attacks.test_forged_support import right_rounds, wrong_round
from tests.audit import notation, stories

RECORDED = sorted((Path(__file__).parents[1] / "traces").glob("*/*.jsonl"))
"""Runs of real runtimes and of the reference runtime; tests/traces/MANIFEST.json has their origin."""

LONG = 30
STRIDE = 17
"""Of a trace with more events than `LONG`, each 17th mutant is judged here; `residentkv suite --mutants` all."""


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """The traces of the reference runtime, one a workload."""
    return play_reference(tmp_path_factory.mktemp("suite") / "reference")


@pytest.fixture(scope="module")
def traces(played):
    """Every conforming trace at hand, by name."""
    conforming = [path for path in RECORDED if audit_file(path).verdict is Verdict.CONFORMING]
    assert {path.parent.name for path in conforming} == {"reference", "vllm", "sglang", "dynamo", "kvcr"}
    return dict([*twin_traces(load_cases()), *distinct_traces([*played, *conforming])])


def _told(capsys, tally, what):
    with capsys.disabled():
        print()
        for line in render_tally(tally, what):
            print(f"  {line}")


def test_no_mutant_of_a_conforming_trace_stays_positive(traces, monkeypatch, capsys):
    """Deletions, swaps, duplicates, edits of numbers, names and outcomes; except for the kinds that are listed."""
    tally = Tally()
    for name, trace in traces.items():
        if len(trace) > LONG:
            monkeypatch.setattr(
                tally_module, "mutate_trace", lambda t: itertools.islice(mutate_trace(t), 0, None, STRIDE)
            )
        tally_trace(name, trace, tally)
        monkeypatch.setattr(tally_module, "mutate_trace", mutate_trace)
    _told(capsys, tally, f"{len(traces)} traces")
    assert tally.survivors == []
    total = tally.total()
    assert total.made == total.killed + total.equivalent
    assert total.made > 8_000
    assert set(tally.equivalent) == {e.name for e in EQUIVALENCES}, "a kind that spares nothing is not needed"


def test_the_list_of_equivalent_mutants_is_short_and_each_has_its_reason():
    """A long list would mean that a trace carries less than it should."""
    names = [e.name for e in EQUIVALENCES]
    assert len(names) == len(set(names)) <= 21
    assert all(len(reason) > 30 for reason in REASONS.values())
    assert set(REASONS) == {*names, *ROW_EQUIVALENCES}


def test_a_kind_of_equivalence_does_not_hold_for_most_mutants_that_the_audit_kills(traces):
    """A kind that is too wide would hide the next hole."""
    held = killed = 0
    for trace in traces.values():
        if len(trace) > 200:
            continue
        base = support_of(audit_events([trace]))
        context = Context(trace)
        for mutant in itertools.islice(mutate_trace(trace), 0, None, 30):
            report = audit_events([mutant.events])
            if report.verdict is Verdict.CONFORMING and base <= support_of(report):
                continue
            killed += 1
            held += equivalence_of(mutant, context) is not None
    assert killed > 500
    assert held / killed < 0.02


def test_a_hole_would_be_seen(traces, monkeypatch):
    """When the audit says yes to everything, mutants survive, and each is told in a sentence."""
    name = "source-as-failure-evidence/success.jsonl"
    trace = traces[name]
    honest = audit_events([trace])
    monkeypatch.setattr(tally_module, "audit_events", lambda chunks: honest)
    tally = Tally()
    tally_trace(name, trace, tally)
    assert tally.total().killed == 0
    assert tally.total().survived == len(tally.survivors) > 100
    assert f"{name}: delete: seq 2 resident_claim_accepted" in tally.survivors


def changed(story: str, field: str) -> Tally:
    """Judge the mutants of one field alone."""
    events = tuple(notation.trace(story))
    tally = Tally()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tally_module, "mutate_trace", lambda t: (m for m in mutate_trace(t) if m.field == field))
        tally_trace("story", events, tally)
    return tally


def priorities(rounds: str) -> Tally:
    return changed(f"    open\n{rounds}    close\n", "priority")


def test_a_priority_that_an_experiment_rests_on_cannot_be_told_otherwise():
    """With one word changed a trial is lost or turned round, so that the experiment shows less."""
    score = priorities(right_rounds()).total()
    assert score.survived == 0 and score.refused == 0
    assert score.weaker == 40 and score.equivalent == 20, "above the higher and below the lower one nothing changes"


def test_a_word_that_takes_the_only_contradiction_away_is_told_as_a_hole():
    """A priority stands in one event; that it turns a refused experiment into a good one is not called harmless."""
    survivors = priorities(right_rounds() + wrong_round(0, "released")).survivors
    assert "story: outcome priority: seq 137 resident_claim_accepted priority 9 -> -1000003" in survivors
    assert len(priorities(wrong_round(0, "released")).survivors) == 4, "either claim, alike or the other way round"


def test_what_a_claim_was_clipped_from_is_named_exactly_when_it_was_clipped():
    """What it was asked as stands nowhere else, so that one name is as good as another."""
    score = changed(stories.SUCCESS, "clipped_from").total()
    assert (score.made, score.refused) == (1, 1)
    clipped = "mode=offloadable decision=clipped clipped_from=hard_protected"
    score = changed(stories.SUCCESS.replace("mode=offloadable", clipped), "clipped_from").total()
    assert (score.made, score.refused, score.equivalent) == (2, 1, 1)


def test_mutants_of_what_is_not_positive_say_nothing(traces):
    """A refused original would make every mutant look killed."""
    refused = dict(distinct_traces([CASES / "restore-after-reuse" / "trace.jsonl"]))
    (trace,) = refused.values()
    with pytest.raises(NotPositive, match="violating"):
        tally_trace("x", trace, Tally())
    row = next(r for r in twin_rows(load_cases()) if r.items)
    with pytest.raises(NotPositive):
        tally_row(type(row)(**{**{f: getattr(row, f) for f in row.__struct_fields__}, "items": ()}), Tally())


def test_a_tally_counts_by_operator_and_by_reason():
    """And keeps every survivor."""
    tally = Tally()
    tally.add("swap", "refused")
    tally.add("swap", "equivalent", reason="independent")
    tally.add("delete", "survived", sentence="s")
    assert tally.score("swap").made == 2
    assert tally.score("swap").killed == 1
    assert tally.equivalent == {"independent": 1}
    assert tally.survivors == ["s"]
    assert tally.total().made == 3
