"""One witness run of every scenario, shared by the live tests. Without the vLLM environment they fail, not skip."""

from __future__ import annotations

from pathlib import Path

import pytest

from residentkv.cli.main import main


@pytest.fixture(scope="session")
def witnessed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one repetition of every scenario on a real vLLM."""
    out = tmp_path_factory.mktemp("witness")
    code = main(["--debug", "witness", "--all", "--repeat", "1", "--out", str(out)])
    (out / "exit-code").write_text(str(code))
    return out
