"""Medians of alternating repetitions, on one core, of work that is done anew each time."""

from __future__ import annotations

import contextlib
import gc
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Keep this process, and what it starts, on one core."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def median_ns_of(works: Mapping[str, Callable[[], object]], repeat: int, *, collect: bool = True) -> dict[str, float]:
    """Time each work `repeat` times, in turns, so that a slow spell of the machine meets all of them.

    Args:
        collect: collect garbage before each run; the collector stays on during a run in any case.

    Returns:
        The median of each work in nanoseconds.
    """
    times: dict[str, list[int]] = {name: [] for name in works}
    for _ in range(repeat):
        for name, work in works.items():
            if collect:
                gc.collect()
            start = time.perf_counter_ns()
            work()
            times[name].append(time.perf_counter_ns() - start)
    return {name: statistics.median(runs) for name, runs in times.items()}


def peak_bytes(code: str, *arguments: str | Path) -> int:
    """Return the peak resident memory of a fresh interpreter that runs the code (VmHWM, which exec resets)."""
    tail = "\nprint(next(l.split()[1] for l in open('/proc/self/status') if l.startswith('VmHWM:')))"
    run = subprocess.run(
        [sys.executable, "-c", code + tail, *map(str, arguments)], capture_output=True, text=True, check=True
    )
    return int(run.stdout.splitlines()[-1]) * 1024
