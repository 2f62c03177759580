"""What the plugin costs: vLLM with it against stock vLLM, in turns. `python -m bench.overhead` prints and writes it.

In a round four engines stay up, each in a process of its own, and serve the same batch one after another; the order
of the four changes from turn to turn. A ratio is taken within a turn, so that a slow spell of the machine meets both
sides. Every round starts all four anew, in another order: of two processes of one kind one can be several per cent
faster for as long as both live, and more turns would only tell that more precisely.
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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

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
T = TypeVar("T")


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
def engines(job: dict[str, Any], folder: Path, first: int = 0) -> Iterator[dict[str, Child]]:
    """Start the engines, one after another from the `first` on; none of them outlives this."""
    children: dict[str, Child] = {}
    try:
        for number in _rotated(range(len(ENGINES)), first):
            name = ENGINES[number]
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


def _rotated(items: Sequence[T], by: int) -> list[T]:
    by %= len(items)
    return [*items[by:], *items[:by]]


def measure(job: dict[str, Any], turns: int, folder: Path, round_: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Return what each engine answered in each turn of a round; the first turn only warms up.

    Raises:
        ResidentKVError: an engine with the plugin gave other tokens, or its log does not conform.
    """
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in ENGINES}
    with engines(job, folder, round_) as children:
        for turn in range(turns + 1):
            answers = {name: children[name].run(turn) for name in _rotated(ENGINES, turn + round_)}
            for name, answer in answers.items():
                if answer["tokens"] != answers[ENGINES[0]]["tokens"]:
                    raise ResidentKVError(f"turn {turn}: {name} gave other tokens than stock vLLM")
                if turn:
                    results[name].append(answer)
            print(f"round {round_ + 1}, turn {turn}/{turns}", file=sys.stderr, flush=True)
    report = audit_file(folder / f"trace-{len(ENGINES) - 1}.jsonl")
    if report.verdict is not Verdict.CONFORMING:
        raise ResidentKVError(f"the log of {ENGINES[-1]} is {report.verdict.value}, expected conforming")
    return results


def _goal(engine: str, throughput: float) -> str:
    """Return the goal of an engine and whether it was reached."""
    if engine not in GOALS:
        return "-"
    return f"{GOALS[engine]:.2f}, {'reached' if throughput >= GOALS[engine] else 'not reached'}"


def rows_of(rounds: list[dict[str, list[dict[str, Any]]]], tokens: int) -> list[tuple[str, ...]]:
    """Return a row an engine: tokens a second, and throughput and CPU time against stock vLLM."""
    rows = []
    for name in ENGINES:
        pairs = [list(zip(r[ENGINES[0]], r[name], strict=True)) for r in rounds]
        throughput = [[s["wall_ns"] / a["wall_ns"] for s, a in pair] for pair in pairs]
        cpu = [a["cpu_ns"] / s["cpu_ns"] for pair in pairs for s, a in pair]
        overall = statistics.median(ratio for ratios in throughput for ratio in ratios)
        by_round = [statistics.median(ratios) for ratios in throughput]
        rows.append(
            (
                name,
                f"{tokens / statistics.median(a['wall_ns'] for pair in pairs for _, a in pair) * 1e9:.0f}",
                f"{overall:.3f}",
                f"{min(by_round):.3f} to {max(by_round):.3f}",
                f"{statistics.median(cpu):.3f}",
                _goal(name, overall),
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
    parser.add_argument("--rounds", type=int, default=8, help="times that all engines are started (default 8)")
    parser.add_argument("--turns", type=int, default=4, help="measured batches of each engine in a round (default 4)")
    parser.add_argument("--model", choices=[*MODELS], action="append", help="default: all")
    parser.add_argument("--out", type=Path, default=Path("BENCHMARKS.md"), help="file to write (default BENCHMARKS.md)")
    parser.add_argument("--print-only", action="store_true", help="write no file")
    options = parser.parse_args(arguments)
    head = ("engine", "tokens a second", "throughput / stock", "range", "CPU time / stock", "goal")
    parts = ["## Overhead on vLLM (`make bench-vllm`)", "", taken_on(cores=os.cpu_count() or 1), ""]
    parts += [
        f"{options.rounds} rounds a model, in each of which all engines are started anew and serve {options.turns} "
        "batches in turns after one to warm up; medians of ratios within a turn, and the range of the medians of "
        "rounds. The plugin "
        "writes its log and offloads ordinary blocks, as it always does; stock vLLM has no connector and offloads "
        "nothing, its own connector offloads them too. Answers are token-identical in every turn.",
    ]
    for model in options.model or [*MODELS]:
        sizes = MODELS[model]
        results: list[dict[str, list[dict[str, Any]]]] = []
        for round_ in range(options.rounds):
            with tempfile.TemporaryDirectory(prefix="residentkv-overhead-") as name:
                folder = Path(name)
                if model == "tiny":
                    prepared = prepare_tiny(cache_dir() / "models" / "tiny-llama-load", folder)
                else:
                    prepared = prepare_model()
                job = sizes | {"model": str(prepared), "prompt_tokens": PROMPT_TOKENS, "max_tokens": MAX_TOKENS}
                results.append(measure(job, options.turns, folder, round_))
        requests = results[0][ENGINES[0]][0]["tokens"]
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
