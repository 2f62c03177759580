"""The witness without vLLM: what it plans, where it looks, what it counts; the live tests show the rest."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from residentkv.audit.api import audit_file
from residentkv.cli.witness import judge_scenario
from residentkv.environments import find_python, lay_overlay
from residentkv.errors import NoInputError
from residentkv.runtimes.vllm.faults import FaultPlan
from residentkv.trace.reader import read_trace
from residentkv.witness.driver import WitnessError, plan_runs
from residentkv.witness.judge import judge_run, pass_gates
from residentkv.witness.scenarios import SCENARIOS
from residentkv.witness.table import render_markdown, summarize

TRACES = Path(__file__).parent.parent / "traces" / "vllm"


@pytest.mark.parametrize("name", SCENARIOS)
def test_fault_plans_of_scenarios_are_plans(name: str) -> None:
    """What a scenario hands to the tier is what the public fault interface reads."""
    for step in SCENARIOS[name].steps("run-000"):
        if "faults" in step:
            msgspec.convert(step["faults"], FaultPlan, strict=True)


def test_labels_that_are_judged_are_asked() -> None:
    """A scenario expects nothing of a request that it does not make."""
    for scenario in SCENARIOS.values():
        asked = {r["label"] for step in scenario.steps("run-000") for r in step.get("batch") or ()}
        judged = {*scenario.served, *scenario.refused, *scenario.same, *scenario.differ}
        judged |= {label for label, _ in (*scenario.names, *scenario.decisions)}
        assert judged and judged <= asked, scenario.name


def test_a_reuse_is_compared_with_a_reuse() -> None:
    """Outputs are equal only in equal shapes: the engine without a connector has to have the prefix cached as well."""
    compared = 0
    for scenario in SCENARIOS.values():
        asked = [r for step in scenario.steps("run-000") for r in step.get("batch") or ()]
        kept = {*scenario.same, *scenario.differ}
        for i, r in enumerate(asked):
            if r["label"] in kept and r["suffix_tokens"] and r["label"] != "fails":
                compared += 1
                before = {q["label"] for q in asked[:i] if q["prompt_seed"] == r["prompt_seed"]}
                assert before & kept, (scenario.name, r["label"])
    assert compared > 8


def test_runs_that_are_done_are_not_planned_again(tmp_path: Path) -> None:
    """A folder with its answers counts as done; the number of repetitions is bounded by the scenario's own."""
    scenario = SCENARIOS["zeroed_tier_control"]
    done = plan_runs([scenario], tmp_path, repeat=2)[1]
    done.folder.mkdir(parents=True)
    (done.folder / "requests.json").write_text("{}")
    (done.folder / "asked.json").write_bytes(done.asked())
    assert [r.number for r in plan_runs([scenario], tmp_path, repeat=3)] == [0, 2]
    assert len(plan_runs([scenario], tmp_path, repeat=1000)) == scenario.repeat - 1


@pytest.mark.parametrize("stale", ["engine", "steps", "expectations", "nothing"])
def test_runs_that_were_asked_something_else_are_planned_again(tmp_path: Path, stale: str) -> None:
    """An answer to an older scenario of the same name is none to this one; what is expected may change meanwhile."""
    scenario = SCENARIOS["success_path"]
    (done,) = plan_runs([scenario], tmp_path, repeat=1)
    done.folder.mkdir(parents=True)
    (done.folder / "requests.json").write_text("{}")
    assert plan_runs([scenario], tmp_path, repeat=1), "nothing says what it was asked"
    (done.folder / "asked.json").write_bytes(done.asked())
    changes: dict[str, dict[str, Any]] = {
        "engine": {"engine": dataclasses.replace(scenario.engine, usable_blocks=64)},
        "steps": {"steps": SCENARIOS["failure_then_success"].steps},
        "expectations": {"observes": False},
        "nothing": {},
    }
    now = dataclasses.replace(scenario, **changes[stale])
    assert bool(plan_runs([now], tmp_path, repeat=1)) is (stale in ("engine", "steps"))


