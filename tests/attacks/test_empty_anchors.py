"""Anchors at nothing: what any text holds shows nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from residentkv.cli.main import main
from residentkv.lowering.text import digest_lines, digest_quote
from tests.lowering.site import Site, build_site

CORE = ("claim_identity", "cache_identity", "object_identity", "joinability")
URL = "https://example.org/page"
DOCUMENT = "{{type: document, url: '{url}', retrieved: '2026-01-05', quote: '{quote}', sha256: '{sha256}'}}"
LINES = "{{type: package, package: somertime, file: somertime/pool.py, lines: {lines}, sha256: '{sha256}'}}"


def descriptor_of(anchor: str, kind: str) -> str:
    """A descriptor whose whole evidence for best_effort is one anchor."""
    evidence = "".join(
        f"      - {{obligation: {o}, polarity: supports, kind: {kind}, anchor: it, note: said there}}\n" for o in CORE
    )
    return (
        'schema: residentkv.descriptor/1\nruntime: somertime\nversion: "1.4"\ntitle: Some runtime\n'
        'package: {name: somertime, versions: ">=1.4,<1.5", distributions: [somertime-cpu]}\n'
        f"anchors:\n  it: {anchor}\n"
        "primitives:\n  - id: lru\n    title: LRU\n    summary: Blocks stay.\n    where: [it]\n"
        f"    evidence:\n{evidence}    rows:\n      - {{mode: best_effort}}\n"
    )


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Site:
    monkeypatch.setenv("RESIDENTKV_CACHE", str(tmp_path / "cache"))
    made = build_site(tmp_path)
    capsys.readouterr()
    return made


@pytest.mark.parametrize(("quote", "code"), [(" ", 11), ("the", 11), ("it is", 11), ("it keeps every claim", 0)])
def test_a_quotation_of_nothing_in_particular_is_refused(quote: str, code: int, site: Site, tmp_path: Path) -> None:
    """A blank, or a word, stands in every text; only a sentence can be quoted."""
    page = tmp_path / "page.txt"
    page.write_text("Of the pool it is said that it keeps every claim.\n")
    anchor = DOCUMENT.format(url=URL, quote=quote, sha256=digest_quote(quote))
    site.descriptor.write_text(descriptor_of(anchor, "doc"))
    assert main(["check", "--descriptor", str(site.descriptor), "--document", f"{URL}={page}"]) == code


@pytest.mark.parametrize(("lines", "code"), [("2-2", 11), ("40-40", 11), ("3-3", 0)])
def test_blank_lines_are_no_text(lines: str, code: int, site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """A blank line is in every file; an anchor at one is not verified, wherever the line has moved to."""
    text = "LIMIT = 7" if code == 0 else ""
    site.pool.write_text('"""Pool."""\n\nLIMIT = 7\n')
    site.descriptor.write_text(descriptor_of(LINES.format(lines=lines, sha256=digest_lines([text])), "source"))
    assert site.run("check", "--mode", "best_effort") == code


def test_a_blank_line_cannot_be_pinned(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """`anchors add` says so when it is asked, and not only the check afterwards."""
    before = site.descriptor.read_bytes()
    assert site.run("anchors", "add", "none", "--package", "somertime", "--file", "somertime/pool.py", "--lines", "2-2")
    assert "blank" in " ".join(capsys.readouterr().err.split())
    assert site.descriptor.read_bytes() == before
