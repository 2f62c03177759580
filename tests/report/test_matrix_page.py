"""The matrix page: everything that led to a verdict is in one file, as text, and the file asks for nothing else."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from residentkv.cli.main import main
from tests.lowering.site import build_site
from tests.report import hostile

SHIPPED_BYTES = 2_000_000
VOID = {"meta", "link", "br", "input", "hr", "img"}


class Page(HTMLParser):
    """Text, ids, tags and addresses of a page; an unclosed or wrongly closed element is an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def write_page(folder: Path, *arguments: str) -> tuple[int, str]:
    """Run `residentkv report matrix`; return its exit code and the page."""
    code = main(["report", "matrix", "-o", str(folder / "page.html"), *arguments])
    return code, (folder / "page.html").read_text()


def test_a_row_shows_obligations_evidence_anchors_and_a_command(tmp_path: Path) -> None:
    """File, symbol, lines, state and note of what decided, and the command that judges the same row again."""
    site = build_site(tmp_path)
    code, text = write_page(tmp_path, "--descriptor", str(site.descriptor), "--site-packages", str(site.folder))
    page = Page(text)
    assert code == 10
    row = text.split('id="somertime-1.4-lru-hard_protected-native"')[1].split("</details>")[0]
    shown = Page(f"<div>{row.split('>', 1)[1]}</div>").text
    for words in (
        "rejected",
        "victim_exclusion",
        "oldest goes first",
        "somertime/pool.py",
        "Pool.evict",
        "lines 11-13",
    ):
        assert words in shown, words
    assert "First obligation not satisfied: acceptance (missing)" in " ".join(shown.split())
    assert "What this does not prove." in shown
    assert "--primitive lru --mode hard_protected --depth native --explain" in shown
    assert "anchors verify evict" in page.text
    assert "A verdict says what was audited at those versions." in page.text
    assert len(page.ids) == len(set(page.ids))


def test_every_link_inside_the_page_leads_somewhere(tmp_path: Path) -> None:
    """No anchor, row or primitive is named that the page does not have."""
    site = build_site(tmp_path)
    page = Page(write_page(tmp_path, "--descriptor", str(site.descriptor), "--site-packages", str(site.folder))[1])
    targets = {value[1:] for name, value in page.attributes if name == "href" and value.startswith("#")}
    assert len(targets) > 5
    assert targets <= set(page.ids)


@pytest.mark.parametrize("name", ["anchors", "anchor-evict", "title", "lru-best_effort-native", "tools", "rows"])
def test_a_primitive_with_an_unlucky_name_has_a_place_of_its_own(tmp_path: Path, name: str) -> None:
    """Every id of the page is there once, whatever primitives and anchors are called."""
    site = build_site(tmp_path)
    first = site.descriptor.read_text()
    second = first[first.index("  - id: lru") :].replace("id: lru", f"id: {name}")
    site.descriptor.write_text(first + second)
    _, text = write_page(tmp_path, "--descriptor", str(site.descriptor), "--site-packages", str(site.folder))
    ids = re.findall(r'\sid="([^"]+)"', text)
    assert len(set(ids)) == len(ids)


def test_the_shipped_library_stays_under_two_megabytes_and_asks_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file without an address of another; its policy forbids the network and every script but its own."""
    monkeypatch.setenv("RESIDENTKV_CACHE", str(tmp_path / "cache"))
    code, text = write_page(tmp_path, "--recorded")
    page = Page(text)
    assert code == 10
    assert len(text.encode()) < SHIPPED_BYTES
    assert "recorded earlier" in page.text
    asked = [
        v for n, v in page.attributes if n in ("src", "href", "action", "srcset") and not v.startswith(("#", "data:"))
    ]
    assert asked == []
    assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttpRequest|WebSocket|sendBeacon", text)
    policy = next(v for n, v in page.attributes if n == "content" and "default-src" in v)
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_hostile_texts_of_a_descriptor_are_text(tmp_path: Path) -> None:
    """Markup is escaped, direction and control characters are shown as escapes, and nothing ends an element."""
    site = hostile.write_site(tmp_path)
    _, text = write_page(tmp_path, "--descriptor", str(site.descriptor), "--site-packages", str(site.folder))
    page = Page(text)
    assert "img" not in page.tags
    assert page.tags.count("script") == 1
    assert hostile.MARKUP in " ".join(page.words)
    assert hostile.CLOSING in " ".join(page.words)
    assert all(shown in page.text for shown in hostile.SHOWN.values())
    assert hostile.HEBREW in page.text
    assert not [c for c in text if not c.isprintable() and c not in "\n"]


def test_a_baseline_tells_what_got_worse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A row that was positive and is not any more is worse; the obligations that moved are named."""
    site = build_site(tmp_path)
    capsys.readouterr()
    assert site.run("check", "--json", "--all") == 10
    before = json.loads(capsys.readouterr().out)
    row = next(r for r in before["rows"] if r["mode"] == "hard_protected")
    row.update(verdict="native_sound", evidence_class="native_conformance")
    for obligation in row["obligations"]:
        obligation["status"] = "satisfied"
    baseline = tmp_path / "before.json"
    baseline.write_text(json.dumps(before))
    _, text = write_page(
        tmp_path,
        "--descriptor", str(site.descriptor), "--site-packages", str(site.folder), "--baseline", str(baseline),
    )  # fmt: skip
    part = Page(text).text.split("What changed: since ")[1].split("Find Mode")[0]
    assert "1 changed, 2 as before" in part
    assert "worse lru somertime , hard protected, native native sound 1.4 rejected 1.4" in part
    assert "satisfied → contradicted: victim_exclusion" in part


def test_a_baseline_that_is_something_else_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing of a file in another format is guessed: exit code 11, and nothing is written."""
    (tmp_path / "before.json").write_text('{"schema": "residentkv.audit/1", "rows": []}')
    code = main(["report", "matrix", "-o", str(tmp_path / "page.html"), "--baseline", str(tmp_path / "before.json")])
    assert code == 11
    assert "RKV166" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()
