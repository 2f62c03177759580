"""`python -m bench`: measure, print, and write the same text into BENCHMARKS.md."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from bench.audit import make_long, measure_long, measure_scaling, measure_small
from bench.corpus import record_runs, record_small
from bench.measure import one_core
from bench.report import table, taken_on, write_part

PUBLISHED_SMALL_US = 128.6
"""Median analysis of a 21-event trace that is already parsed, in the published artifact (arXiv 2606.01387)."""
GOAL = 2.0
SHARES = (1000, 100, 10, 1)
"""The audit is measured at these fractions of the long trace too."""
MIN_EVENTS = 1000


def main(arguments: list[str]) -> int:
    """Run all measurements."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000, help="length of the long trace (default 1,000,000)")
    parser.add_argument("--repeat", type=int, default=7, help="runs of each work on the long trace (default 7)")
    parser.add_argument("--trace", type=Path, action="append", help="make the long trace of this one; may be repeated")
    parser.add_argument("--out", type=Path, default=Path("BENCHMARKS.md"), help="file to write (default BENCHMARKS.md)")
    parser.add_argument("--print-only", action="store_true", help="write no file")
    options = parser.parse_args(arguments)
    with one_core(), tempfile.TemporaryDirectory(prefix="residentkv-bench-") as name:
        folder = Path(name)
        traces = options.trace or record_runs(folder)
        made_of = make_long(folder / "long.jsonl", traces, options.events)
        about, ratio, rows = measure_long(folder / "long.jsonl", options.repeat)
        lengths = [length for n in SHARES if (length := options.events // n) >= MIN_EVENTS]
        scaling = measure_scaling(folder, traces, lengths, options.repeat)
        (folder / "small").mkdir()
        small = measure_small(record_small(folder / "small"))
    text = "\n".join(
        [
            "## Audit (`make bench`)",
            "",
            taken_on(),
            "",
            f"Long trace: {about} Goal: {GOAL:.1f} times the decode on one core"
            f" ({'reached' if ratio <= GOAL else 'not reached'}). Medians of {options.repeat} runs.",
            f"Made by renaming and renumbering recorded runs of the reference runtime: {made_of}."
            if not options.trace
            else f"Made by renaming and renumbering: {made_of}.",
            "",
            table(("work", "s", "us an event", "times decode in chunks"), rows),
            "",
            "The audit of shorter and longer ones, in turns:",
            "",
            table(("events", "audit s", "audit us an event", "MB above imports"), scaling),
            "",
            "Small traces, recorded by the reference runtime; the published analysis of 21 events, already parsed, "
            f"takes {PUBLISHED_SMALL_US} us on another machine.",
            "",
            table(("trace", "events", "us, from events", "us, from bytes"), small),
        ]
    )
    print(text)
    if not options.print_only:
        write_part(options.out, "audit", text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
