"""The reports in a real headless Chromium: clicked through, read by a checker of accessibility, and photographed."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bench.corpus import record_runs, write_long_trace
from playwright.sync_api import Browser, Page

from residentkv.cli.main import main
from tests.live.browser import SIZES, THEMES, chromium, problems, visit
from tests.report import hostile

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "out" / "browser"
CASE = ROOT / "src" / "residentkv" / "suite" / "cases" / "failure-smeared-over-two-claims" / "trace.jsonl"
ROW = "vllm-0.32.0-offloading_connector-offloadable-plugin"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests here, closed before tests that need the event loop."""
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages, written by the commands in a folder of its own, so that they name no place of this machine."""
    folder = tmp_path_factory.mktemp("pages")
    recorded = ROOT / "tests" / "traces"
    manifest = json.loads((recorded / "MANIFEST.json").read_bytes())["traces"]
    traces = sorted(recorded / entry["file"] for entry in manifest if entry["verdict"] == "conforming")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        shutil.copy(CASE, "violating.jsonl")
        names = []
        for trace in traces:
            names.append(f"{trace.parent.name}-{trace.name}")
            shutil.copy(trace, names[-1])
        assert main(["audit", *names, "--evidence-out", "evidence.json", "--json"]) == 0
        hostile.write_trace(Path("hostile.jsonl"))
        (folder / "site").mkdir()
        site = hostile.write_site(folder / "site")
        own = ["--descriptor", str(site.descriptor), "--site-packages", str(site.folder)]
        write_long_trace(Path("long.jsonl"), record_runs(folder / "site"), 100_000)
        one = ["--runtime", "vllm", "--primitive", "offloading_connector", "--mode", "offloadable"]
        options = ["--evidence", "evidence.json", *_baseline(folder)]
        assert main(["report", "matrix", "-o", "matrix.html", *options]) == 10
        assert main(["report", "matrix", "-o", "small.html", *one, *options]) == 11
        assert main(["report", "matrix", "-o", "hostile-matrix.html", *own]) == 10
        assert main(["report", "timeline", "violating.jsonl", "-o", "timeline.html"]) == 10
        assert main(["report", "timeline", "hostile.jsonl", "-o", "hostile-timeline.html"]) == 0
        assert main(["report", "timeline", "long.jsonl", "-o", "long.html"]) == 0
    return folder


def _baseline(folder: Path) -> list[str]:
    """What was judged without the traces: the report says that rows got better."""
    with pytest.MonkeyPatch.context() as patch, (folder / "before.json").open("w") as out:
        patch.setattr("click.echo", lambda text="", **_: out.write(f"{text}\n"))
        assert main(["check", "--all", "--json"]) == 10
    return ["--baseline", "before.json"]


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until something holds; the page's policy keeps out the waiting functions of the driver."""
    for _ in range(200):
        if holds():
            return
        time.sleep(0.02)
    raise AssertionError("it never held")


def shown(page: Page) -> str:
    return page.locator("#shown").inner_text()


def event_of(page: Page) -> str:
    """Return the fragment that names what is selected."""
    return str(page.evaluate("location.hash"))


def test_the_matrix_filters_opens_and_links(browser: Browser, pages: Path) -> None:
    """A word and a choice narrow the rows, a cell opens its row, and the address of the row opens it again."""
    with visit(browser, pages / "matrix.html") as page:
        total = shown(page).split(" of ")[1]
        page.keyboard.press("/")
        page.keyboard.type("offloading_connector")
        page.select_option("#verdict", "sound_with_adapter")
        positive = int(shown(page).split(" of ")[0])
        page.select_option("#mode", "offloadable")
        assert shown(page) == f"1 of {total}"
        assert positive > 1
        assert page.locator("section.runtime:visible").count() == 1
        page.keyboard.press("Escape")
        assert shown(page) == f"{total.split()[0]} of {total}"
        page.locator(f"table.dense a[href='#{ROW}']").click()
        assert page.locator(f"#{ROW.replace('.', chr(92) + '.')} .obligations").is_visible()
        assert event_of(page) == f"#{ROW}"
    with visit(browser, pages / "matrix.html", f"#{ROW}") as page:
        row = page.locator(f"[id='{ROW}']")
        assert row.get_attribute("open") is not None
        assert row.locator("summary").evaluate("e => e === document.activeElement")
        page.keyboard.press("Enter")
        assert row.get_attribute("open") is None
        page.keyboard.press("Enter")
        row.locator(".command button").click()
        eventually(lambda: "--primitive offloading_connector" in page.locator("#said").inner_text())


def test_the_matrix_says_what_changed(browser: Browser, pages: Path) -> None:
    """The rows that the traces made positive are better than the baseline, and lead to their place."""
    with visit(browser, pages / "matrix.html") as page:
        changed = page.locator("table.changes").last
        assert changed.locator(".better").count() >= 1
        changed.locator(f"a[href='#{ROW}']").first.click()
        assert page.locator(f"[id='{ROW}']").get_attribute("open") is not None


def test_the_timeline_is_walked_by_keyboard(browser: Browser, pages: Path) -> None:
    """Arrows step through events and lanes, N goes to the violation, plus and 0 zoom, Escape lets go."""
    with visit(browser, pages / "timeline.html") as page:
        page.locator("#lanebox").focus()
        page.keyboard.press("Home")
        assert event_of(page) == "#event-0"
        page.keyboard.press("ArrowRight")
        assert event_of(page) == "#event-1"
        page.keyboard.press("n")
        assert event_of(page) == "#event-20"
        assert "RKV266" in page.locator("#detail").inner_text()
        assert "violating" in page.locator("#said").inner_text()
        page.keyboard.press("ArrowDown")
        assert event_of(page) != "#event-20"
        page.keyboard.press("+")
        page.keyboard.press("+")
        eventually(lambda: "of 26" not in page.locator("#page").inner_text())
        page.keyboard.press("0")
        eventually(lambda: "of 26" in page.locator("#page").inner_text())
        page.keyboard.press("Escape")
        assert event_of(page) == ""


