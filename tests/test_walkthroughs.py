"""Pages that walk a reader through: every command is run in the order of the page, and prints what the page shows."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from residentkv.cli.main import main

ROOT = Path(__file__).parent.parent
LIVE = {"server.md"}
"""Pages whose commands need a real server; `tests/live/test_server.py` runs those."""
PAGES = sorted(p for p in ROOT.glob("docs/**/*.md") if "```console\n" in p.read_text() and p.name not in LIVE)
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_EXIT = re.compile(r" # exit code (\d+)$")


@dataclass
class Shown:
    """One command of a page, with the exit code and the lines that the page shows."""

    command: str
    code: int
    lines: list[str]


def commands_of(page: Path) -> Iterator[Shown]:
    """The commands of a page; `...` stands for lines, or at the end or in the middle of a line for text, left out."""
    for block in _BLOCK.findall(page.read_text()):
        shown: list[Shown] = []
        for line in block.splitlines():
            if line.startswith("$ "):
                code = _EXIT.search(line)
                command = _EXIT.sub("", line.removeprefix("$ "))
                shown.append(Shown(command, int(code[1]) if code else 0, []))
            else:
                shown[-1].lines.append(line)
        yield from shown


def assert_shown(shown: Shown, printed: list[str]) -> None:
    """Every line that is shown was printed, in this order, and nothing between two of them unless `...` says so."""
    position, gap = 0, False
    for line in shown.lines:
        if line == "...":
            gap = True
            continue
        pattern = re.compile(".*".join(re.escape(part) for part in line.split("...")))
        places = [n for n in range(position, len(printed)) if pattern.fullmatch(printed[n])]
        assert places, f"{shown.command}: not printed: {line!r}"
        assert gap or places[0] == position, f"{shown.command}: printed something before {line!r}"
        position, gap = places[0] + 1, False
    assert gap or position == len(printed), f"{shown.command}: printed more: {printed[position:]}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_a_walkthrough_prints_what_it_shows(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one folder, on a machine without runtimes."""
    monkeypatch.setenv("RESIDENTKV_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    found = list(commands_of(page))
    assert found
    for shown in found:
        code = main(shlex.split(shown.command)[1:])
        printed = capsys.readouterr()
        assert (code, printed.err) == (shown.code, ""), shown.command
        assert_shown(shown, [line.rstrip() for line in printed.out.splitlines()])


def test_what_is_not_shown_is_noticed() -> None:
    """The comparison itself: a missing line, one that is out of order, and one that was left out without saying so."""
    assert_shown(Shown("x", 0, ["a", "...", "d ... f"]), ["a", "b", "d e f"])
    for lines in (["b"], ["...", "b", "a", "..."], ["a"], ["a", "c"]):
        with pytest.raises(AssertionError):
            assert_shown(Shown("x", 0, lines), ["a", "b", "c"])


def test_the_tutorial_ends_with_a_caught_violation() -> None:
    """Some command of it exits 10, and one names a rule."""
    tutorial = list(commands_of(ROOT / "docs" / "tutorial.md"))
    assert any(s.code == 10 and any("RKV290" in line for line in s.lines) for s in tutorial)
