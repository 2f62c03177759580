"""Run cases inside the environment that has KVCR: `python -m residentkv.runtimes.kvcr.driver OUT CASE...`.

Writes `OUT/<case>.jsonl` (what the desk says), and `OUT/runs.json` (what was found); it audits nothing.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import msgspec

from residentkv.files import replace_file
from residentkv.runtimes.kvcr.cases import run_case


def main(arguments: list[str]) -> int:
    """Run the named cases, one after the other, each on processes of its own."""
    logging.basicConfig(level=logging.WARNING)
    out, names = Path(arguments[0]), arguments[1:]
    runs = []
    for name in names:
        runs.append(run_case(name, out))
        print(f"kvcr {name}", flush=True)
    replace_file(out / "runs.json", msgspec.json.encode(runs))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
