"""One minute of `make soak`: a real server with claims under load, judged by its log, its answers and its memory."""

from __future__ import annotations

import json
from typing import Any

import pytest
from bench.load.__main__ import main


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The result of one load."""
    out = tmp_path_factory.mktemp("load")
    code = main(["--duration", "60", "--out", str(out / "load")])
    found: dict[str, Any] = json.loads((out / "load" / "result.json").read_text())
    return found | {"exit": code, "out": out / "load"}


def test_every_condition_holds_under_load(result: dict[str, Any]) -> None:
    """0 harmed hard claims, 0 wrong outputs, 0 hangs, one outcome a claim, flat memory; a control that can fail."""
    assert [c for c in result["conditions"] if c["truth"] != "holds"] == []
    assert (result["exit"], result["verdict"]) == (0, "holds")


def test_the_load_was_the_one_that_was_asked_for(result: dict[str, Any]) -> None:
    """20 clients, 2 owners, 50 hard and 200 soft claims; claims ended in more than one way, both engines reused."""
    shape = result["shape"]
    assert (shape["clients"], shape["owners"], shape["hard"], shape["soft"]) == (20, 2, 50, 200)
    assert result["claims"]["accepted"]["hard"] >= 50 and result["claims"]["accepted"]["soft"] >= 200
    outcomes = {name.split()[1] for name in result["claims"]["ended"]}
    assert {"released", "expired"} <= outcomes
    for engine in ("claims", "stock"):
        assert [row["kind"] for row in result["reuse"][engine]] == ["hard", "soft", "unclaimed", "hard and soft"]
        assert all(row["requests"] > 0 and row["hit_rate"] is not None for row in result["reuse"][engine])
    assert "| condition | found |" in (result["out"] / "result.md").read_text()
