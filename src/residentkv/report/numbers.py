"""Charts of numbers that were measured: tables of BENCHMARKS.md, and the capacity litmus. Nothing is measured here."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from residentkv.errors import InputError
from residentkv.report.charts import Chart, Series, describe

LITMUS_SCHEMA = "residentkv.litmus/1"

_PART = re.compile(r"^<!-- part: (?P<name>[\w-]+) -->\n(?P<text>.*?)^<!-- end of part", re.DOTALL | re.MULTILINE)
_TABLE = re.compile(r"^\|(?P<head>.+)\|\n\|[-:| ]+\|\n(?P<rows>(?:\|.*\|\n)+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Drawing:
    """A table that is drawn wherever it stands: known by its first columns, its categories in the first of them.

    Args:
        id: of the chart.
        head: the first columns of the table.
        title: of the chart.
        values: the columns that are drawn, by name, with what they are called in the legend.
        x, y: names of the axes, with units.
        text: what a reader should see.
    """

    id: str
    head: tuple[str, ...]
    title: str
    values: Mapping[str, str]
    x: str
    y: str
    text: str


DRAWINGS = (
    Drawing(
        id="ttft",
        head=("tokens", "computed ms", "restored ms"),
        title="Time to the first token of a prefix, computed and restored",
        values={"computed ms": "computed", "restored ms": "restored from the second tier"},
        x="tokens of the prefix",
        y="ms, median",
        text="A prefix that is computed, and the same prefix restored.",
    ),
    Drawing(
        id="refusal",
        head=("scenario", "worker to refusal", "worker to scheduler", "scheduler to refusal"),
        title="From the scheduler's word that a load failed to the refusal by name",
        values={"scheduler to refusal": "scheduler to refusal"},
        x="scenario",
        y="us, median",
        text="The plugin's own part of the way from a failed load to the refusal.",
    ),
    Drawing(
        id="audit-cost",
        head=("work", "s", "us an event"),
        title="What an audit costs beside reading the trace",
        values={"us an event": "us an event"},
        x="work",
        y="us an event",
        text="Reading and decoding, and the whole audit, of one long trace.",
    ),
    Drawing(
        id="hit-rate",
        head=("prefixes", "requests", "hit rate"),
        title="Hit rate of prefixes that come again, claimed and not",
        values={"hit rate": "hit rate"},
        x="prefixes",
        y="share of tokens found",
        text="Second request of a prefix on.",
    ),
)


def charts_of(raw: bytes, path: str) -> list[Chart]:
    """Return the charts of a file of numbers: Markdown as `make bench` writes it, or `residentkv litmus --json`.

    Raises:
        InputError: it has no number that is drawn.
    """
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = ""
    charts = [litmus_chart(_litmus(text, path))] if text.lstrip().startswith("{") else list(_drawn(text))
    if not charts:
        raise InputError(
            "found no table that is drawn, expected BENCHMARKS.md as `make bench` writes it, or what "
            "`residentkv litmus --json` printed",
            path=path,
        )
    return charts


def render_page(charts: Sequence[Chart]) -> str:
    """Return docs/numbers.md: every chart with its numbers in words."""
    lines = [
        "# Numbers",
        "",
        "Drawn by `make gen` from the tables of [BENCHMARKS.md](../BENCHMARKS.md), which the benchmarks write, and",
        "from the capacity litmus as it is measured on the reference runtime. A report takes the same pictures with",
        "`residentkv report matrix --numbers FILE`. Figures of different dates or machines are not comparable.",
    ]
    for chart in charts:
        said = textwrap.fill(describe(chart), 118, break_on_hyphens=False)
        told = textwrap.fill(chart.text, 118, break_on_hyphens=False)
        lines += ["", f"## {chart.title}", "", f"![{chart.title}](pictures/{chart.id}.svg)", "", told, "", said]
    return "\n".join(lines) + "\n"


def litmus_chart(document: Mapping[str, Any]) -> Chart:
    """Return the chart of a capacity litmus: resident blocks lost, by policy and usable blocks."""
    cells = document["measured"]["capacity"]
    sizes = sorted({c["usable_blocks"] for c in cells})
    lost = {(c["policy"], c["usable_blocks"]): c for c in cells}
    policies = list(dict.fromkeys(c["policy"] for c in cells))
    refused = [c for c in cells if not c["served"]]
    return Chart(
        id="litmus",
        title=f"Resident blocks lost, {document['runtime']}",
        text=f"Capacity litmus, measured on {document['runtime']}. {len(refused)} of {len(cells)} active requests were "
        f"refused; those refusals lost {sum(c['lost_blocks'] for c in refused)} resident blocks.",
        categories=tuple(str(size) for size in sizes),
        x="usable blocks",
        y="resident blocks lost",
        series=tuple(
            Series(p.replace("_", " "), tuple(lost[p, size]["lost_blocks"] for size in sizes)) for p in policies
        ),
    )


def _litmus(text: str, path: str) -> dict[str, Any]:
    try:
        document: dict[str, Any] = msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError as e:
        raise InputError(f"found no JSON object ({e}), expected {LITMUS_SCHEMA}", path=path) from None
    if document.get("schema") != LITMUS_SCHEMA:
        raise InputError(f"found schema {str(document.get('schema'))[:60]!r}, expected {LITMUS_SCHEMA}", path=path)
    return document


def _drawn(text: str) -> Iterator[Chart]:
    for part in _PART.finditer(text):
        taken = next((line for line in part["text"].splitlines() if line.startswith("Taken ")), "")
        for table in _TABLE.finditer(part["text"]):
            head = _cells(table["head"])
            for drawing in DRAWINGS:
                if head[: len(drawing.head)] == drawing.head:
                    yield _chart(drawing, head, [_cells(row.strip("|")) for row in table["rows"].splitlines()], taken)


def _chart(drawing: Drawing, head: tuple[str, ...], rows: list[tuple[str, ...]], taken: str) -> Chart:
    return Chart(
        id=drawing.id,
        title=drawing.title,
        text=f"{drawing.text} {taken}".strip(),
        categories=tuple(row[0] for row in rows),
        x=drawing.x,
        y=drawing.y,
        series=tuple(
            Series(name, tuple(_number(row[head.index(column)]) for row in rows))
            for column, name in drawing.values.items()
        ),
    )


def _cells(row: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in row.strip().strip("|").split("|"))


def _number(cell: str) -> float | None:
    """Return the number in a cell; what is no number was not measured."""
    try:
        return float(cell.replace(",", ""))
    except ValueError:
        return None