def test_the_timeline_filters_and_is_clicked(browser: Browser, pages: Path) -> None:
    """A claim that is asked for is the only one left; a click on its lane selects the event under the pointer."""
    with visit(browser, pages / "timeline.html") as page:
        assert "2 of 2 claims" in shown(page)
        page.select_option("#verdict", "violating")
        assert "1 of 2 claims" in shown(page)
        page.locator("#requests").click()
        page.wait_for_timeout(150)
        box = page.locator("#canvas").bounding_box()
        assert box is not None
        hit = ""
        for x in range(250, int(box["width"]), 6):
            page.mouse.click(box["x"] + x, box["y"] + 24 + 13)
            hit = event_of(page)
            if hit:
                break
        assert hit == "#event-2"
        assert "resident_claim_accepted" in page.locator("#detail").inner_text()
        page.locator("#in").click()
        page.locator("#axis").click()
        assert page.locator("#axis").get_attribute("aria-pressed") == "true"
        page.locator("#body tr").last.click()
        eventually(lambda: page.locator("#body tr[aria-current]").count() == 1)


def test_an_address_leads_to_an_event(browser: Browser, pages: Path) -> None:
    """`#event-20` selects it, frames it, and marks its row of the table; the link in a story does the same."""
    with visit(browser, pages / "timeline.html", "#event-20") as page:
        assert "20 scheduler_resident_claim_restoration_failed" in page.locator("#detail").inner_text()
        page.wait_for_selector("#event-20[aria-current]")
        assert page.locator("#event-20").inner_text().startswith("20")
        page.locator("#finding-0 a[href='#event-20']").click()
        assert event_of(page) == "#event-20"


def test_a_hundred_thousand_events_stay_usable(browser: Browser, pages: Path) -> None:
    """From all of them to one, by address, filter and keys; the table never holds more than a page."""
    with visit(browser, pages / "long.html") as page:
        assert "events" in shown(page)
        total = int(shown(page).split(", ")[1].split(" of ")[1].split()[0])
        assert total >= 100_000
        eventually(lambda: page.locator("#body tr").count() == 100)
        page.locator("#lanebox").focus()
        page.keyboard.press("End")
        assert event_of(page) == f"#event-{total - 1}"
        page.fill("#find", "-77")
        few = int(shown(page).split(", ")[1].split(" of ")[0])
        assert 0 < few < total
        page.fill("#find", "")
        page.evaluate("location.hash = '#event-50000'")
        page.wait_for_selector("#event-50000[aria-current]")
        assert page.locator("#body tr").count() <= 100
        picture(page, "long-desktop-light")


def test_hostile_names_stay_text(browser: Browser, pages: Path) -> None:
    """No markup of a descriptor or a trace becomes an element or runs, in the page, its table or its detail."""
    for file in ("hostile-matrix.html", "hostile-timeline.html"):
        with visit(browser, pages / file) as page:
            page.wait_for_timeout(150)
            text = page.locator("body").inner_text()
            assert page.title() != "taken"
            assert page.locator("img").count() == 0
            for escaped in hostile.SHOWN.values():
                assert escaped in page.content().replace("&lt;", "<")
            assert hostile.MARKUP in page.locator("main").text_content() or file.startswith("hostile-timeline")
            assert "\u202e" not in text
            overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert overflow == 0
    with visit(browser, pages / "hostile-timeline.html") as page:
        page.fill("#find", "script")
        eventually(lambda: page.locator("#body td", has_text=hostile.MARKUP).count() > 0)
        assert page.title() != "taken"


STATES = {
    "small": "document.querySelectorAll('details').forEach(d => { d.open = true; });",
    "timeline": "document.getElementById('later').click();",
}


@pytest.mark.parametrize(("size", "theme"), [("desktop", "light"), ("phone", "dark")])
def test_axe_finds_nothing(browser: Browser, pages: Path, size: str, theme: str) -> None:
    """Contrast, labels, names and roles of every page, with rows opened and an event selected."""
    found = {
        name: problems(browser, pages / f"{name}.html", size=size, theme=theme, before=before)
        for name, before in STATES.items()
    }
    assert found == {name: [] for name in STATES}


def picture(page: Page, name: str) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.wait_for_timeout(200)
    page.screenshot(path=PICTURES / f"{name}.png")


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("size", SIZES)
def test_pictures_are_taken_and_nothing_overflows(browser: Browser, pages: Path, size: str, theme: str) -> None:
    """At either width and in either theme a page fits its window; the pictures lie in out/browser."""
    views = {
        "matrix.html": {"matrix": "", "row": f"#{ROW}", "comparison": "#compare-1"},
        "timeline.html": {"timeline": "#event-20"},
        "hostile-timeline.html": {"hostile": "#event-9"},
    }
    for file, states in views.items():
        with visit(browser, pages / file, size=size, theme=theme) as page:
            for name, fragment in states.items():
                if fragment:
                    page.evaluate(f"location.hash = {fragment!r}")
                picture(page, f"{name}-{size}-{theme}")
                overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
                assert overflow == 0, name
