"""Numbers that are drawn come out of the tables as they stand there; a file without any is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from residentkv.cli.main import main
from residentkv.errors import InputError
from residentkv.report.numbers import charts_of

ROOT = Path(__file__).parents[2]

PART = """\
<!-- part: witness -->
Taken 2026-11-25, somewhere.

| tokens | computed ms | restored ms | computed / restored |
|---|---:|---:|---:|
| 256 | 1,232 | 48 | 4.8 |
| 1024 | 906 | - | - |
<!-- end of part: witness -->
"""


def test_a_table_is_drawn_as_it_stands() -> None:
    """Thousands are numbers, a dash was not measured, and the chart says when it was taken."""
    (chart,) = charts_of(PART.encode(), "numbers.md")
    assert chart.categories == ("256", "1024")
    assert [s.values for s in chart.series] == [(1232.0, 906.0), (48.0, None)]
    assert "Taken 2026-11-25, somewhere." in chart.text


def test_the_benchmarks_of_this_repository_are_drawn() -> None:
    """A table of BENCHMARKS.md whose columns were renamed would silently lose its picture."""
    charts = charts_of((ROOT / "BENCHMARKS.md").read_bytes(), "BENCHMARKS.md")
    assert {"ttft", "refusal", "audit-cost"} <= {c.id for c in charts}
    assert all(v is not None for c in charts if c.id == "ttft" for s in c.series for v in s.values)


def test_the_litmus_is_drawn_as_it_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    """Every cell of the document is a bar; what the refusals lost is counted, not assumed."""
    assert main(["litmus", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    (chart,) = charts_of(json.dumps(document).encode(), "litmus.json")
    cells = {(c["policy"], str(c["usable_blocks"])): c["lost_blocks"] for c in document["measured"]["capacity"]}
    drawn = {
        (s.name.replace(" ", "_"), c): v for s in chart.series for c, v in zip(chart.categories, s.values, strict=True)
    }
    assert drawn == cells
    refused = next(c for c in document["measured"]["capacity"] if not c["served"])
    refused["lost_blocks"] = 3
    (worse,) = charts_of(json.dumps(document).encode(), "litmus.json")
    assert "lost 3 resident blocks" in worse.text


@pytest.mark.parametrize("raw", [b"", b"# Nothing\n", b"{}", b"{", b"\xff\xfe"])
def test_a_file_without_numbers_is_refused(raw: bytes) -> None:
    """An empty section would look like nothing to compare."""
    with pytest.raises(InputError, match="expected"):
        charts_of(raw, "numbers.md")
