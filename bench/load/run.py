"""Do a load: two servers one after another, the same requests to both, and what they leave in one folder.

OUT/plan.json  trace.jsonl  claims.jsonl  stock.jsonl  result.json  result.md  logs/
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from bench.load.judge import Answers, Evidence, count_claims, read_answers
from bench.load.plan import Item, Kind, Plan, Shape, make_plan
from bench.load.server import Server, command_line, free_port, serving
from residentkv.audit import audit_file
from residentkv.environments import RuntimeFailed, run_in_runtime
from residentkv.errors import NoInputError
from residentkv.files import cache_dir, replace_file
from residentkv.runtimes.vllm.faults import Fault, FaultPlan, write_plan

HERE = Path(__file__).parent
LOCUST_VARIABLE = "RESIDENTKV_LOCUST_PYTHON"
REQUESTS_A_SECOND = 250
"""More requests than any server answers here; the plan has so many for each second of load."""
STOCK_SHARE = 4
"""Stock vLLM gets the first requests of the plan again, one of so many, and each prompt at least once."""
CONTROLS = 5
ROW_BYTES = 2 * 2 * 2 * 32 * 32 * 4
"""Bytes of one block: keys and values, two layers, two heads of 32 numbers of 4 bytes, 32 tokens."""

Progress = Callable[[str], None]


def find_locust() -> Path:
    """Return the interpreter that has Locust: the one named, else that of the environment built last.

    Raises:
        NoInputError: there is none.
    """
    named = os.environ.get(LOCUST_VARIABLE)
    built = sorted((cache_dir() / "venvs").glob("load-*/.complete"), key=lambda stamp: stamp.stat().st_mtime_ns)
    python = Path(named) if named else built[-1].parent / "bin" / "python" if built else None
    if python is None or not python.is_file():
        raise NoInputError(f"found no environment with Locust ({LOCUST_VARIABLE}: {named}); run 'make env-load'")
    return python


def drive(
    server: Server, plan_path: Path, records: Path, log: Path, *, claims: bool, duration_s: float, items: Sequence[Item]
) -> Answers:
    """Let Locust make requests: those of `items`, or those of the plan until the time is over; return the answers.

    Raises:
        RuntimeFailed: Locust ended without a complete record.
    """
    task = {
        "plan": str(plan_path),
        "records": str(records),
        "claims": claims,
        "duration_s": duration_s,
        "items": msgspec.to_builtins(list(items)),
    }
    task_path = records.with_suffix(".task.json")
    replace_file(task_path, msgspec.json.encode(task))
    clients = msgspec.json.decode(plan_path.read_bytes(), type=Plan).shape.clients
    command = [str(find_locust()), "-m", "locust", "--headless", "--only-summary", "-f", str(HERE / "locustfile.py")]
    command += ["-u", str(clients), "-r", str(clients), "--host", server.url]
    with log.open("wb") as sink:
        done = subprocess.run(
            command,
            env=os.environ | {"LOAD_TASK": str(task_path)},
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if not records.is_file():
        raise RuntimeFailed(f"locust ended with {done.returncode} and left no records; see {log}")
    return read_answers(records)


def complete(server: Server, body: dict[str, Any]) -> list[int]:
    """Make one request that is not streamed and return its tokens."""
    answer = server.ask("/v1/completions", {"model": "load", "temperature": 0, "return_token_ids": True, **body})
    tokens: list[int] = answer["choices"][0]["token_ids"]
    return tokens


def release(server: Server, claims: Sequence[dict[str, Any]]) -> None:
    """Let claims go, each in the name of its owner."""
    names = [{"claim_id": c["claim_id"], "owner_scope": c["owner_scope"]} for c in claims]
    body = {"prompt": [5, 6, 7], "max_tokens": 1, "kv_transfer_params": {"resident_claim_release": names}}
    complete(server, body)


def control(server: Server, plan: Plan, faults: Path) -> list[tuple[int, list[int]]]:
    """Overwrite what the second tier gives back, and ask for some prompts again: their answers must change."""
    server.ask("/reset_prefix_cache", {})
    write_plan(faults, FaultPlan(faults=(Fault(action="zero"),)))
    chosen = [n * plan.shape.variants for n in range(len(plan.kinds) // plan.shape.variants)]
    hard = [p for p in chosen if plan.kinds[p] is Kind.HARD][:CONTROLS]
    shape = plan.shape
    return [
        (p, complete(server, {"prompt": plan.prompts[p], "max_tokens": shape.max_tokens, "ignore_eos": True}))
        for p in hard
    ]


def prepare_model(folder: Path, logs: Path) -> Path:
    """Make the tiny model if it is not there."""
    if not (folder / "tokenizer.json").is_file():
        staging = folder.with_name(f".{folder.name}-{os.getpid()}")
        run_in_runtime(
            "vllm", [str(HERE / "tiny_model.py"), str(staging)], log=logs / "model.log", what="the tiny model"
        )
        shutil.rmtree(folder, ignore_errors=True)
        staging.rename(folder)
    return folder


def load(shape: Shape, out: Path, *, duration_s: float, options: dict[str, Any], progress: Progress) -> Evidence:
    """Do everything and return what there is to judge by.

    Args:
        duration_s: how long the server with claims is under load.
        options: more `PluginOptions`.
    """
    find_locust()
    shutil.rmtree(out, ignore_errors=True)
    logs = out / "logs"
    logs.mkdir(parents=True)
    model = prepare_model(out / "model", logs)
    plan = make_plan(shape, max(int(duration_s * REQUESTS_A_SECOND), 2 * (shape.hard + shape.soft)))
    plan_path = out / "plan.json"
    replace_file(plan_path, msgspec.json.encode(plan))
    faults, trace = out / "faults.json", out / "trace.jsonl"
    settings = {"trace_path": str(trace), "run_id": "load", "faults_path": str(faults), "tier_dir": str(out)} | options
    port = free_port()
    with (
        tempfile.TemporaryDirectory(prefix="residentkv-") as short,  # The path of a socket may not be long.
        serving(
            command_line(shape, model, port, settings | {"socket_path": f"{short}/claims.sock"}, ROW_BYTES),
            port,
            logs / "claims.log",
            socket_path=f"{short}/claims.sock",
        ) as server,
    ):
        progress(f"vLLM with claims: {shape.clients} clients for {duration_s:.0f} s")
        server.samples.clear()
        claimed = drive(
            server,
            plan_path,
            out / "claims.jsonl",
            logs / "locust-claims.log",
            claims=True,
            duration_s=duration_s,
            items=(),
        )
        memory = list(server.samples)
        claims = list({c["claim_id"]: c for c in plan.claims if c is not None}.values())
        progress(f"{len(claimed.records)} requests; now half of the claims are released by their owners")
        release(server, claims[::2])
        release(server, [c for c in claims if c["mode"] in ("hard_protected", "soft_priority")])
        changed = control(server, plan, faults)
        server.stop()

    served = sorted({r.prompt for r in claimed.records} | {p for p, _ in changed})
    items = claimed.items[: max(2 * len(plan.prompts), len(claimed.records) // STOCK_SHARE)]
    items += [Item(p) for p in served if p not in {i.prompt for i in items}]
    port = free_port()
    with serving(command_line(shape, model, port, None, ROW_BYTES), port, logs / "stock.log") as server:
        progress(f"stock vLLM: {len(items)} of the same requests")
        stock = drive(
            server,
            plan_path,
            out / "stock.jsonl",
            logs / "locust-stock.log",
            claims=False,
            duration_s=0.0,
            items=items,
        )
        server.stop()
    progress("audit of the log")
    start = time.monotonic()
    report = audit_file(trace)
    progress(f"{report.events} events in {time.monotonic() - start:.1f} s")
    return Evidence(
        plan=plan,
        claimed=claimed,
        stock=stock,
        report=report,
        counts=count_claims(trace),
        memory=memory,
        control=changed,
    )
