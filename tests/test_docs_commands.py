"""Every command in the README, under docs/ and in a help text exists, and those that can run here do what is said."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import click
import pytest

from residentkv.cli.main import main, residentkv

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "BENCHMARKS.md", *ROOT.glob("docs/**/*.md")])

_INLINE = re.compile(r"`(residentkv [a-z][^`]*)`")
_WORDS = "|".join(residentkv.list_commands(click.Context(residentkv)))
_LINE = re.compile(rf"^ *(?:\$ )?(residentkv (?:{_WORDS})\b[^`]*)$")
_CONSOLE = re.compile(r"^```console\n.*?^```$", re.DOTALL | re.MULTILINE)

RUN: dict[str, int] = {
    "residentkv check --runtime vllm": 11,
    "residentkv audit trace.jsonl": 0,
    "residentkv audit trace.jsonl --evidence-out evidence.json": 0,
    "residentkv check --runtime vllm --mode offloadable --depth plugin --explain --evidence evidence.json": 11,
    "residentkv anchors verify --runtime vllm": 11,
    "residentkv litmus --runtime reference": 0,
    "residentkv litmus": 0,
    "residentkv suite": 0,
    "residentkv suite --json": 0,
    "residentkv check --all": 10,
    "residentkv check --runtime vllm --format json -o baseline.json": 11,
    "residentkv check --runtime vllm --baseline baseline.json": 0,
    "residentkv rules": 0,
    "residentkv rules RKV25": 0,
    "residentkv explain RKV203": 0,
    "residentkv explain restore-after-reuse": 0,
    "residentkv completion bash": 0,
    "residentkv completion zsh": 0,
    "residentkv schema descriptor": 0,
    "residentkv schema audit": 0,
    "residentkv schema check": 0,
    "residentkv schema suite": 0,
    "residentkv schema statement": 0,
    "residentkv report matrix -o report.html": 10,
    "residentkv report matrix --runtime vllm --evidence evidence.json -o report.html": 11,
    "residentkv report timeline trace.jsonl -o timeline.html": 0,
    "residentkv witness --list": 0,
}
"""Documented commands that run in seconds without vLLM or a network, with their exit codes on such a machine."""

ELSEWHERE = {
    "residentkv demo": "test_documents.py runs it and compares what it prints",
    "residentkv study dynamo": "needs Dynamo; tests/live",
    "residentkv study kvcr": "needs KVCR; tests/live",
    "residentkv anchors fetch kvcr==0.1.0": "needs a package index",
    "residentkv anchors diff --against kvcr==0.1.0": "needs what the command above fetched",
    "residentkv suite --mutants": "tests/suite runs it; about a minute",
    "residentkv witness --scenario success_path --scenario claimed_load_failure --repeat 1": "needs vLLM; tests/live",
    "residentkv witness --scenario success_path --repeat 1": "needs vLLM; tests/live",
    "residentkv litmus --runtime vllm": "needs vLLM; tests/live",
}
"""Documented commands that are not run here, and why."""

REFERENCES = {
    "residentkv anchors add",
    "residentkv anchors diff",
    "residentkv anchors fetch",
    "residentkv anchors verify",
    "residentkv claims",
    "residentkv audit",
    "residentkv check",
    "residentkv study",
    "residentkv witness",
}
"""A command named in a sentence, without what it would need to run."""


def help_texts(node: click.Command, name: str) -> dict[str, str]:
    """The help of a command and of all below it, by name."""
    context = click.Context(node, info_name=name)
    texts = {f"{name} --help": node.get_help(context)}
    if isinstance(node, click.Group):
        for word in node.list_commands(context):
            below = node.get_command(context, word)
            assert below is not None
            texts |= help_texts(below, f"{name} {word}")
    return texts


def commands() -> dict[str, list[str]]:
    """Each documented command without its comment, with the places that have it."""
    texts = {str(p.relative_to(ROOT)): p.read_text() for p in PAGES} | help_texts(residentkv, "residentkv")
    found: dict[str, list[str]] = {}
    for place, text in texts.items():
        lines = [m[1] for line in text.splitlines() if (m := _LINE.match(line))]
        for command in [*_INLINE.findall(text), *lines]:
            words = " ".join(re.sub(r"\s#.*", "", command).split())
            found.setdefault(words, []).append(place)
    return found


def walked() -> set[str]:
    """Commands that stand only where test_walkthroughs.py runs them."""
    blocks = "".join(b for p in PAGES for b in _CONSOLE.findall(p.read_text()))
    return {c for c in COMMANDS if f"$ {c}" in blocks} - RUN.keys()


def has_placeholder(command: str) -> bool:
    """Tell whether a reader has to fill something in."""
    return bool(re.search(r"(^|[ \[/=])[A-Z]+\b|\.\.\.|\[|\*", command))


COMMANDS = commands()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_documented_command_exists(command: str) -> None:
    """The command, its subcommand and every option of it are known to the command line."""
    words = shlex.split(re.sub(r"[\[\]]", " ", command))[1:]
    node: click.Command = residentkv
    context = click.Context(node)
    while isinstance(node, click.Group):
        name = words.pop(0)
        known = node.get_command(context, name)
        assert known is not None, f"{COMMANDS[command]}: no command {name!r}"
        node = known
        if not words:
            break
    options = {o for p in node.params for o in p.opts} | {"--help"}
    unknown = [w for w in words if w.startswith("--") and w.partition("=")[0] not in options]
    assert unknown == [], f"{COMMANDS[command]}: {node.name} has no such option"


def test_every_complete_command_is_run_somewhere() -> None:
    """A command that a reader can paste is run here, or is listed with the reason why not; and none is left over."""
    complete = {c for c in COMMANDS if not has_placeholder(c)} - REFERENCES - walked()
    assert complete == RUN.keys() | ELSEWHERE.keys()


def test_documented_commands_do_what_they_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the order of the table, in one folder, each ends with its exit code and says something."""
    monkeypatch.setenv("RESIDENTKV_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "tests" / "traces" / "reference" / "offloadable.jsonl", "trace.jsonl")
    codes = {}
    for command in RUN:
        codes[command] = main(shlex.split(command)[1:])
        printed = capsys.readouterr()
        assert (printed.out or " -o " in command) and not printed.err, command
    assert codes == RUN


def test_a_judging_command_says_its_exit_codes() -> None:
    """Whoever scripts a command that judges finds in its help what each exit code means, and how it is called."""
    texts = help_texts(residentkv, "residentkv")
    for name in (
        "anchors diff",
        "anchors verify",
        "attest verify",
        "audit",
        "check",
        "claims",
        "demo",
        "litmus",
        "report matrix",
        "report timeline",
        "study",
        "suite",
        "witness",
    ):
        assert "Exit code" in texts[f"residentkv {name} --help"], name
    assert len(texts) > 12


def test_links_between_pages_lead_somewhere() -> None:
    """Every relative link names a file of the repository."""
    broken = [
        f"{page.name}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert broken == []
