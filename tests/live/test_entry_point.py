"""How the plugin gets into vLLM, and what it does on a version it was not tested with."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

import residentkv
from residentkv import environments
from residentkv.environments import find_python, lay_overlay, run_in_runtime
from residentkv.witness.driver import prepare_model
from residentkv.witness.scenario import EngineSettings
from residentkv.witness.scenarios import SCENARIOS

ASK = (
    "from vllm.plugins import load_general_plugins as load\n"
    "from vllm.distributed.kv_transfer.kv_connector.factory import KVConnectorFactory as F\n"
    "load()\n"
    "load()\n"
    "print(F.get_connector_class_by_name('ResidentOffloadingConnector').__name__)\n"
)


def ask(overlay: Path) -> subprocess.CompletedProcess[str]:
    env = {"PYTHONPATH": str(overlay), "PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1"}
    return subprocess.run([str(find_python("vllm")), "-c", ASK], capture_output=True, text=True, env=env, check=False)


def test_vllm_finds_the_plugin_by_its_entry_point(tmp_path: Path) -> None:
    """vLLM's own loader registers the connector, and loading twice is harmless."""
    done = ask(lay_overlay(tmp_path))
    assert done.stdout.strip().splitlines()[-1:] == ["ResidentOffloadingConnector"], done.stderr[-500:]


def test_without_the_entry_point_vllm_does_not_know_the_connector(tmp_path: Path) -> None:
    """The negative: the same loader with no metadata on the path registers nothing."""
    overlay = lay_overlay(tmp_path)
    for metadata in overlay.glob("*.dist-info"):
        shutil.rmtree(metadata)
    done = ask(overlay)
    assert done.returncode != 0
    assert "ResidentOffloadingConnector" in done.stderr


def test_untested_vllm_version_accepts_no_claim_and_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With another version on the tested list the claim is rejected with one clear message; the request is served."""
    package = tmp_path / "package" / "residentkv"
    shutil.copytree(Path(residentkv.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    versions = package / "runtimes" / "vllm" / "versions.py"
    text = versions.read_text()
    assert 'frozenset({"0.32.0"})' in text
    versions.write_text(text.replace('frozenset({"0.32.0"})', 'frozenset({"0.31.0"})'))

    def lay(folder: Path) -> Path:
        overlay = lay_overlay(folder)
        (overlay / "residentkv").unlink()
        (overlay / "residentkv").symlink_to(package, target_is_directory=True)
        return overlay

    monkeypatch.setattr(environments, "lay_overlay", lay)
    job = {
        "engine": EngineSettings(log=False).as_job(plugin=True),
        "model_dir": str(prepare_model()),
        "runs": [{"run_id": "untested-000", "steps": SCENARIOS["success_path"].steps("untested-000")[:1]}],
    }
    (tmp_path / "job.json").write_text(json.dumps(job))
    out, log = tmp_path / "out", tmp_path / "log"
    run_in_runtime(
        "vllm",
        ["-m", "residentkv.runtimes.vllm.runner", str(tmp_path / "job.json"), str(out)],
        log=log,
        what="the engine",
        environment={"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "WARNING"},
    )
    (record,) = json.loads((out / "run-0.json").read_text())["requests"]
    assert record["finish_reason"] == "length"
    assert record["kv_transfer_params"]["resident_claim"]["decision"] == "rejected"
    assert record["kv_transfer_params"]["resident_claim"]["reason"] == "vllm_untested"
    assert "is not in the tested list (0.31.0)" in log.read_text()
