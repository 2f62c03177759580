"""Eviction preference is shown by an experiment: enough trials, with the swapped assignment as control."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from residentkv.audit.api import audit_file
from residentkv.audit.evidence import MIN_TRIALS, EvidenceItem, evidence_of
from residentkv.claims.modes import Mode
from residentkv.runtimes.reference.config import Mechanism
from residentkv.runtimes.reference.workloads import OWNER, Stage, owned_claim, prompt_at, soft_priority


def experiment(tmp_path: Path, play: Any, off: frozenset[Mechanism] = frozenset()) -> EvidenceItem | None:
    trace = tmp_path / "trace.jsonl"
    play(Stage(trace, run_id="t", off=off))
    items = [i for i in evidence_of(audit_file(trace)) if i.obligation == "eviction_preference"]
    assert len(items) <= 1 and all(i.kind == "experiment" for i in items)
    return items[0] if items else None


def rounds(older_priorities: list[int]) -> Any:
    """Rounds of pressure that cost one of two claims; the older one has the given priority, the newer one 5."""

    def play(stage: Stage) -> None:
        engine = stage.engine(30)
        for n, priority in enumerate(older_priorities):
            first = 1000 * (n + 1)
            stage.serve(prompt_at(first + 100, 10))
            stage.serve(prompt_at(first, 6), claim=owned_claim(f"older-{n}", Mode.SOFT_PRIORITY, 6, priority=priority))
            stage.serve(prompt_at(first + 50, 6), claim=owned_claim(f"newer-{n}", Mode.SOFT_PRIORITY, 6, priority=5))
            stage.serve(prompt_at(first + 200, 20))
            for record in engine.claims(OWNER):
                engine.release(OWNER, record.claim.claim_id)
        engine.shutdown()

    return play


def test_both_assignments_support_the_preference(tmp_path: Path) -> None:
    """Ten of ten, half of them against recency."""
    item = experiment(tmp_path, soft_priority)
    assert item is not None and item.polarity == "supports" and item.mode == "soft_priority"
    assert item.claims == 10 and "10 of 10" in item.note and "5 of them although" in item.note


def test_least_recently_used_contradicts_the_preference(tmp_path: Path) -> None:
    """An engine that only looks at recency loses the more important claim in the swapped half."""
    item = experiment(tmp_path, soft_priority, frozenset({Mechanism.EVICTION_PREFERENCE}))
    assert item is not None and item.polarity == "contradicts"
    assert item.claims == 5 and "5 of 10" in item.note


@pytest.mark.parametrize(
    "priorities",
    [[1] * 10, [9] * 10, [1] * MIN_TRIALS + [9] * (MIN_TRIALS - 1), [5] * 10, []],
    ids=["older-always-less", "newer-always-less", "one-trial-short", "equal", "none"],
)
def test_without_the_swapped_assignment_nothing_is_shown(tmp_path: Path, priorities: list[int]) -> None:
    """One assignment alone could be recency, and too few trials could be luck: neither supports nor contradicts."""
    assert experiment(tmp_path, rounds(priorities)) is None


def test_enough_trials_of_either_assignment_are_enough(tmp_path: Path) -> None:
    """The smallest experiment that says something."""
    item = experiment(tmp_path, rounds([1] * MIN_TRIALS + [9] * MIN_TRIALS))
    assert item is not None and item.polarity == "supports" and item.claims == 2 * MIN_TRIALS
