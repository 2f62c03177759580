"""The generated parts of docs/studies.md: the recorded matrix, the published verdicts, and the table of drift."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from residentkv.audit.api import audit_file
from residentkv.audit.confirm import items_of
from residentkv.claims.modes import Mode
from residentkv.cli.check import check_rows
from residentkv.cli.gen import RECORDED_TRACES
from residentkv.lowering.checking import Selection
from residentkv.lowering.depth import Depth
from residentkv.lowering.exhibits import row_anchors
from residentkv.lowering.format import PackageAnchor
from residentkv.lowering.matrix import Matrix
from residentkv.lowering.relation import Verdict
from residentkv.report.published import PUBLISHED, explain
from residentkv.report.studies import as_recorded, refresh_blocks, render_published, render_traces
from residentkv.sources.library import load_library
from residentkv.sources.machine import machine_sources
from residentkv.sources.recorded import OwnSources
from tests.lowering.site import POOL, Site, install

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def matrix() -> Matrix:
    """The library as recorded."""
    return as_recorded(check_rows(load_library(), Selection(), OwnSources(), (), True))


@pytest.fixture(scope="module")
def with_traces() -> Matrix:
    """The descriptor of vLLM with the recorded traces of the plugin."""
    paths = sorted((RECORDED_TRACES / "vllm").glob("*.jsonl"))
    items = tuple(item for path in paths for item in items_of(audit_file(path), path.name))
    return as_recorded(check_rows(load_library("vllm"), Selection(), OwnSources(), items, True))


def test_the_recorded_matrix_does_not_depend_on_this_machine(matrix: Matrix) -> None:
    """Of packages only our own is looked at, although others are installed; the rest is as its digests recorded it."""
    assert OwnSources().package_copies(["click", "pytest"]) == []
    assert machine_sources().package_copies(["click"]), "installed, and not looked at"
    assert [c.version for c in OwnSources().package_copies(["residentkv"])]
    others = [
        c for c in matrix.cells() if c.runtime in ("tensorrt_llm", "lmcache", "mooncake", "llm_d", "dynamo_router")
    ]
    assert {c.verdict for c in others} == {Verdict.APPROXIMATE, Verdict.REJECTED}


def both(matrix: Matrix, with_traces: Matrix) -> Matrix:
    """The parts of the library, that of vLLM with its traces."""
    return Matrix(tuple(with_traces.parts[0] if p.runtime == "vllm" else p for p in matrix.parts))


def test_every_published_verdict_stands_beside_ours_with_a_reason(matrix: Matrix, with_traces: Matrix) -> None:
    """No row of ours is left unexplained, and the spec has the verdicts that we say were published."""
    spec = " ".join((DOCS / "spec.md").read_text().split())
    published = spec.split("Published verdicts:", 1)[1].split("nothing native_sound anywhere", 1)[0]
    text = render_published(matrix, both(matrix, with_traces))
    for one in PUBLISHED:
        cell, why = explain(one, both(matrix, with_traces))
        assert why in text
        assert cell is None or (cell.runtime, cell.mode) == (one.runtime, one.mode)
        assert re.search(rf"`{one.mode}` {one.verdict}", published), one.subject
    assert len(PUBLISHED) == published.count("sound_with_adapter")


def test_recorded_traces_give_the_plugin_its_verdicts_and_no_other_row_one(matrix: Matrix, with_traces: Matrix) -> None:
    """What the traces change are the rows of the plugin, and the table shows each with what it was."""
    lines = render_traces(matrix, both(matrix, with_traces)).splitlines()[2:]
    row = (
        "| vllm 0.32.0 | `offloading_connector` | {} | plugin | approximate "
        "| sound_with_adapter (adapter_policy) | nothing |"
    )
    assert lines == [
        row.format(mode) for mode in ("soft_priority", "expiring", "demotable", "offloadable", "hard_protected")
    ]


def test_each_mode_of_the_plugin_rests_on_its_own_traces() -> None:
    """Without the trace of its own scenario a pressure mode is approximate again, whatever the others show."""
    for mode in ("soft_priority", "expiring", "demotable", "hard_protected"):
        paths = [p for p in sorted((RECORDED_TRACES / "vllm").glob("*.jsonl")) if p.stem != f"{mode}_pressure"]
        items = tuple(item for path in paths for item in items_of(audit_file(path), path.name))
        rows = as_recorded(check_rows(load_library("vllm"), Selection(mode=Mode(mode)), OwnSources(), items, True))
        (cell,) = (c for c in rows.cells() if c.depth is Depth.PLUGIN)
        assert cell.verdict is Verdict.APPROXIMATE, mode


def test_a_verdict_that_changes_is_explained_by_nobody(matrix: Matrix) -> None:
    """Then the page cannot be generated until somebody writes why: here vLLM's row without its traces."""
    with pytest.raises(KeyError):
        render_published(matrix, matrix)


