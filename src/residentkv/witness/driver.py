"""Run scenarios: group their repetitions by engine settings, start one engine a group, lay out one folder a run.

    OUT/<scenario>/<repetition>/  asked.json  trace.jsonl  requests.json  baseline.json  meta.json  result.json
    OUT/logs/                     what the engines wrote to standard error

A run is kept that has its answers and was asked what its scenario asks now; its folder appears whole, and `result.json`
is the judge's.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from residentkv.environments import model_folder, run_in_runtime
from residentkv.errors import ResidentKVError
from residentkv.files import replace_file
from residentkv.witness.scenario import EngineSettings, Scenario

Progress = Callable[[str], None]
RUNNER = "residentkv.runtimes.vllm.runner"


class WitnessError(ResidentKVError):
    """A run left something that does not fit together."""


class Repetition(msgspec.Struct, frozen=True, kw_only=True):
    """One run to do: its scenario, number and folder."""

    scenario: Scenario
    number: int
    folder: Path

    @property
    def run_id(self) -> str:
        """The id that prompts, claims and events carry."""
        return f"{self.scenario.name}-{self.number:03d}"

    def asked(self) -> bytes:
        """Return all that the run is made from, as text: engine settings and steps."""
        settings = self.scenario.engine
        return msgspec.json.encode(
            {
                "engine": settings.as_job(plugin=True),
                "processes": settings.processes,
                "steps": self.scenario.steps(self.run_id),
                "compared": [*self.scenario.same, *self.scenario.differ],
            }
        )

    def is_done(self) -> bool:
        """Tell whether its answers are there, to what would be asked now: those to other questions are stale."""
        asked = self.folder / "asked.json"
        return (self.folder / "requests.json").is_file() and asked.is_file() and asked.read_bytes() == self.asked()


def plan_runs(scenarios: Iterable[Scenario], out: Path, *, repeat: int | None) -> list[Repetition]:
    """Return the repetitions that are not done yet, in order."""
    runs = [
        Repetition(scenario=s, number=n, folder=out / s.name / f"{n:03d}")
        for s in scenarios
        for n in range(min(s.repeat, repeat) if repeat else s.repeat)
    ]
    return [r for r in runs if not r.is_done()]


def prepare_model() -> Path:
    """Prepare the model folder in the vLLM environment, once; about 15 s."""
    folder = model_folder()
    with tempfile.TemporaryDirectory() as logs:
        run_in_runtime(
            "vllm",
            ["-m", "residentkv.runtimes.vllm.model", str(folder)],
            log=Path(logs) / "model.log",
            what="model preparation",
        )
    return folder


def perform(runs: list[Repetition], out: Path, *, progress: Progress) -> None:
    """Do all runs; first those with the plugin, then the same requests on vLLM without any connector.

    Raises:
        NoInputError: there is no vLLM environment.
        RuntimeFailed: an engine ended with an error.
    """
    groups: dict[EngineSettings, list[Repetition]] = {}
    for run in runs:
        groups.setdefault(run.scenario.engine, []).append(run)
    if not groups:
        return
    model = prepare_model()
    for number, (settings, members) in enumerate(groups.items()):
        work = out / "work" / f"engine-{number}"
        _run_engine(settings, members, work, out / "logs", model, plugin=True, progress=progress)
        compared = [r for r in members if r.scenario.same or r.scenario.differ]
        plain = out / "work" / f"plain-{number}"
        if compared:
            _run_engine(settings, compared, plain, out / "logs", model, plugin=False, progress=progress)
        for segment, run in enumerate(members):
            baseline = plain / f"run-{compared.index(run)}.json" if run in compared else None
            _collect(run, work, segment, baseline)
    shutil.rmtree(out / "work")


def _run_engine(
    settings: EngineSettings,
    runs: list[Repetition],
    work: Path,
    logs: Path,
    model: Path,
    *,
    plugin: bool,
    progress: Progress,
) -> None:
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    job = {
        "engine": settings.as_job(plugin=plugin),
        "model_dir": str(model),
        "runs": [
            {"run_id": r.run_id, "steps": r.scenario.steps(r.run_id) if plugin else _plain_steps(r)} for r in runs
        ],
    }
    path = work / "job.json"
    replace_file(path, msgspec.json.encode(job))
    run_in_runtime(
        "vllm",
        ["-m", RUNNER, str(path), str(work)],
        log=logs / f"{work.name}.log",
        what=f"the engine of {', '.join(sorted({r.scenario.name for r in runs}))}",
        environment={
            "VLLM_ENABLE_V1_MULTIPROCESSING": str(int(settings.processes)),
            "VLLM_LOGGING_LEVEL": "WARNING",
            # One number of threads in both engines of a comparison: sums in another order are other sums.
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": str(os.cpu_count() or 1),
            # Threads that wait by spinning make a run many times slower as soon as something else needs a core.
            "OMP_WAIT_POLICY": "passive",
        },
        on_line=lambda line: progress(line) if line.startswith("run ") else None,
    )


def _plain_steps(run: Repetition) -> list[dict[str, Any]]:
    """Return the compared requests alone, on stock vLLM with its own prefix cache and nothing of ours.

    The caches are not reset between them: a request that reuses a prefix is computed in the same shape as in the
    run it is compared with, so that equal bytes give equal tokens.
    """
    wanted = {*run.scenario.same, *run.scenario.differ}
    requests = [r for step in run.scenario.steps(run.run_id) for r in step.get("batch") or () if r["label"] in wanted]
    return [{"batch": [{**r, "kv_transfer_params": None}]} for r in requests]


def _collect(run: Repetition, work: Path, segment: int, baseline: Path | None) -> None:
    """Move what one run left into its folder, which appears whole."""
    trace = work / f"trace-{segment}.jsonl"
    requests = work / f"run-{segment}.json"
    named = msgspec.json.decode(requests.read_bytes())["run_id"]
    if named != run.run_id:
        raise WitnessError(f"{requests}: found run {named!r}, expected {run.run_id!r}; remove the folder and run again")
    run.folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{run.folder.name}-", dir=run.folder.parent))
    staging.chmod(0o755)
    if trace.is_file():
        shutil.copy(trace, staging / "trace.jsonl")
    shutil.copy(work / "meta.json", staging / "meta.json")
    if baseline is not None:
        shutil.copy(baseline, staging / "baseline.json")
    (staging / "asked.json").write_bytes(run.asked())
    shutil.copy(requests, staging / "requests.json")
    shutil.rmtree(run.folder, ignore_errors=True)
    staging.rename(run.folder)
