"""One event log an engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from residentkv.errors import UsageError
from residentkv.runtimes.vllm.tracepath import TraceLock, path_of_engine, source_of_engine


def test_engines_of_one_server_write_files_of_their_own() -> None:
    """The first engine keeps the path that was asked for; source names differ, so that all can be audited together."""
    paths = [path_of_engine("/logs/trace.jsonl", n) for n in range(3)]
    assert paths == ["/logs/trace.jsonl", "/logs/trace.engine1.jsonl", "/logs/trace.engine2.jsonl"]
    assert [source_of_engine(n) for n in range(3)] == ["scheduler", "scheduler-engine1", "scheduler-engine2"]


def test_a_second_engine_with_the_same_trace_path_is_refused_by_name(tmp_path: Path) -> None:
    """Whether or not the log is renamed meanwhile; once the first engine has ended, the path is free again."""
    log = tmp_path / "trace.jsonl"
    first = TraceLock(str(log))
    log.write_text("")
    log.rename(tmp_path / "trace.1.jsonl")
    with pytest.raises(UsageError, match=r"another engine is writing .*trace\.jsonl"):
        TraceLock(str(log))
    first.release()
    first.release()
    TraceLock(str(log)).release()


def test_a_trace_path_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """At start, not with the first event."""
    with pytest.raises(UsageError, match=r"trace_path: .*cannot be made"):
        TraceLock(str(tmp_path / "missing" / "trace.jsonl"))