def test_an_environment_that_is_not_there_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither named nor built, or named wrongly: the message says how to build one."""
    monkeypatch.delenv("RESIDENTKV_VLLM_PYTHON", raising=False)
    monkeypatch.setenv("RESIDENTKV_CACHE", str(tmp_path))
    with pytest.raises(NoInputError, match="make env-vllm"):
        find_python("vllm")
    monkeypatch.setenv("RESIDENTKV_VLLM_PYTHON", str(tmp_path / "python"))
    with pytest.raises(NoInputError, match="does not exist"):
        find_python("vllm")


def test_the_environment_built_last_is_found_and_a_half_built_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a folder with its stamp counts."""
    monkeypatch.delenv("RESIDENTKV_VLLM_PYTHON", raising=False)
    monkeypatch.setenv("RESIDENTKV_CACHE", str(tmp_path))
    for age, name in enumerate(("vllm-new", "vllm-old", "vllm-half")):
        folder = tmp_path / "venvs" / name
        folder.mkdir(parents=True)
        if name != "vllm-half":
            (folder / ".complete").touch()
            os.utime(folder / ".complete", (1000 - age, 1000 - age))
    assert find_python("vllm") == tmp_path / "venvs" / "vllm-new" / "bin" / "python"


def test_the_overlay_holds_this_package_and_its_entry_point_only(tmp_path: Path) -> None:
    """Nothing else of the core environment gets onto the path of the runtime."""
    names = sorted(p.name for p in lay_overlay(tmp_path).iterdir())
    assert names[0] == "residentkv" and len(names) == 2
    assert "residentkv.runtimes.vllm.plugin:register" in (tmp_path / names[1] / "entry_points.txt").read_text()


def run_folder(tmp_path: Path, scenario: str, trace: Path) -> Path:
    """A run folder around a recorded trace, with answers as its scenario expects them."""
    folder = tmp_path / "000"
    folder.mkdir()
    (folder / "trace.jsonl").write_bytes(trace.read_bytes())
    run_id = json.loads(trace.read_text().splitlines()[0])["run_id"]
    s = SCENARIOS[scenario]
    named = {label: {"claim_id": f"{run_id}:{name}"} for label, name in s.names}
    requests = [
        {
            "label": label,
            "started_ns": 0,
            "first_token_ns": 5_000_000,
            "finished_ns": 9_000_000,
            "finish_reason": "error" if label in s.refused else "length",
            "output_token_ids": [1, 2],
            "kv_transfer_params": {"resident_claim_refusal": named.get(label)},
        }
        for label in (*s.served, *s.refused)
    ]
    for name in ("requests.json", "baseline.json"):
        (folder / name).write_text(json.dumps({"run_id": run_id, "requests": requests}))
    return folder


def recorded(name: str) -> Path:
    """The recorded trace of a scenario."""
    (path,) = (p for p in TRACES.glob("*.jsonl") if p.stem == name)
    return path


@pytest.mark.parametrize(
    ("name", "gates"),
    [("success_path", (True, False)), ("claimed_load_failure", (False, True)), ("retry_restored", (True, False))],
)
def test_gates_pass_on_recorded_runs_and_not_without_their_event(
    name: str, gates: tuple[bool, bool], tmp_path: Path
) -> None:
    """Observation needs reuse after restore, the failure outcome needs the refusal; without it the gate is shut."""
    trace = recorded(name)
    events = [e for chunk in read_trace(trace) for e in chunk]
    assert pass_gates(audit_file(trace), list(events)) == gates
    needed = "resident_claim_reuse_after_restore" if gates[0] else "scheduler_active_request_refused"
    lines = [json.loads(x) for x in trace.read_text().splitlines()]
    kept = [{**e, "seq": i} for i, e in enumerate(x for x in lines if x["event"] != needed)]
    cut = tmp_path / "cut.jsonl"
    cut.write_text("".join(json.dumps(e, separators=(",", ":")) + "\n" for e in kept))
    left = [e for chunk in read_trace(cut) for e in chunk]
    assert pass_gates(audit_file(cut), list(left)) == (False, False)


def test_a_run_is_judged_from_its_files_and_each_expectation_can_fail(tmp_path: Path) -> None:
    """As recorded everything is met; with another scenario's trace in its place it is not."""
    scenario = SCENARIOS["success_path"]
    folder = run_folder(tmp_path, "success_path", recorded("success_path"))
    good, _ = judge_run(scenario, folder)
    assert good.passed and not good.false_positive
    foreign = recorded("claimed_load_failure").read_bytes()
    (folder / "trace.jsonl").write_bytes(foreign.replace(b'"claimed_load_failure-000"', b'"success_path-000"'))
    bad, _ = judge_run(scenario, folder)
    assert not bad.passed and bad.false_positive
    table = render_markdown(summarize([good, bad]))
    assert "| success_path | 2 | 1 | 1 | 1 | 1 |" in table


