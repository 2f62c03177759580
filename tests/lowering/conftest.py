"""Fixtures of the lowering tests: every one works on files of its own and on an empty cache folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lowering.site import Site, build_site


@pytest.fixture(autouse=True)
def empty_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No environment or archive of this machine takes part in a test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("RESIDENTKV_CACHE", str(folder))
    return folder


@pytest.fixture
def site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Site:
    """A package and a descriptor with pinned anchors."""
    made = build_site(tmp_path)
    capsys.readouterr()
    return made
