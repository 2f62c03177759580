"""The hint envelope on the real engine: vLLM 0.32 carries it in its Python API, and the answer comes back."""

from __future__ import annotations

import json
from pathlib import Path

from residentkv.audit.api import audit_file
from residentkv.audit.model import Verdict
from residentkv.environments import run_in_runtime
from tests.live.test_plugin import PROBE, TINY_MODEL


def test_a_claim_and_its_release_come_in_by_the_envelope(tmp_path: Path) -> None:
    """They are answered like what kv_transfer_params says, and the log conforms."""
    model, out = tmp_path / "model", tmp_path / "out"
    model.mkdir()
    out.mkdir()
    (model / "config.json").write_text(json.dumps(TINY_MODEL))
    run_in_runtime(
        "vllm",
        [str(PROBE), "hints", str(out), str(model)],
        log=tmp_path / "log",
        what="probe hints",
        environment={"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "WARNING"},
    )
    seen = json.loads((out / "seen.json").read_text())
    assert seen["claim"]["resident_claim"]["decision"] == "accepted"
    assert [r["released"] for r in seen["release"]["resident_claim_release"]] == [True]
    assert audit_file(out / "trace.jsonl").verdict is Verdict.CONFORMING
