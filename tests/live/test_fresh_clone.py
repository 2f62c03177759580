"""The tutorial followed literally in a fresh clone, its shell lines as they stand on the page, and timed."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from tests.test_walkthroughs import ROOT, assert_shown, commands_of

PAGE = ROOT / "docs" / "tutorial.md"


def test_the_tutorial_works_in_a_fresh_clone(tmp_path: Path, record_property: pytest.RecordProperty) -> None:
    """Install, then every command in one shell session; prints how long it took."""
    (install,) = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV", "PYTEST_CURRENT_TEST")}
    environment |= {"RESIDENTKV_CACHE": str(tmp_path / "cache")}
    lines = ["set -e", install.replace("REPOSITORY", str(ROOT)), "set +e"]
    shown = list(commands_of(PAGE))
    for number, command in enumerate(shown):
        lines += [f"echo '--- {number}'", command.command, 'echo "=== $?"']
    start = time.monotonic()
    done = subprocess.run(
        ["bash", "-c", "\n".join(lines)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    seconds = time.monotonic() - start
    parts = re.split(r"^--- \d+\n", done.stdout, flags=re.MULTILINE)[1:]
    assert len(parts) == len(shown), done.stderr[-2000:]
    for command, part in zip(shown, parts, strict=True):
        *printed, code = part.splitlines()
        assert code == f"=== {command.code}", f"{command.command}: {part}"
        assert_shown(command, [line.rstrip() for line in printed])
    record_property("seconds", round(seconds))
    print(f"the tutorial took {seconds:.0f} s, installation included")
