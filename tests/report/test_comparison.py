"""Two versions of a runtime side by side: the rows that are worse, and the obligations that moved."""

from __future__ import annotations

from pathlib import Path

from residentkv.cli.main import main
from tests.lowering.site import BODY, HEAD, build_site, install
from tests.report.test_matrix_page import Page


def test_two_versions_of_a_runtime_are_compared(tmp_path: Path) -> None:
    """A row that the newer version contradicts leads the table with what moved; the rest is counted."""
    site = build_site(tmp_path)
    install(tmp_path / "newer", version="1.5.0")
    newer = tmp_path / "newer.yaml"
    worse = (
        "      - {obligation: joinability, polarity: contradicts, kind: source, anchor: limit, note: gone}\n    rows:"
    )
    text = (HEAD + BODY).replace('version: "1.4"', 'version: "1.5"').replace(">=1.4,<1.5", ">=1.5,<1.6")
    newer.write_text(text.replace("    rows:", worse))
    places = ["--site-packages", str(site.folder), "--site-packages", str(tmp_path / "newer")]
    assert main(["anchors", "add", "--missing", "--descriptor", str(newer), *places]) == 0
    page = tmp_path / "page.html"
    both = ["--descriptor", str(site.descriptor), "--descriptor", str(newer)]
    assert main(["report", "matrix", "-o", str(page), *both, *places]) == 10
    part = Page(page.read_text()).text.split("What changed: somertime 1.4 to 1.5")[1].split("Find Runtime")[0]
    assert "worse lru somertime , best effort, native native sound 1.4 rejected 1.5" in part
    assert "satisfied → contradicted: joinability" in part
    assert part.index("worse") < part.index("differs")
