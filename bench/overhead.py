"""What the plugin costs: vLLM with it against stock vLLM, in turns. `python -m bench.overhead` prints and writes it.

Four engines stay up, each in a process of its own, and serve the same batch one after another; the order of the
four changes from turn to turn. A ratio is taken within a turn, so that a slow spell of the machine meets both sides.
CPU time is that of all threads of the engine's process; it does not depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from bench.load.run import prepare_model as prepare_tiny
from bench.report import table, taken_on, write_part
from residentkv.audit import Verdict, audit_file
from residentkv.environments import RuntimeFailed, find_python, runtime_environment
from residentkv.errors import ResidentKVError
from residentkv.files import cache_dir
from residentkv.witness.driver import prepare_model

ENGINES: Final = ("stock vLLM", "its own offloading connector", "plugin, no claims", "plugin, 100 claims")
"""The second is vLLM's connector and scheduler over the second tier of residentkv, since vLLM has none for CPUs."""
KINDS: Final = ("stock", "offloading", "plugin", "plugin")
GOALS: Final = {"plugin, no claims": 0.99, "plugin, 100 claims": 0.97}
CLAIMS: Final = 100


class Child:
    """One engine in a process of its own."""

    def __init__(self, job: Path, overlay: Path, log: Path) -> None:
        env = runtime_environment(
            overlay,
            {
                "VLLM_LOGGING_LEVEL": "WARNING",
                "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
                "VLLM_CPU_OMP_THREADS_BIND": "nobind",
                "OMP_NUM_THREADS": str(os.cpu_count() or 1),
                "OMP_WAIT_POLICY": "passive",
                "GOMP_SPINCOUNT": "0",
                "KMP_BLOCKTIME": "0",
            },
        )
        self.log = log
        self._sink = log.open("wb")
        self.process = subprocess.Popen(
            [str(find_python("vllm")), str(Path(__file__).with_name("overhead_engine.py")), str(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._sink,
            env=env,
            text=True,
        )

    def read(self) -> str:
        """Return the next line that is an answer.

        Raises:
            RuntimeFailed: the engine has ended.
        """
        for line in self.process.stdout or ():
            if line.startswith(("ready", "{")):
                return line
        raise RuntimeFailed(f"the engine ended with {self.process.wait()}; see {self.log}")

    def run(self, turn: int) -> dict[str, Any]:
        """Serve one batch."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{turn}\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.read())
        return answer

    def stop(self) -> None:
        """End the engine in order."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait(120)


@contextlib.contextmanager
def engines(job: dict[str, Any], folder: Path) -> Iterator[dict[str, Child]]:
    """Start the engines, one after another; none of them outlives this."""
    children: dict[str, Child] = {}
    try:
        for number, name in enumerate(ENGINES):
            options = {"trace_path": str(folder / f"trace-{number}.jsonl"), "tier_dir": str(folder)}
            claims = CLAIMS if "100" in name else 0
            path = folder / f"job-{number}.json"
            path.write_text(json.dumps(job | {"kind": KINDS[number], "claims": claims, "options": options}))
            children[name] = Child(path, folder / "overlay", folder / f"engine-{number}.log")
            children[name].read()
        yield children
        for child in children.values():
            child.stop()
    finally:
        for child in children.values():
            child.process.kill()
            child.process.wait()


def measure(job: dict[str, Any], turns: int, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return what each engine answered in each turn; the first turn only warms up.

    Raises:
        ResidentKVError: an engine with the plugin gave other tokens, or its log does not conform.
    """
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in ENGINES}
    with engines(job, folder) as children:
        for turn in range(turns + 1):
            order = ENGINES[turn % len(ENGINES) :] + ENGINES[: turn % len(ENGINES)]
            answers = {name: children[name].run(turn) for name in order}
            for name, answer in answers.items():
                if answer["tokens"] != answers[ENGINES[0]]["tokens"]:
                    raise ResidentKVError(f"turn {turn}: {name} gave other tokens than stock vLLM")
                if turn:
                    results[name].append(answer)
            print(f"turn {turn}/{turns}", file=sys.stderr, flush=True)
    report = audit_file(folder / f"trace-{len(ENGINES) - 1}.jsonl")
    if report.verdict is not Verdict.CONFORMING:
        raise ResidentKVError(f"the log of {ENGINES[-1]} is {report.verdict.value}, expected conforming")
    return results


def _goal(engine: str, throughput: float) -> str:
    """Return the goal of an engine and whether it was reached."""
    if engine not in GOALS:
        return "-"
    return f"{GOALS[engine]:.2f}, {'reached' if throughput >= GOALS[engine] else 'not reached'}"


def rows_of(results: dict[str, list[dict[str, Any]]], tokens: int) -> list[tuple[str, ...]]:
    """Return a row an engine: tokens a second, and throughput and CPU time against stock vLLM."""
    stock = results[ENGINES[0]]
    rows = []
    for name, answers in results.items():
        throughput = [s["wall_ns"] / a["wall_ns"] for s, a in zip(stock, answers, strict=True)]
        cpu = [a["cpu_ns"] / s["cpu_ns"] for s, a in zip(stock, answers, strict=True)]
        rows.append(
            (
                name,
                f"{tokens / statistics.median(a['wall_ns'] for a in answers) * 1e9:.0f}",
                f"{statistics.median(throughput):.3f}",
                f"{min(throughput):.3f} to {max(throughput):.3f}",
                f"{statistics.median(cpu):.3f}",
                _goal(name, statistics.median(throughput)),
            )
        )
    return rows


MODELS: Final = {
    "smollm2": {"blocks": 129, "requests": 16, "tier_bytes": 512 * 737_280, "vocabulary": [1000, 40_000]},
    "tiny": {"blocks": 513, "requests": 64, "tier_bytes": 1024 * 32_768, "vocabulary": [3, 1000]},
}
"""What differs between models. In the tiny one nearly all of a step is what surrounds the model: the worst case."""
PROMPT_TOKENS: Final = 96
MAX_TOKENS: Final = 24


def main(arguments: list[str]) -> int:
    """Measure, print and write down."""
    parser = argparse.ArgumentParser(prog="python -m bench.overhead", description=__doc__)
    parser.add_argument("--turns", type=int, default=9, help="measured batches of each engine (default 9)")
    parser.add_argument("--model", choices=[*MODELS], action="append", help="default: all")
    parser.add_argument("--out", type=Path, default=Path("BENCHMARKS.md"), help="file to write (default BENCHMARKS.md)")
    parser.add_argument("--print-only", action="store_true", help="write no file")
    options = parser.parse_args(arguments)
    head = ("engine", "tokens a second", "throughput / stock", "range", "CPU time / stock", "goal")
    parts = ["## Overhead on vLLM (`make bench-vllm`)", "", taken_on(cores=os.cpu_count() or 1), ""]
    parts += [
        f"Batches in turns, {options.turns} a model after one to warm up; medians of ratios within a turn. The plugin "
        "writes its log and offloads ordinary blocks, as it always does; stock vLLM has no connector and offloads "
        "nothing, its own connector offloads them too. Answers are token-identical in every turn.",
    ]
    for model in options.model or [*MODELS]:
        sizes = MODELS[model]
        with tempfile.TemporaryDirectory(prefix="residentkv-overhead-") as name:
            folder = Path(name)
            if model == "tiny":
                prepared = prepare_tiny(cache_dir() / "models" / "tiny-llama-load", folder)
            else:
                prepared = prepare_model()
            results = measure(
                sizes | {"model": str(prepared), "prompt_tokens": PROMPT_TOKENS, "max_tokens": MAX_TOKENS},
                options.turns,
                folder,
            )
        requests = results[ENGINES[0]][0]["tokens"]
        tokens = len(requests) * (PROMPT_TOKENS + MAX_TOKENS)
        about = f"{model}: {len(requests)} requests a batch, of {PROMPT_TOKENS} tokens and {MAX_TOKENS} more."
        parts += ["", about, "", table(head, rows_of(results, tokens))]
    text = "\n".join(parts)
    print(text)
    if not options.print_only:
        write_part(options.out, "overhead", text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
