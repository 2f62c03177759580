"""The matrix: what it shows is what was judged, no more and no less."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from residentkv.claims.modes import Mode
from residentkv.cli.check import check_rows
from residentkv.cli.main import main
from residentkv.lowering.anchors import AnchorState
from residentkv.lowering.checking import CheckedRow, Selection
from residentkv.lowering.depth import Depth
from residentkv.lowering.matrix import build_matrix, cell_of
from residentkv.lowering.obligations import Obligation
from residentkv.lowering.relation import EvidenceClass, Status, Verdict
from residentkv.report.matrix import COLUMNS, LETTERS, SHORT, matrix_lines
from residentkv.sources.library import load_descriptor, load_library
from residentkv.sources.machine import machine_sources
from tests.lowering.site import POOL, Site


def judged(site: Site, *, recorded: bool = False) -> list[CheckedRow]:
    """The rows of the made-up runtime."""
    sources = machine_sources(site_packages=[site.folder])
    return check_rows([load_descriptor(site.descriptor)], Selection(), sources, (), recorded)


def test_a_cell_has_verdict_class_depth_first_open_obligation_and_the_state_of_its_anchors(site):
    """One of each kind of verdict."""
    cells = {c.mode: c for c in build_matrix(judged(site)).cells()}
    sound, bad, weak = cells[Mode.BEST_EFFORT], cells[Mode.HARD_PROTECTED], cells[Mode.SOFT_PRIORITY]
    assert (sound.verdict, sound.evidence_class) == (Verdict.NATIVE_SOUND, EvidenceClass.NATIVE_CONFORMANCE)
    assert (sound.first_open, sound.obstacle) == (None, None)
    assert (bad.verdict, bad.first_open) == (Verdict.REJECTED, (Obligation.ACCEPTANCE, Status.MISSING))
    assert bad.obstacle is not None
    assert (bad.obstacle.name, bad.obstacle.mark) == ("victim_exclusion", "x")
    assert str(weak.obstacle) == "- predicate"
    assert {c.depth for c in cells.values()} == {Depth.NATIVE}
    assert {c.anchors_state for c in cells.values()} == {AnchorState.VERIFIED}
    assert sum(weak.anchors.values()) == 3


def test_the_worst_state_of_an_anchor_is_told(site):
    """A changed text under one anchor of three."""
    site.pool.write_text(POOL.replace("min(", "mix("))
    for cell in build_matrix(judged(site)).cells():
        assert cell.verdict is Verdict.UNKNOWN
        assert cell.anchors_state is AnchorState.CHANGED
        assert str(cell.obstacle) == "? anchor evict changed"


def test_every_row_is_in_the_grid_once_with_its_letter(site):
    """The grid, read back, says what was judged; a mode that nobody names has a dot."""
    rows = judged(site)
    lines = list(matrix_lines(build_matrix(rows)))
    (line,) = [x for x in lines if x.startswith("lru ")]
    letters = dict(zip(Mode, line.split()[2:], strict=True))
    shown = {row.row.mode: LETTERS[row.verdict.verdict] for row in rows}
    assert letters == {mode: shown.get(mode, ".") for mode in Mode}
    assert "  x victim_exclusion: lru (hard)" in lines
    assert "  N native_conformance: lru (best)" in lines
    assert len(SHORT.keys()) == len(set(SHORT.values())) == len(Mode)


def test_recorded_verdicts_stand_in_brackets_beside_what_was_found(site, tmp_path):
    """History is marked, and never counted."""
    empty = tmp_path / "empty"
    empty.mkdir()
    site.folder = empty
    matrix = build_matrix(judged(site, recorded=True))
    text = "\n".join(matrix_lines(matrix))
    assert "?[N] ?[A]" in text
    assert "? anchors unreadable: all 3 rows" in text
    assert "3 rows: 3 unknown." in text
    assert all(cell.recorded_on for cell in matrix.cells())


def test_the_whole_library_fits_80_columns_and_the_json_has_the_same_rows(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """On a machine without any of the runtimes: honest unknowns, one exit code in both formats."""
    monkeypatch.setenv("RESIDENTKV_CACHE", str(tmp_path))
    code = main(["check", "--all"])
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= COLUMNS
    assert not any(line != line.rstrip() for line in text.splitlines())
    assert main(["check", "--all", "--json"]) == code
    document = json.loads(capsys.readouterr().out)
    expected = {
        (d.runtime, d.version, r.primitive.id, r.mode.value, r.depth.value) for d in load_library() for r in d.rows()
    }
    rows = {(r["runtime"], r["version"], r["primitive"], r["mode"], r["depth"]) for r in document["rows"]}
    assert rows == expected
    assert len(document["rows"]) == len(expected)
    assert f"{len(expected)} rows: " in " ".join(text.split())
    for row in document["rows"]:
        assert (row["decided_by"] is None) == (row["verdict"] in ("native_sound", "sound_with_adapter"))


def test_a_cell_is_made_of_its_row_alone(site):
    """The matrix is an arrangement: it changes no verdict."""
    rows = judged(site)
    assert list(build_matrix(rows).cells()) == [cell_of(row) for row in rows]
