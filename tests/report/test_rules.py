"""Rules in a terminal: the same data as the documentation, no line wider than 80 columns, near words named."""

from __future__ import annotations

import subprocess
import sys

import pytest

from residentkv.cli.main import main
from residentkv.report.catalogue import all_rules, find_rule
from residentkv.report.reference import render_rules


def test_every_rule_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """`rules` and `explain` of every rule stay within 80 columns and name code and slug."""
    assert main(["rules"]) == 0
    assert main(["explain", *(r.code for r in all_rules())]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert all(out.count(r.code) >= 2 and r.slug in out for r in all_rules())


def test_an_explanation_says_what_the_documentation_says(capsys: pytest.CaptureFixture[str]) -> None:
    """Every fact of a rule is in the terminal and on the page."""
    page = render_rules()
    for rule in all_rules():
        main(["explain", rule.slug])
        told = " ".join(capsys.readouterr().out.split())
        for label, text in rule.facts():
            assert f"{label}: {text}." in told
            assert text in page.replace("`", "") or text in page


def test_a_rule_is_found_by_code_or_name() -> None:
    """Case does not matter."""
    assert find_rule("rkv203") is find_rule("Trace-Truncated")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["explain", "RKV999"], "expected a code or a name of 'residentkv rules'"),
        (["explain", "restore-before-reuse"], "did you mean 'restore-after-reuse'?"),
        (["rules", "RKV999"], "no rule begins with 'RKV999'"),
        (["completion", "zhs"], "did you mean 'zsh'?"),
        (["check", "--runtime", "vlmm"], "did you mean 'vllm'?"),
        (["check", "--runtime", "vllm", "--mode", "hard_protect"], "did you mean 'hard_protected'?"),
    ],
)
def test_a_near_word_is_named(arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 2 and one line that ends with the word that was probably meant."""
    assert main(arguments) == 2
    assert hint in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_learns_the_commands(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The script names the program and the variable with which the program is asked."""
    assert main(["completion", shell]) == 0
    out = capsys.readouterr().out
    assert "_RESIDENTKV_COMPLETE" in out and "residentkv" in out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("residentkv che", {"check"}),
        ("residentkv check --mode ", {"offloadable", "hard_protected"}),
        ("residentkv check --format s", {"sarif"}),
        ("residentkv explain RKV20", {"RKV203"}),
    ],
)
def test_a_completed_word_exists(words: str, expected: set[str]) -> None:
    """Asked as bash asks, the program offers commands, modes, formats and rules."""
    line = words.split(" ")
    environment = {
        "_RESIDENTKV_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(line) - 1),
        "PATH": "/usr/bin:/bin",
    }
    run = [sys.executable, "-c", "from residentkv.cli.main import main; main([])"]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, check=False)
    offered = {line.partition(",")[2] for line in done.stdout.splitlines()}
    assert expected <= offered
