"""Logs of adapters under test: everything that they stand on is simulated."""

from __future__ import annotations

from pathlib import Path

from residentkv.runtimes.claimlog import ClaimLog
from residentkv.trace.writer import TraceWriter


def open_log(path: Path, source: str, *, runtime: str, version: str, primitive: str, depth: str) -> ClaimLog:
    """Return a log that was opened in the name of an adapter of this depth."""
    log = ClaimLog(TraceWriter(path, source=source, run_id="run"))
    log.open(runtime=runtime, version=version, primitive=primitive, adapter="a", depth=depth, stands_in=("all",))
    return log
