"""Numbers that are drawn come out of the tables as they stand there; a file without any is refused."""

from __future__ import annotations

import json
import re
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


LITMUS = '{"schema": "residentkv.litmus/1", "runtime": "r", "measured": {"capacity": %s}}'
CELL = '{"policy": "%s", "usable_blocks": %s, "served": true, "lost_blocks": 0}'
OTHER = [
    LITMUS % "[]",
    LITMUS % "[{}]",
    LITMUS % f"[{CELL % ('a', '1e999')}]",
    LITMUS % f"[{', '.join(CELL % (p, 1) for p in 'abcde')}]",
    LITMUS.replace("litmus/1", "litmus/2") % f"[{CELL % ('a', 1)}]",
    '{"a":' * 100_000,
    PART.replace("| 256 | 1,232 | 48 | 4.8 |\n", "| 256 | 1,232 | 48 | 4.8 |\n" * 1000),
]


def test_what_is_no_measurement_is_not_drawn() -> None:
    """A number without end, a negative one, a tiny one and a cell that is not there leave a picture of the others."""
    for word in ("inf", "nan", "1e999", "-1", "5e-324", "1e308"):
        (chart,) = charts_of(PART.replace("1,232", word).encode(), "numbers.md")
        assert chart.series[0].values == (None, 906.0)
        assert chart.svg.count("<text") > 4
    (chart,) = charts_of(PART.replace("| 1024 | 906 | - | - |", "| 1024 |").encode(), "numbers.md")
    assert [s.values for s in chart.series] == [(1232.0, None), (48.0, None)]
    some = LITMUS % f"[{CELL % ('a', 1)}, {CELL % ('b', 2)}]"
    assert [s.values for s in charts_of(some.encode(), "x")[0].series] == [(0, None), (None, 0)]


def test_each_picture_of_a_page_has_ids_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runtimes under the same litmus: every picture is labelled by its own title."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        Path(name).write_text((LITMUS % f"[{CELL % ('p', 1)}]").replace('"r"', f'"{name}"'))
    assert main(["report", "matrix", "--runtime", "reference", "--numbers", "a", "--numbers", "b", "-o", "p.html"]) != 1
    ids = re.findall(r'(?<=\s)id="([^"]+)"', Path("p.html").read_text())
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("raw", [b"", b"# Nothing\n", b"{}", b"{", b"\xff\xfe", *(o.encode() for o in OTHER)])
def test_a_file_without_numbers_is_refused(raw: bytes) -> None:
    """An empty section would look like nothing to compare."""
    with pytest.raises(InputError, match="expected"):
        charts_of(raw, "numbers.md")
