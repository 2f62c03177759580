"""The install steps of the action and of the hooks, run literally: they build residentkv and its dependencies anew."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.report.test_ci import ROOT, run_step

BIN = Path(sys.executable).parent


def test_the_action_installs_a_command_that_judges(tmp_path: Path) -> None:
    """The first step makes the environment that the second one uses, without the extras and tools of development."""
    done = run_step("Install residentkv", {"python": sys.executable}, tmp_path)
    assert done.returncode == 0, done.stderr
    inputs = {"arguments": "suite\n--case\nttl-call-as-acceptance", "python": sys.executable}
    judged = run_step("Judge", inputs, tmp_path)
    assert judged.returncode == 0, judged.stderr
    assert judged.stdout.startswith("residentkv: 1 pass, 0 violated, 0 unknown")


def test_pre_commit_runs_the_audit_hook(tmp_path: Path) -> None:
    """In a repository with one good and one torn trace, the hook is red, and green without the torn one."""
    source = (ROOT / "tests" / "traces" / "reference" / "offloadable.jsonl").read_bytes()
    (tmp_path / "good.jsonl").write_bytes(source)
    (tmp_path / "torn.jsonl").write_bytes(source[:-20])
    environment = {**os.environ, "PRE_COMMIT_HOME": str(tmp_path / "cache"), "GIT_CONFIG_GLOBAL": os.devnull}

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    for command in (("git", "init", "-q"), ("git", "add", "good.jsonl", "torn.jsonl")):
        assert run(*command).returncode == 0
    hook = (str(BIN / "pre-commit"), "try-repo", str(ROOT), "residentkv-audit", "--files")
    both = run(*hook, "good.jsonl", "torn.jsonl")
    assert both.returncode == 1 and "exit code: 11" in both.stdout, both.stdout + both.stderr
    good = run(*hook, "good.jsonl")
    assert good.returncode == 0 and "Passed" in good.stdout, good.stdout + good.stderr
