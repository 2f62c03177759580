"""Every row of a serving runtime that the recorded traces make positive: no small lie of it stays positive.

The anchors lie in the packages of the runtimes, so this needs their environments.
"""

from __future__ import annotations

import itertools
from pathlib import Path

from residentkv.audit import Verdict, audit_file
from residentkv.cli.suite import positive_rows
from residentkv.report.suites import render_tally
from residentkv.suite import mutate_row as mutate_row_module
from residentkv.suite.mutate_row import mutate_row, tally_row
from residentkv.suite.tally import Tally

TRACES = sorted((Path(__file__).parents[1] / "traces").glob("*/*.jsonl"))
STRIDE = 7
"""Every seventh mutant is judged here; `residentkv suite --mutants --trace FILE...` judges all, which takes minutes."""


def test_no_mutant_of_a_row_that_recorded_traces_make_positive_stays_positive(monkeypatch, capsys):
    """Statements, anchors, evidence and heads of the shipped descriptors, on their real packages."""
    rows = list(positive_rows(path for path in TRACES if audit_file(path).verdict is Verdict.CONFORMING))
    names = {row.name.split()[0] for row in rows}
    assert names == {"reference", "vllm", "sglang", "dynamo", "kvcr"}
    assert {row.selection.mode.value for row in rows if row.name.startswith("vllm")} == {
        "soft_priority",
        "expiring",
        "demotable",
        "offloadable",
        "hard_protected",
    }
    monkeypatch.setattr(
        mutate_row_module, "mutate_row", lambda row, plain: itertools.islice(mutate_row(row, plain), 0, None, STRIDE)
    )
    tally = Tally()
    for row in rows:
        tally_row(row, tally)
    with capsys.disabled():
        print()
        for line in render_tally(tally, f"{len(rows)} rows"):
            print(f"  {line}")
    assert tally.survivors == []
    assert tally.total().made > 2_000
