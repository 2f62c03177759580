"""The environments of the Makefile: kept while their lock file says the same, and never used half-built."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CACHED = {"vllm": "venvs/vllm", "sglang": "venvs/sglang", "dynamo": "venvs/dynamo", "kvcr": "venvs/kvcr"}
CACHED |= {"load": "venvs/load", "docs": "docs"}

PYTHON = """\
#!/bin/sh
# Stands in for an interpreter: `-m venv DIR` makes a folder with a copy of it, `-m pip` leaves a mark or fails.
case "$*" in
  "-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
  *) test -z "$PIP_FAILS" || exit 1; touch "$(dirname "$0")/packages" ;;
esac
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A fresh clone, as far as make is concerned, whose lock files are newer than any environment."""
    shutil.copytree(ROOT / "envs", tmp_path / "envs")
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "python").write_text(PYTHON)
    (tmp_path / "python").chmod(0o755)
    return tmp_path


def stamp(clone: Path, name: str) -> Path:
    """The stamp of an environment, named after its lock file."""
    digest = hashlib.sha256((clone / "envs" / f"{name}.lock").read_bytes()).hexdigest()[:12]
    return clone / "cache" / f"{CACHED[name]}-{digest}" / ".complete"


def make(clone: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run make with a cache of its own."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RESIDENTKV_", "MAKE", "MFLAGS"))}
    environment = {**kept, "RESIDENTKV_CACHE": str(clone / "cache"), **variables}
    command = ["make", f"PYTHON={clone / 'python'}", *words]
    return subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=False)


def test_a_fresh_clone_uses_the_environments_that_are_there(clone: Path) -> None:
    """Every stamp is older than the lock files of the clone; with the digest that it is named after it still counts."""
    stamps = [stamp(clone, name) for name in CACHED]
    for path in stamps:
        path.parent.mkdir(parents=True)
        path.touch()
        os.utime(path, (1, 1))
    done = make(clone, "-n", *map(str, stamps))
    assert (done.returncode, "-m venv" in done.stdout) == (0, False), done.stdout
    (clone / "envs" / "load.lock").write_text("# another\n")
    assert "-m venv" in make(clone, "-n", "env-load").stdout


def test_a_half_built_environment_is_built_anew(clone: Path) -> None:
    """One without a stamp is thrown away; a build that fails leaves none; one that is there is not touched."""
    done = stamp(clone, "load")
    left = done.parent / "left over"
    left.mkdir(parents=True)
    assert make(clone, "env-load", PIP_FAILS="1").returncode != 0
    assert not done.exists() and not left.exists()
    assert make(clone, "env-load").returncode == 0
    assert done.exists() and (done.parent / "bin" / "packages").exists()
    kept = done.parent / "kept"
    kept.touch()
    assert make(clone, "env-load").returncode == 0
    assert kept.exists()
