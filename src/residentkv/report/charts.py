"""Numbers that are compared, as SVG: bars in groups and lines; readable without colour, with a title and a table.

No library: a bar chart is a few rectangles, and what is drawn has to be the same bytes everywhere.
"""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass

from markupsafe import Markup, escape

from residentkv.report.plain import escape_controls

WIDTH, HEIGHT = 680, 332
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 46, 76
_CHARACTER = 5.9
"""Width of a letter, on average."""
MARKERS = ("circle", "square", "diamond", "triangle")


@dataclass(frozen=True, slots=True)
class Series:
    """One set of numbers, a value a category; None where nothing was measured."""

    name: str
    values: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """A comparison of numbers.

    Args:
        id: unique on its page; a name without spaces.
        title: what is compared.
        text: what the reader should see, in a sentence, and where the numbers come from.
        categories: what stands along the x axis.
        x, y: names of the axes, with units.
        series: what is compared; every one has a value for every category.
        kind: `bars` or `lines`.
    """

    id: str
    title: str
    text: str
    categories: tuple[str, ...]
    x: str
    y: str
    series: tuple[Series, ...]
    kind: str = "bars"

    @property
    def svg(self) -> Markup:
        """The picture."""
        return Markup(render_svg(self))


MAX_SERIES = 4
_COLOURS = ("#3b7dd8", "#c2571a", "#2f8f5b", "#8a5fbf")
_DASHES = ("", "7 4", "2 3", "9 3 2 3")
_FONT = "system-ui, 'Segoe UI', Roboto, 'Liberation Sans', 'DejaVu Sans', sans-serif"


def render_svg(chart: Chart, *, standalone: bool = False) -> str:
    """Return a chart as SVG.

    Args:
        chart: what to draw; at most four series.
        standalone: as a file of its own, black on white; else in the colour of the page around it.

    Raises:
        ValueError: more series than can be told apart, or a series without a value for every category.
    """
    if len(chart.series) > MAX_SERIES:
        raise ValueError(f"{chart.id}: found {len(chart.series)} series, expected at most {MAX_SERIES}")
    if any(len(s.values) != len(chart.categories) for s in chart.series):
        raise ValueError(f"{chart.id}: found a series without a value for every category")
    slot = (WIDTH - _LEFT - _RIGHT) / max(len(chart.categories), 1)
    letters = max(int(slot / _CHARACTER), 6)
    labels = [textwrap.wrap(c.replace("_", " "), letters, max_lines=4, placeholder="…") for c in chart.categories]
    lowest = 11 * max(map(len, labels), default=0)
    height = HEIGHT - _BOTTOM + lowest + 26
    top = max((v for s in chart.series for v in s.values if v is not None), default=0.0)
    step, ceiling = ticks(top * 1.06)  # room for the number above the highest bar
    around = (
        'xmlns="http://www.w3.org/2000/svg" color="#1b1f26"'
        if standalone
        else 'color="currentColor" fill="currentColor"'
    )
    out = [
        f'<svg {around} viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" '
        f'aria-labelledby="{_t(chart.id)}-t {_t(chart.id)}-d" font-family="{_FONT}" font-size="11">',
        f'<title id="{_t(chart.id)}-t">{_t(chart.title)}</title>',
        f'<desc id="{_t(chart.id)}-d">{_t(describe(chart))}</desc>',
        _patterns(chart),
    ]
    if standalone:
        out.append(f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>')
    out.append(
        f'<text x="{_LEFT}" y="16" font-size="13" font-weight="600" fill="currentColor">{_t(chart.title)}</text>'
    )
    out += _legend(chart) if len(chart.series) > 1 else []
    for n in range(round(ceiling / step) + 1):
        value = n * step
        y = _y(value, ceiling)
        out.append(
            f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y}" y2="{y}" stroke="currentColor" '
            f'stroke-opacity="{0.5 if n == 0 else 0.15}"/>'
            f'<text x="{_LEFT - 6}" y="{y + 4:g}" text-anchor="end" fill="currentColor">{_t(number(value))}</text>'
        )
    for n, words in enumerate(labels):
        x = _LEFT + slot * (n + 0.5)
        for k, line in enumerate(words):
            out.append(
                f'<text x="{x:.1f}" y="{HEIGHT - _BOTTOM + 14 + 11 * k}" text-anchor="middle" font-size="10" '
                f'fill="currentColor">{_t(line)}</text>'
            )
    out.append(
        f'<text x="{_LEFT + (WIDTH - _LEFT - _RIGHT) / 2:g}" y="{HEIGHT - _BOTTOM + lowest + 18}" text-anchor="middle" '
        f'fill="currentColor">{_t(chart.x)}</text>'
        f'<text transform="translate(13 {_TOP + (HEIGHT - _TOP - _BOTTOM) / 2:g}) rotate(-90)" text-anchor="middle" '
        f'fill="currentColor">{_t(chart.y)}</text>'
    )
    draw = _lines if chart.kind == "lines" else _bars
    for n, series in enumerate(chart.series):
        out += draw(chart, n, series, slot, ceiling)
    out.append("</svg>")
    return "\n".join(out) + ("\n" if standalone else "")


