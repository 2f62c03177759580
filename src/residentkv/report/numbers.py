"""Charts of numbers that were measured: tables of BENCHMARKS.md, and the capacity litmus. Nothing is measured here."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from residentkv.errors import InputError
from residentkv.report.charts import MAX_SERIES, Chart, Series, describe

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
        id="scaling",
        head=("events", "audit s", "audit us an event"),
        title="What an audit costs as the trace grows",
        values={"audit us an event": "us an event"},
        x="events of the trace",
        y="us an event",
        text="The whole audit of traces of several lengths, on one core.",
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


SMALLEST, LARGEST = 1e-9, 1e15
"""Numbers beyond these are not drawn, and neither are negative ones: nothing here measures any."""

MAX_CATEGORIES = 200
"""Rows of a table that one picture can still tell apart, with a wide margin."""

Policy = Annotated[str, Meta(min_length=1, max_length=60)]
Blocks = Annotated[int, Meta(ge=0, le=10**9)]


class LitmusCell(msgspec.Struct, frozen=True):
    """What is drawn of a cell of the capacity litmus; other keys are not looked at."""

    policy: Policy
    usable_blocks: Blocks
    served: bool
    lost_blocks: Blocks


class LitmusNumbers(msgspec.Struct, frozen=True):
    """What was measured; other keys are not looked at."""

    capacity: Annotated[tuple[LitmusCell, ...], Meta(min_length=1, max_length=MAX_CATEGORIES)]


class LitmusFile(msgspec.Struct, frozen=True):
    """What `residentkv litmus --json` prints; other keys are not looked at."""

    schema: Literal["residentkv.litmus/1"]
    runtime: Annotated[str, Meta(max_length=80)]
    measured: LitmusNumbers


def charts_of(raw: bytes, path: str) -> list[Chart]:
    """Return the charts of a file of numbers: Markdown as `make bench` writes it, or `residentkv litmus --json`.

    Raises:
        InputError: it has no number that is drawn, or more than one picture can hold.
    """
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = ""
    charts = [_litmus_chart(_litmus(text, path), path)] if text.lstrip().startswith("{") else list(_drawn(text, path))
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


def _litmus_chart(document: LitmusFile, path: str) -> Chart:
    """Return the chart of a capacity litmus: resident blocks lost, by policy and usable blocks."""
    cells = document.measured.capacity
    sizes = sorted({c.usable_blocks for c in cells})
    lost = {(c.policy, c.usable_blocks): c.lost_blocks for c in cells}
    policies = list(dict.fromkeys(c.policy for c in cells))
    if len(policies) > MAX_SERIES:
        raise InputError(f"found {len(policies)} policies, expected at most {MAX_SERIES}", path=path)
    refused = [c for c in cells if not c.served]
    return Chart(
        id="litmus",
        title=f"Resident blocks lost, {document.runtime}",
        text=f"Capacity litmus, measured on {document.runtime}. {len(refused)} of {len(cells)} active requests were "
        f"refused; those refusals lost {sum(c.lost_blocks for c in refused)} resident blocks.",
        categories=tuple(str(size) for size in sizes),
        x="usable blocks",
        y="resident blocks lost",
        series=tuple(Series(p.replace("_", " "), tuple(lost.get((p, size)) for size in sizes)) for p in policies),
    )


def _litmus(text: str, path: str) -> LitmusFile:
    try:
        return msgspec.json.decode(text, type=LitmusFile)
    except (msgspec.DecodeError, RecursionError) as e:
        raise InputError(f"found other JSON ({e}), expected {LITMUS_SCHEMA}", path=path) from None


def _drawn(text: str, path: str) -> Iterator[Chart]:
    for part in _PART.finditer(text):
        taken = next((line for line in part["text"].splitlines() if line.startswith("Taken ")), "")
        for table in _TABLE.finditer(part["text"]):
            head = _cells(table["head"])
            for drawing in DRAWINGS:
                if head[: len(drawing.head)] == drawing.head:
                    rows = [_cells(row) for row in table["rows"].splitlines()]
                    if len(rows) > MAX_CATEGORIES:
                        message = f"found a table of {len(rows)} rows, expected at most {MAX_CATEGORIES} in a picture"
                        raise InputError(message, path=path)
                    yield _chart(drawing, head, rows, taken)


def _chart(drawing: Drawing, head: tuple[str, ...], rows: list[tuple[str, ...]], taken: str) -> Chart:
    def column(name: str) -> tuple[float | None, ...]:
        at = head.index(name)
        return tuple(_number(row[at]) if at < len(row) else None for row in rows)

    return Chart(
        id=drawing.id,
        title=drawing.title,
        text=f"{drawing.text} {taken}".strip(),
        categories=tuple(row[0] for row in rows),
        x=drawing.x,
        y=drawing.y,
        series=tuple(Series(name, column(key)) for key, name in drawing.values.items()),
    )


def _cells(row: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in row.strip().strip("|").split("|"))


def _number(cell: str) -> float | None:
    """Return the number in a cell; what is no number, or none that anybody measures, was not measured."""
    try:
        value = float(cell.replace(",", ""))
    except ValueError:
        return None
    return value if value == 0 or SMALLEST <= value <= LARGEST else None