def test_the_time_to_a_refusal_is_that_of_its_own_line(tmp_path: Path) -> None:
    """Events of one scheduler instant share mono_ns: the interval is read from when each was written, never 0."""
    folder = run_folder(tmp_path, "claimed_load_failure", recorded("claimed_load_failure"))
    trace = folder / "trace.jsonl"
    lines = [json.loads(x) for x in trace.read_text().splitlines()]
    failed = next(e for e in lines if e["event"] == "offload_worker_transfer_finished" and not e["success"])
    for event in lines:
        if event["event"] == "scheduler_resident_claim_restoration_failed":
            event.update(mono_ns=failed["mono_ns"], wall_ns=failed["wall_ns"] + 20_000)
        if event["event"] == "scheduler_active_request_refused":
            event.update(mono_ns=failed["mono_ns"], wall_ns=failed["wall_ns"] + 27_000)
    trace.write_text("".join(json.dumps(e, separators=(",", ":")) + "\n" for e in lines))
    result, _ = judge_run(SCENARIOS["claimed_load_failure"], folder)
    assert result.scheduler_to_refusal_ns == 7_000
    assert result.failed_transfer_to_scheduler_ns == failed["mono_ns"] - failed["worker_end_ns"] + 20_000
    assert result.failed_transfer_to_refusal_ns == result.failed_transfer_to_scheduler_ns + 7_000


def test_the_trace_of_another_run_shows_nothing(tmp_path: Path) -> None:
    """A perfect trace, and not of the run that was asked."""
    folder = run_folder(tmp_path, "success_path", recorded("success_path"))
    trace = folder / "trace.jsonl"
    trace.write_bytes(trace.read_bytes().replace(b'"run_id":"success_path-000"', b'"run_id":"success_path-001"'))
    result, _ = judge_run(SCENARIOS["success_path"], folder)
    assert not result.observation
    assert {c.name for c in result.checks if not c.passed} == {"observation passes", "the trace is of the run"}


def test_a_run_that_was_copied_is_not_counted_twice(tmp_path: Path) -> None:
    """Every folder holds its own run."""
    folder = run_folder(tmp_path, "success_path", recorded("success_path"))
    out = tmp_path / "out"
    shutil.copytree(folder, out / "success_path" / "000")
    assert len(judge_scenario(SCENARIOS["success_path"], out)) == 1
    shutil.copytree(folder, out / "success_path" / "001")
    with pytest.raises(WitnessError, match="found run 'success_path-000', expected 'success_path-001'"):
        judge_scenario(SCENARIOS["success_path"], out)


@pytest.mark.parametrize("cut", [1, 400])
def test_a_torn_trace_is_judged_and_its_sequence_is_not_valid(tmp_path: Path, cut: int) -> None:
    """Torn or without its last line: the run is not as expected, and the others are still told."""
    folder = run_folder(tmp_path, "success_path", recorded("success_path"))
    trace = folder / "trace.jsonl"
    data = trace.read_bytes()
    trace.write_bytes(data[:-1] if cut == 1 else data[: data.rstrip(b"\n").rfind(b"\n") + 1])
    result, _ = judge_run(SCENARIOS["success_path"], folder)
    assert not result.passed and not result.observation and not result.sequence_valid


def test_times_are_of_one_failure_and_not_of_the_first_of_each(tmp_path: Path) -> None:
    """Two loads fail, and the second one is told first: its own transfer, its own refusal."""
    folder = run_folder(tmp_path, "two_failures_in_one_step", recorded("two_failures_in_one_step"))
    trace = folder / "trace.jsonl"
    lines = [json.loads(x) for x in trace.read_text().splitlines()]
    told = [e for e in lines if e["event"] == "scheduler_resident_claim_restoration_failed"]
    refused = {e["request_id"]: e for e in lines if e["event"] == "scheduler_active_request_refused"}
    loads = {e["job_id"]: e for e in lines if e["event"] == "offload_worker_transfer_finished" and not e["success"]}
    assert len(told) == len(refused) == len(loads) == 2
    told[0]["job_id"], told[1]["job_id"] = told[1]["job_id"], told[0]["job_id"]
    refused[told[0]["request_id"]]["wall_ns"] = told[0]["wall_ns"] + 9_000
    trace.write_text("".join(json.dumps(e, separators=(",", ":")) + "\n" for e in lines))
    result, _ = judge_run(SCENARIOS["two_failures_in_one_step"], folder)
    own = loads[told[0]["job_id"]]
    assert result.scheduler_to_refusal_ns == 9_000
    expected = own["mono_ns"] - own["worker_end_ns"] + told[0]["wall_ns"] - own["wall_ns"]
    assert result.failed_transfer_to_scheduler_ns == expected
