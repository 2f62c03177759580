"""Charts: the numbers are drawn to scale, told in words, and told apart without colour."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from residentkv.report.charts import Chart, Series, describe, number, render_svg, ticks

SVG = "{http://www.w3.org/2000/svg}"


def chart(kind: str = "bars", *series: Series) -> Chart:
    return Chart(
        "x",
        "Lost & found <b>",
        "what was lost",
        ("80", "90", "100"),
        "usable blocks",
        "blocks lost",
        series or (Series("native", (50, 40, None)), Series("hard", (0, 0, 0))),
        kind,
    )


def test_bars_are_as_high_as_their_numbers() -> None:
    """Heights are in the ratio of the values, 0 has no height, and what was not measured has no bar."""
    tree = ET.fromstring(render_svg(chart(), standalone=True))
    bars = [
        float(r.get("height", "")) for r in tree.iter(f"{SVG}rect") if (r.get("fill") or "").startswith("url(#x-0)")
    ]
    legend, *first = bars
    assert legend == 11
    assert first == [pytest.approx(175, abs=0.1), pytest.approx(140, abs=0.1)]


def test_a_chart_has_a_title_and_says_every_number() -> None:
    """Title and description hold the numbers in words, with what was not measured, and markup stays text."""
    tree = ET.fromstring(render_svg(chart(), standalone=True))
    assert tree.get("role") == "img"
    assert tree.findtext(f"{SVG}title") == "Lost & found <b>"
    told = tree.findtext(f"{SVG}desc") or ""
    assert told == describe(chart())
    assert "native: 80: 50, 90: 40, 100: not measured." in told


def test_lines_differ_by_shape_and_dash() -> None:
    """Two series share neither marker nor dash, so that they differ when printed in grey."""
    series = tuple(Series(str(n), (n, n, n)) for n in range(4))
    tree = ET.fromstring(render_svg(chart("lines", *series), standalone=True))
    dashes = [line.get("stroke-dasharray") for line in tree.iter(f"{SVG}polyline")]
    assert len(set(dashes)) == 4
    with pytest.raises(ValueError, match="at most 4"):
        render_svg(chart("lines", *series, Series("fifth", (1, 1, 1))))


@pytest.mark.parametrize(("top", "expected"), [(50, (10, 50)), (0, (1, 1)), (0.3, (0.1, 0.3)), (151.5, (50, 200))])
def test_ticks_are_round_and_cover_the_top(top: float, expected: tuple[float, float]) -> None:
    """Steps are 1, 2 or 5 times a power of ten, and the last tick is not below the highest value."""
    step, ceiling = ticks(top)
    assert (step, ceiling) == (pytest.approx(expected[0]), pytest.approx(expected[1]))


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, "0"), (0.494, "0.494"), (0.9995, "0.9995"), (0.99999, "0.9999"), (1, "1"), (39985.8, "39,986")],
)
def test_what_is_below_one_is_not_called_one(value: float, expected: str) -> None:
    """A hit rate of 0.9995 was written as 1 on its bar: it is not every request."""
    assert number(value) == expected
