"""Measure cells of the capacity litmus on real vLLM: `python -m residentkv.runtimes.vllm.capacity JOB.json OUT_DIR`.

Runs in the environment that has vLLM. One engine a size of the cache, and one more without any plugin for what vLLM
does by itself; it writes what vLLM answered to OUT_DIR/cells.json, the traces beside it, and judges nothing.
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from residentkv.files import replace_file
from residentkv.runtimes.vllm.runner import Engine, Job, Request, Run, Session, Step, describe

BLOCK_TOKENS = 32
TIER_BYTES = 1 << 20
NOT_LOADED = {"max_load_tokens": 0}
"""A request with this finds what lies in the primary tier, and nothing else."""


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One cell: sizes in blocks, and how the resident prefix and the active request are treated."""

    name: str
    policy: str
    usable_blocks: int
    resident_blocks: int
    active_blocks: int


class CapacityJob(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The cells to measure; `stands_in` goes to the head of every trace, `options` to the plugin."""

    model_dir: str
    cases: list[Case]
    stands_in: list[str]
    options: dict[str, Any] = {}


def requests_of(case: Case) -> list[Request]:
    """Return the resident prompt, the active one, and the resident one again with one token more."""
    claim = {
        "claim_id": "resident",
        "owner_scope": "owner",
        "mode": "hard_protected",
        "predicate": f"leading_prefix_at_least({case.resident_blocks})",
    }
    protected = {"resident_claim": claim} if case.policy == "hard_protected" else None
    keep = {"resident_keep_kv": False} if case.policy == "write_no_admit" else None
    resident, active = case.resident_blocks * BLOCK_TOKENS, case.active_blocks * BLOCK_TOKENS
    return [
        Request(
            label="resident",
            prompt_seed=f"{case.name}/resident",
            tokens=resident,
            max_tokens=1,
            kv_transfer_params=protected,
        ),
        Request(
            label="active", prompt_seed=f"{case.name}/active", tokens=active, max_tokens=1, kv_transfer_params=keep
        ),
        Request(
            label="again",
            prompt_seed=f"{case.name}/resident",
            tokens=resident,
            suffix_tokens=1,
            max_tokens=1,
            kv_transfer_params=protected or NOT_LOADED,
        ),
    ]


def measure(job: CapacityJob, out: Path) -> list[dict[str, Any]]:
    """Measure all cells, those of one engine together."""
    groups: dict[tuple[int, bool], list[Case]] = {}
    for case in job.cases:
        groups.setdefault((case.usable_blocks, case.policy != "native"), []).append(case)
    cells = []
    for (usable_blocks, plugin), cases in groups.items():
        longest = max(max(c.resident_blocks, c.active_blocks) for c in cases)
        engine = Engine(
            plugin=plugin,
            usable_blocks=usable_blocks,
            block_size=BLOCK_TOKENS,
            max_model_len=(longest + 1) * BLOCK_TOKENS,
            tier_bytes=TIER_BYTES,
            options={"stands_in": job.stands_in, **job.options},
            random_weights=True,
        )
        one = Job(
            engine=engine,
            model_dir=job.model_dir,
            runs=[Run(run_id=case.name, steps=[Step(batch=[r]) for r in requests_of(case)]) for case in cases],
        )
        replace_file(out / f"meta-{usable_blocks}-{plugin:d}.json", json.dumps(describe(one), indent=1).encode())
        session = Session(one, out)
        for case, run in zip(cases, one.runs, strict=True):
            records = session.run(run, out / f"{case.name}.jsonl")
            cells.append({"name": case.name, "requests": records})
            print(f"cell {len(cells)}/{len(job.cases)} {case.name}", flush=True)
        session.stop()
        del session
        gc.collect()
    return cells


def main(argv: list[str]) -> int:
    """Measure the cells of a job."""
    job = msgspec.json.decode(Path(argv[1]).read_bytes(), type=CapacityJob)
    out = Path(argv[2])
    out.mkdir(parents=True, exist_ok=True)
    replace_file(out / "cells.json", json.dumps(measure(job, out), indent=1).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
