"""The action and the hooks of this repository: they keep their schemas, and their shell steps do what the page says."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from lxml import etree

from residentkv.cli.main import main
from tests.lowering.site import Site
from tests.report.run import check_of
from tests.report.test_baseline import upgrade

ROOT = Path(__file__).parents[2]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
PAGE = (ROOT / "docs" / "ci.md").read_text()
BIN = Path(sys.executable).parent


def block(name: str) -> str:
    """What stands between two marks of the page."""
    return PAGE.split(f"<!-- {name} -->")[1].split(f"<!-- /{name} -->")[0]


def step(name: str) -> dict[str, Any]:
    """One step of the action."""
    (found,) = [s for s in ACTION["runs"]["steps"] if s["name"] == name]
    return dict(found)


def run_step(name: str, inputs: dict[str, str], temp: Path) -> subprocess.CompletedProcess[str]:
    """Run the shell text of a step as the runner does, with its environment filled in and nothing else changed."""
    known = {k: v.get("default", "") for k, v in ACTION["inputs"].items()} | inputs
    values = {f"inputs.{k}": v for k, v in known.items()} | {"github.action_path": str(ROOT), "runner.temp": str(temp)}
    chosen = step(name)
    environment = {
        key: re.sub(r"\$\{\{ *([a-z._-]+) *\}\}", lambda m: values[m[1]], str(text))
        for key, text in chosen["env"].items()
    }
    assert "${{" not in chosen["run"], "an expression in the script itself could be an injection"
    inherited = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "RESIDENTKV_CACHE", "LANG")}
    script = temp / "step.sh"
    script.write_text(chosen["run"])
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", str(script)],
        env={**inherited, **environment, "GITHUB_OUTPUT": str(temp / "output")},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def temp(site: Site) -> Path:
    """The temporary folder of a runner, in which residentkv is installed: the command of this environment."""
    folder = Path("runner")
    (folder / "residentkv" / "bin").mkdir(parents=True)
    (folder / "residentkv" / "bin" / "residentkv").symlink_to(BIN / "residentkv")
    python = Path("serving/bin/python")
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\necho {shlex.quote(str(site.folder))}\n")
    python.chmod(0o755)
    return folder.resolve()


def check_schema(name: str, path: Path) -> None:
    """Validate a file against the schema that check-jsonschema ships."""
    command = [str(BIN / "check-jsonschema"), "--builtin-schema", f"vendor.{name}", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_action_and_workflow_keep_their_schemas(tmp_path: Path) -> None:
    """The action is a composite action, the example a workflow that uses its inputs."""
    check_schema("github-actions", ROOT / "action.yml")
    workflow = re.search(r"```yaml\n(.*?)```", block("workflow"), re.DOTALL)
    assert workflow is not None
    path = tmp_path / "workflow.yml"
    path.write_text(workflow[1])
    check_schema("github-workflows", path)
    (used,) = [s for s in yaml.safe_load(workflow[1])["jobs"]["claims"]["steps"] if "residentkv" in s.get("uses", "")]
    assert used["with"].keys() <= ACTION["inputs"].keys()
    assert used["with"]["arguments"].split() == ["check", "--runtime", "vllm", "--baseline", "baseline.json"]


def test_an_upgrade_fails_the_build(site: Site, temp: Path) -> None:
    """The worked example: a baseline is written, the runtime upgraded, and the step ends with 10 as the page shows."""
    assert main([*check_of(site), "--format", "json", "-o", "baseline.json"]) == 10
    inputs = {
        "arguments": f"check\n--descriptor\n  {site.descriptor.name}\n\n--baseline\nbaseline.json\n",
        "python": "serving/bin/python",
        "sarif": "out.sarif",
        "junit": "out.xml",
    }
    before = run_step("Judge", inputs, temp)
    assert (before.returncode, (temp / "output").read_text()) == (0, "exit-code=0\n"), before.stderr
    assert "::error" not in before.stdout and json.loads(Path("out.sarif").read_text())["runs"][0]["results"] == []
    upgrade(site, "1.5.0")
    after = run_step("Judge", inputs, temp)
    assert after.returncode == 10
    assert (temp / "output").read_text().endswith("exit-code=10\n")
    shown = [line.removeprefix("    ") for line in block("example").strip("\n").splitlines() if line.strip()]
    for line in shown:
        assert any(printed.startswith(line) for printed in after.stdout.splitlines()), after.stdout
    assert len(json.loads(Path("out.sarif").read_text())["runs"][0]["results"]) == 1
    assert len(etree.parse("out.xml").findall(".//failure")) == 1


def test_words_are_never_a_shell(site: Site, temp: Path) -> None:
    """What stands in an input is one argument a line, whatever is in it."""
    hostile = "--descriptor=$(touch owned); touch owned `touch owned` 'x"
    done = run_step("Judge", {"arguments": f"check\n{hostile}", "python": "serving/bin/python"}, temp)
    assert done.returncode == 3 and not Path("owned").exists()


def test_a_missing_baseline_fails_the_step(site: Site, temp: Path) -> None:
    """Exit 3: a first run without a baseline is not green by accident."""
    words = f"check\n--descriptor\n{site.descriptor.name}\n--baseline\nnowhere.json"
    assert run_step("Judge", {"arguments": words, "python": "serving/bin/python"}, temp).returncode == 3


def test_hooks_keep_the_manifest_and_run(broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """pre-commit accepts the manifest; the audit hook is red for a broken trace, and every entry is a command."""
    manifest = ROOT / ".pre-commit-hooks.yaml"
    command = [str(BIN / "pre-commit"), "validate-manifest", str(manifest)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    hooks = {h["id"]: h for h in yaml.safe_load(manifest.read_text())}
    assert re.search(hooks["residentkv-audit"]["files"], "a/trace.jsonl.zst")
    for hook in hooks.values():
        assert main([*shlex.split(hook["entry"])[1:], "--help"]) == 0
    assert main([*shlex.split(hooks["residentkv-audit"]["entry"])[1:], str(broken)]) == 10
    example = re.search(r"```yaml\n(.*?)```", block("pre-commit"), re.DOTALL)
    assert example is not None
    Path("config.yaml").write_text(example[1])
    command = [str(BIN / "pre-commit"), "validate-config", "config.yaml"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert {h["id"] for h in yaml.safe_load(example[1])["repos"][0]["hooks"]} <= hooks.keys()
