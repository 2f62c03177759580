"""Fixtures of the report tests: a descriptor about a small package, and a trace with a broken promise."""

from __future__ import annotations

from pathlib import Path

import pytest

from residentkv.cli.main import main
from tests.lowering.site import Site, build_site

BROKEN = "hard_protected"


@pytest.fixture(autouse=True)
def empty_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No environment or archive of this machine takes part in a test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("RESIDENTKV_CACHE", str(folder))
    return folder


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Site:
    """A package and a descriptor with pinned anchors, below the current folder."""
    monkeypatch.chdir(tmp_path)
    made = build_site(tmp_path)
    capsys.readouterr()
    return made


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """A trace of the reference runtime in which a promise is broken, below the current folder."""
    monkeypatch.chdir(tmp_path)
    arguments = ["--workload", BROKEN, "--off", "victim_exclusion", "--out", "broken"]
    assert main(["reference", "run", *arguments]) == 0
    capsys.readouterr()
    (trace,) = Path("broken").iterdir()
    return trace
