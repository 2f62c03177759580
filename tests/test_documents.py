"""What is generated is committed as generated, and the README shows what the demo really prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from residentkv.cli.gen import PAGES, generate
from residentkv.cli.main import main

ROOT = Path(__file__).parent.parent


def test_generated_files_are_up_to_date() -> None:
    """`make gen` would change nothing."""
    stale = [str(path) for path, content in generate(ROOT).items() if (ROOT / path).read_bytes() != content]
    assert stale == []


@pytest.mark.parametrize("page", PAGES)
def test_a_stale_page_is_seen(page: str) -> None:
    """Every page really has a generated part: with one of its lines gone, it is not what would be generated."""
    text = (ROOT / page).read_text()
    start = text.index("<!-- generated")
    lines = text[start:].splitlines(keepends=True)
    shorter = text[:start] + "".join(lines[:3] + lines[4:])
    assert PAGES[page](shorter) == text != shorter


def readme_demo() -> list[str]:
    """The lines of the README's demo block; `...` stands for lines left out."""
    block = (ROOT / "README.md").read_text().split("<!-- demo -->")[1].split("<!-- /demo -->")[0]
    return [line.removeprefix("    ") for line in block.strip("\n").splitlines() if line.strip() not in ("", "...")]


def test_readme_shows_what_the_demo_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every line of the block is printed by the demo, in that order, on a machine without runtimes."""
    monkeypatch.setenv("RESIDENTKV_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    assert main(["demo"]) == 0
    printed = iter(capsys.readouterr().out.splitlines())
    shown = readme_demo()
    assert len(shown) > 10
    for line in shown:
        assert any(line == candidate for candidate in printed), f"not printed in this order: {line!r}"


def test_every_page_is_on_the_site() -> None:
    """docs/site/index.md lists each page below docs/ once, or the site would not build."""
    index = (ROOT / "docs" / "site" / "index.md").read_text()
    listed = re.findall(r"^\.\./([a-z0-9-]+|README)$", index, re.MULTILINE)
    assert sorted(listed) == sorted(page.stem for page in ROOT.glob("docs/*.md"))
