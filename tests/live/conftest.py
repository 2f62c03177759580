"""One witness run of every scenario, shared by the live tests. Without the vLLM environment they fail, not skip."""

from __future__ import annotations

from pathlib import Path

import pytest

from residentkv.cli.main import main

PATIENCE_S = 1800
"""A session fixture runs every scenario; on a busy machine that takes longer than a test may take elsewhere."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the live tests more time than the others have; no test here judges how long something takes."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.timeout(PATIENCE_S))


@pytest.fixture(scope="session")
def witnessed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one repetition of every scenario on a real vLLM."""
    out = tmp_path_factory.mktemp("witness")
    code = main(["--debug", "witness", "--all", "--repeat", "1", "--out", str(out)])
    (out / "exit-code").write_text(str(code))
    return out
