"""`python -m bench.witness DIR`: the tables of a finished `residentkv witness --all`, written into BENCHMARKS.md.

Every figure is read from what the runs left (`summary.json` and the `meta.json` of a run); the published column is the
table of the artifact of arXiv 2606.01387, taken on another machine with a patched vLLM and a GPU.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from bench.report import processor, table, write_part
from residentkv import __version__
from residentkv.errors import NoInputError
from residentkv.witness.table import ScenarioSummary

PUBLISHED = {
    "success_no_event_path": (30, 0, 0),
    "success_path": (30, 30, 0),
    "ordinary_offload_no_claim": (10, 0, 0),
    "claimed_load_failure": (30, 0, 30),
    "wrong_claim_failure": (10, 10, 0),
    "unclaimed_load_failure": (10, 0, 0),
    "fallback_recompute": (10, 10, 0),
    "generic_counter_only": (1, 0, 0),
    "multi_claim_targeted_failure": (3, 3, 3),
}
"""Runs, observation passes and failure-outcome passes. What is called fallback_recompute there is a retry here."""

PUBLISHED_AS = {"retry_restored": "fallback_recompute", "fallback_recompute": None}
PUBLISHED_REFUSAL_US = 151.5
PUBLISHED_NEGATIVES = "0 of 41"


def render(summaries: Sequence[ScenarioSummary], meta: dict[str, Any]) -> str:
    """Return the part of BENCHMARKS.md."""
    negative = sum(s.negative for s in summaries)
    matrix = [
        (
            s.scenario,
            *(f"{n} of {s.runs}" for n in (s.passed, s.observation, s.failure_outcome)),
            _published(s.scenario),
            _number(s.audit_median_us, 0),
        )
        for s in summaries
    ]
    refusal = [
        (
            s.scenario,
            _number(s.failed_transfer_to_refusal_median_us, 1),
            _number(s.failed_transfer_to_scheduler_median_us, 1),
            _number(s.scheduler_to_refusal_median_us, 1),
        )
        for s in summaries
        if s.failure_outcome == s.runs and s.failed_transfer_to_refusal_median_us is not None
    ]
    first_token = [
        (s.scenario.removeprefix("ttft_"), *_ratio(s))
        for s in summaries
        if s.scenario.startswith("ttft_") and s.resident_ttft_median_ms and s.reuse_ttft_median_ms
    ]
    versions = f"vLLM {meta['vllm']}, torch {meta['torch']}, Python {meta['python']}, {meta['machine']}"
    return "\n".join(
        [
            "## Witness runs on stock vLLM (`make bench-witness`)",
            "",
            f"Taken {datetime.datetime.now(tz=datetime.UTC):%Y-%m-%d}, residentkv {__version__}, {versions}, "
            f"{processor()}, model revision {meta['model'][:19]}.",
            "",
            f"{sum(s.runs for s in summaries)} runs. {negative} of them must not pass a gate: "
            f"{sum(s.false_positives for s in summaries)} of {negative} did (published: {PUBLISHED_NEGATIVES}).",
            "",
            table(
                (
                    "scenario",
                    "as expected",
                    "observation",
                    "failure outcome",
                    "published: observation, outcome of runs",
                    "audit us",
                ),
                matrix,
            ),
            "",
            f"From the end of the failed transfer in the worker to the refusal, medians in microseconds; published "
            f"{PUBLISHED_REFUSAL_US}, on another machine. Where another request is being computed, the scheduler "
            "hears of the failure when that step is over.",
            "",
            table(("scenario", "worker to refusal", "worker to scheduler", "scheduler to refusal"), refusal),
            "",
            "Time to the first token of a prefix that is computed, and of the same prefix restored from the second "
            "tier, medians of the same runs.",
            "",
            table(("tokens", "computed ms", "restored ms", "computed / restored"), first_token),
        ]
    )


def _published(scenario: str) -> str:
    name = PUBLISHED_AS.get(scenario, scenario)
    if name not in PUBLISHED:
        return "-"
    runs, observed, outcome = PUBLISHED[name]
    return f"{observed}, {outcome} of {runs}" + (f" (as {name})" if name != scenario else "")


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _ratio(s: ScenarioSummary) -> tuple[str, str, str]:
    computed, restored = s.resident_ttft_median_ms, s.reuse_ttft_median_ms
    assert computed and restored
    return f"{computed:,.0f}", f"{restored:,.0f}", f"{computed / restored:.1f}"


def common_meta(metas: Sequence[dict[str, Any]], folder: Path) -> dict[str, Any]:
    """Return what all runs have in common: versions, machine and model.

    Raises:
        NoInputError: runs of different versions lie in one folder.
    """
    keys = ("vllm", "torch", "python", "machine", "model")
    found = {tuple(str(meta.get(key)) for key in keys) for meta in metas}
    if len(found) > 1:
        told = "; ".join(", ".join(some) for some in sorted(found))
        raise NoInputError(f"{folder}: found runs of {told}, expected one of them; take the others away and run again")
    return metas[0]


def main(arguments: list[str]) -> int:
    """Print the part and write it."""
    parser = argparse.ArgumentParser(prog="python -m bench.witness", description=__doc__)
    parser.add_argument("folder", type=Path, help="what `residentkv witness --all --out` was given")
    parser.add_argument("--out", type=Path, default=Path("BENCHMARKS.md"), help="file to write (default BENCHMARKS.md)")
    options = parser.parse_args(arguments)
    summary = options.folder / "summary.json"
    metas = sorted(options.folder.glob("*/[0-9]*/meta.json"))
    if not summary.is_file() or not metas:
        raise NoInputError(f"{options.folder}: found no summary.json with its runs, expected a finished witness run")
    summaries = msgspec.json.decode(summary.read_bytes(), type=list[ScenarioSummary])
    for s in summaries:
        found = sum(path.parent.parent.name == s.scenario for path in metas)
        if found != s.runs:
            raise NoInputError(
                f"{options.folder}: found {found} runs of {s.scenario}, expected the {s.runs} of summary.json; "
                "judge them again with `residentkv witness`"
            )
    text = render(
        summaries,
        common_meta([msgspec.json.decode(path.read_bytes()) for path in metas], options.folder),
    )
    print(text)
    write_part(options.out, "witness", text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
