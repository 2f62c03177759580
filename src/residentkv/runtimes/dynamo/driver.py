"""Run cases inside the environment that has Dynamo: `python -m residentkv.runtimes.dynamo.driver OUT CASE...`.

Writes `OUT/<case>.jsonl` (what an adapter says), and `OUT/runs.json` (what was found); it audits nothing.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import msgspec

from residentkv.files import replace_file
from residentkv.runtimes.dynamo.cases import run_case


def main(arguments: list[str]) -> int:
    """Run the named cases, one after the other, each on a fleet of its own."""
    logging.basicConfig(level=logging.WARNING)
    out, names = Path(arguments[0]), arguments[1:]
    runs = []
    for name in names:
        runs.append(run_case(name, out))
        print(f"dynamo {name}", flush=True)
    replace_file(out / "runs.json", msgspec.json.encode(runs))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
