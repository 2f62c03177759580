"""Every small lie about every positive input that comes with the package is refused, weaker, or of a listed kind.

It needs no runtime, but longer than the fast tests may take; tests/suite/test_tally.py judges a sample, and recorded
traces as well.
"""

from __future__ import annotations

import json
from pathlib import Path

from residentkv.cli.main import main
from residentkv.suite.equivalent import EQUIVALENCES
from residentkv.suite.mutate_row import ROW_EQUIVALENCES


def test_no_mutant_survives(tmp_path: Path) -> None:
    """None left out: the twins of all cases, the reference runtime's workloads, and the rows they make positive."""
    out = tmp_path / "suite.json"
    assert main(["suite", "--mutants", "--format", "json", "-o", str(out)]) == 0
    mutants = json.loads(out.read_text())["mutants"]
    assert mutants["survivors"] == []
    assert sum(score["made"] for score in mutants["operators"].values()) > 40_000
    assert set(mutants["equivalent"]) <= {*ROW_EQUIVALENCES, *(e.name for e in EQUIVALENCES)}
    assert set(ROW_EQUIVALENCES) <= set(mutants["equivalent"]), "a kind that spares nothing is not needed"