def describe(chart: Chart) -> str:
    """Return every number of a chart in words, for whoever cannot see it."""
    parts = [f"{chart.y} by {chart.x}."]
    for series in chart.series:
        values = ", ".join(
            f"{category}: {'not measured' if v is None else number(v)}"
            for category, v in zip(chart.categories, series.values, strict=True)
        )
        parts.append(f"{series.name}: {values}.")
    return " ".join(parts)


def ticks(top: float) -> tuple[float, float]:
    """Return a step of 1, 2 or 5 times a power of ten, and the first multiple of it that is not below `top`."""
    if top <= 0:
        return 1.0, 1.0
    rough = top / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    return step, math.ceil(top / step - 1e-9) * step


def number(value: float) -> str:
    """Return a number with at most three digits that matter, thousands apart; below one with four, and never as one."""
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{min(value, 0.9999):.4g}" if 0 < value < 1 else f"{value:.3g}"


def _bars(chart: Chart, n: int, series: Series, slot: float, ceiling: float) -> list[str]:
    out = []
    width = min(slot * 0.8 / len(chart.series), 46)
    for k, value in enumerate(series.values):
        if value is None:
            continue
        left = _LEFT + slot * (k + 0.5) + width * (n - len(chart.series) / 2)
        y = _y(value, ceiling)
        height = max(_y(0, ceiling) - y, 0)
        out.append(
            f'<rect x="{left + 1:.1f}" y="{y}" width="{width - 2:.1f}" height="{height:g}" '
            f'fill="url(#{_t(chart.id)}-{n})" stroke="{_COLOURS[n]}"/>'
            f'<text x="{left + width / 2:.1f}" y="{y - 3:g}" text-anchor="middle" font-size="10" '
            f'fill="currentColor">{_t(number(value))}</text>'
        )
    return out


def _lines(chart: Chart, n: int, series: Series, slot: float, ceiling: float) -> list[str]:
    points = [
        (_LEFT + slot * (k + 0.5), _y(value, ceiling)) for k, value in enumerate(series.values) if value is not None
    ]
    path = " ".join(f"{x:.1f},{y:g}" for x, y in points)
    out = [
        f'<polyline points="{path}" fill="none" stroke="{_COLOURS[n]}" stroke-width="2" '
        f'stroke-dasharray="{_DASHES[n]}"/>'
    ]
    out += [_marker(n, x, y) for x, y in points]
    return out


def _marker(n: int, x: float, y: float) -> str:
    fill = f'fill="{_COLOURS[n]}"'
    shape = MARKERS[n]
    if shape == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:g}" r="4" {fill}/>'
    if shape == "square":
        return f'<rect x="{x - 3.5:.1f}" y="{y - 3.5:g}" width="7" height="7" {fill}/>'
    points = {"diamond": ((0, -5), (5, 0), (0, 5), (-5, 0)), "triangle": ((0, -5), (5, 4), (-5, 4))}[shape]
    return f'<polygon points="{" ".join(f"{x + a:.1f},{y + b:g}" for a, b in points)}" {fill}/>'


def _legend(chart: Chart) -> list[str]:
    out = []
    x = float(_LEFT)
    for n, series in enumerate(chart.series):
        if chart.kind == "lines":
            out.append(
                f'<line x1="{x:g}" x2="{x + 22:g}" y1="30" y2="30" stroke="{_COLOURS[n]}" stroke-width="2" '
                f'stroke-dasharray="{_DASHES[n]}"/>{_marker(n, x + 11, 30)}'
            )
        else:
            out.append(
                f'<rect x="{x:g}" y="24" width="22" height="11" fill="url(#{_t(chart.id)}-{n})" '
                f'stroke="{_COLOURS[n]}"/>'
            )
        out.append(f'<text x="{x + 27:g}" y="34" fill="currentColor">{_t(series.name)}</text>')
        x += 44 + 6.2 * len(series.name)
    return out


def _patterns(chart: Chart) -> str:
    out = ["<defs>"]
    inside = (
        '<rect width="8" height="8" fill="{c}"/>',
        '<rect width="8" height="8" fill="{c}" fill-opacity="0.15"/>'
        '<path d="M0 8L8 0M-2 2L2 -2M6 10L10 6" stroke="{c}" stroke-width="1.6"/>',
        '<rect width="8" height="8" fill="{c}" fill-opacity="0.15"/><circle cx="4" cy="4" r="1.7" fill="{c}"/>',
        '<rect width="8" height="8" fill="{c}" fill-opacity="0.15"/><path d="M0 4H8M4 0V8" stroke="{c}"/>',
    )
    for n in range(len(chart.series)):
        shape = inside[n].format(c=_COLOURS[n])
        out.append(
            f'<pattern id="{_t(chart.id)}-{n}" width="8" height="8" patternUnits="userSpaceOnUse">{shape}</pattern>'
        )
    return "".join([*out, "</defs>"])


def _y(value: float, ceiling: float) -> float:
    return round(_TOP + (HEIGHT - _TOP - _BOTTOM) * (1 - value / ceiling), 1)


def _t(text: str) -> str:
    return str(escape(escape_controls(text)))