def test_an_unknown_block_is_an_error(matrix: Matrix) -> None:
    """A typo in the page is not passed over."""
    with pytest.raises(KeyError):
        refresh_blocks("<!-- generated: nothing -->\n<!-- end of generated -->", matrix, matrix)


def test_drift_is_a_row_of_a_table_with_the_rows_to_study_again(site: Site, tmp_path: Path, capsys) -> None:
    """One text changed, one moved, one gone: counted, and the rows that lean on the lost ones."""
    changed = POOL.replace("min(self.blocks)", "max(self.blocks)").replace("def accept", "def admit")
    install(tmp_path / "other", version="1.5.0", pool=f"# one line more\n{changed}")
    site.folder = tmp_path / "other"
    capsys.readouterr()
    assert site.run("anchors", "diff", "--against", "somertime==1.5.0", "--markdown") == 11
    head, _, row = capsys.readouterr().out.strip().splitlines()
    cells = dict(zip(head.strip("| ").split(" | "), row.strip("| ").split(" | "), strict=True))
    assert (cells["verified"], cells["moved"], cells["changed"], cells["absent"]) == ("0", "1", "1", "1")
    assert cells["rows to study again"] == "3 of 3"
    assert cells["anchors"] == "`evict`, `accept`"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", cells["on"])


DRIFT = re.compile(r"^\| (\w+) [^|]+ \| (\S+)==\S+ \|[^|]+" + r"\| (\d+) " * 4 + r"\| (\d+) of (\d+) \| (.*) \|$", re.M)


def test_the_table_of_drift_fits_the_descriptors_as_they_are() -> None:
    """All anchors of the package are counted, what changed or is gone is named, and what leans on it is told."""
    library = {d.runtime: d for d in load_library()}
    found = DRIFT.findall((DOCS / "studies.md").read_text())
    assert {row[0] for row in found} >= {"vllm", "sglang", "dynamo", "kvcr", "lmcache", "mooncake"}
    for runtime, package, *counts, names in found:
        verified, moved, changed, absent, again, rows = map(int, counts)
        descriptor = library[runtime]
        own = {descriptor.package, *descriptor.distributions}
        about = own if package in own else {package}
        anchors = [n for n, a in descriptor.anchors.items() if isinstance(a, PackageAnchor) and a.package in about]
        named = set(re.findall(r"`([^`]+)`", names))
        assert verified + moved + changed + absent == len(anchors), (runtime, package)
        assert named <= set(anchors) and len(named) == changed + absent, (runtime, package)
        leaning = [row for row in descriptor.rows() if named & set(row_anchors(row))]
        assert (again, rows) == (len(leaning), len(list(descriptor.rows()))), (runtime, package)


def test_the_table_of_drift_needs_a_version(site: Site, capsys) -> None:
    """It compares whole descriptors with one other version."""
    assert site.run("anchors", "diff", "--markdown") == 2
    assert "--against" in capsys.readouterr().err
