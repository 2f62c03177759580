"""A log that is rotated by size: no number is lost, and readers and the audit take its parts for one trace."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from residentkv.audit.api import audit_file
from residentkv.audit.model import Verdict
from residentkv.errors import InputError, NoInputError
from residentkv.runtimes.vllm.eventlog import EventLog
from residentkv.trace.codec import encode_event
from residentkv.trace.events import GenericCounter
from residentkv.trace.reader import TraceDigest, read_trace
from residentkv.trace.segments import parts_of
from residentkv.trace.writer import TraceWriter
from tests.audit.notation import trace
from tests.audit.stories import SUCCESS


def written(path: Path, events: int = 40, max_bytes: int = 2000, *, close: bool = True) -> EventLog:
    """A log of so many events and its head, rotated about every ten."""
    log = EventLog(runtime_version="0.32.0", max_bytes=max_bytes)
    log.open(str(path), "r")
    for i in range(events):
        log.emit(GenericCounter, name="n", value=i)
    if close:
        log.close("end")
    return log


def seqs(path: Path) -> list[tuple[int, int]]:
    return [(e.epoch, e.seq) for chunk in read_trace(path) for e in chunk]


def test_the_parts_are_one_stream_with_every_number_once(tmp_path: Path) -> None:
    """Each part is below the size, the first part is the oldest, and the audit sees one whole trace."""
    path = tmp_path / "t.jsonl"
    written(path)
    parts = [Path(p) for p in parts_of(str(path))]
    assert len(parts) > 3 and parts[0].name == "t.jsonl.000001" and parts[-1] == path
    assert max(p.stat().st_size for p in parts) <= 2000
    assert seqs(path) == [(0, n) for n in range(42)]
    assert audit_file(path).verdict is not Verdict.VIOLATING
    assert audit_file(path).events == 42


def test_the_digest_is_that_of_all_parts_together(tmp_path: Path) -> None:
    """So evidence names the whole trace; it is none while a part is unread."""
    path = tmp_path / "t.jsonl"
    written(path)
    digest = TraceDigest()
    chunks = read_trace(path, digest=digest)
    next(chunks)
    assert digest.sha256 is None
    for _ in chunks:
        pass
    whole = b"".join(Path(p).read_bytes() for p in parts_of(str(path)))
    assert digest.sha256 == hashlib.sha256(whole).hexdigest()


def test_a_part_that_is_missing_is_a_gap(tmp_path: Path) -> None:
    """Whichever part it is, the last one included: never a pass."""
    path = tmp_path / "t.jsonl"
    written(path)
    for part in parts_of(str(path)):
        aside = Path(part).rename(tmp_path / "aside")
        assert audit_file(path).verdict is Verdict.INCONCLUSIVE, part
        aside.rename(part)
    assert seqs(path)[-1] == (0, 41)


@pytest.mark.parametrize("gone", [None, "t.jsonl.000001", "t.jsonl.000002"])
def test_a_part_that_held_a_whole_incarnation_is_missed(tmp_path: Path, gone: str | None) -> None:
    """No number is missing without it, and what it told is: a part before another one has to be there."""
    for epoch, name in enumerate(("t.jsonl.000001", "t.jsonl.000002", "t.jsonl.000003", "t.jsonl")):
        events = trace(f"    @scheduler/{epoch}\n{SUCCESS}")
        if name != gone:
            (tmp_path / name).write_bytes(b"".join(map(encode_event, events)))
    report = audit_file(tmp_path / "t.jsonl")
    assert report.verdict is (Verdict.CONFORMING if gone is None else Verdict.INCONCLUSIVE)
    assert len(report.sources) == (4 if gone is None else 3)
    assert gone is None or any(f"{gone}: RKV112" in s for f in report.findings for s in f.story)


def test_an_error_in_a_part_names_that_part_and_its_line(tmp_path: Path) -> None:
    """And the digest is still that of everything."""
    path = tmp_path / "t.jsonl"
    written(path)
    second = tmp_path / "t.jsonl.000002"
    lines = second.read_bytes().splitlines(keepends=True)
    second.write_bytes(b"".join([lines[0], b"{}\n", *lines[2:]]))
    digest = TraceDigest()
    with pytest.raises(InputError) as error:
        list(read_trace(path, digest=digest))
    assert (error.value.path, error.value.line) == (str(second), 2)
    whole = b"".join(Path(p).read_bytes() for p in parts_of(str(path)))
    assert digest.sha256 == hashlib.sha256(whole).hexdigest()


def test_names_that_only_look_like_parts_are_left_alone(tmp_path: Path) -> None:
    """A copy, a compressed file or another log beside it is not read."""
    path = tmp_path / "t.jsonl"
    written(path, events=1)
    for name in ("t.jsonl.1", "t.jsonl.000001.bak", "xt.jsonl.000001", "t_jsonl.000001"):
        (tmp_path / name).write_text("not a trace")
    assert seqs(path) == [(0, 0), (0, 1), (0, 2)]
    with pytest.raises(NoInputError):
        list(read_trace(tmp_path / "none.jsonl"))


def test_a_restart_goes_on_in_a_new_epoch(tmp_path: Path) -> None:
    """Over rotated parts as well, and after a kill that tore the last line: the torn part is set aside."""
    path = tmp_path / "t.jsonl"
    written(path)
    written(path, events=1)
    assert [e for e, _ in seqs(path)[-3:]] == [1, 1, 1]
    written(path, events=1, close=False)
    with path.open("ab") as f:
        f.write(b'{"torn')
    written(path, events=1)
    assert b'"epoch":3' in path.read_bytes() and b"torn" not in path.read_bytes()
    assert audit_file(path).verdict is Verdict.INCONCLUSIVE


def test_a_file_that_is_no_log_of_the_engine_is_not_continued(tmp_path: Path) -> None:
    """Which epoch would be the next is then unknown."""
    path = tmp_path / "t.jsonl"
    for text in ("hello\n", "hello"):
        path.write_text(text)
        with pytest.raises(InputError, match=r"t\.jsonl"):
            written(path)
    path.unlink()
    TraceWriter(path, source="somebody", run_id="r").emit(GenericCounter, name="n", value=1)
    with pytest.raises(InputError, match="somebody"):
        written(path)


def test_a_rotation_that_fails_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file grows beyond its size instead."""

    def no(path: str) -> str:
        raise OSError("no")

    monkeypatch.setattr("residentkv.trace.writer.set_aside", no)
    path = tmp_path / "t.jsonl"
    assert written(path).failure is None
    assert parts_of(str(path)) == [str(path)]
    assert len(seqs(path)) == 42


@pytest.mark.parametrize("what", ["scandir", "open"])
def test_without_a_free_descriptor_the_log_goes_on_and_no_part_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Neither can be seen which parts there are, nor a new one be opened; the engine survives both."""
    path = tmp_path / "t.jsonl"
    log = written(path, close=False)

    def exhausted(*args: object, **more: object) -> object:
        raise OSError(errno.EMFILE, "too many open files")

    with monkeypatch.context() as m:
        m.setattr(os, what, exhausted)
        rename = os.rename
        m.setattr(os, "rename", lambda a, b: exhausted() if str(a)[-1].isdigit() else rename(a, b))
        for i in range(20):
            log.emit(GenericCounter, name="m", value=i)
    log.close("end")
    assert log.failure is None
    assert seqs(path) == [(0, n) for n in range(62)]


def test_events_that_a_broken_log_lacks_are_counted(tmp_path: Path) -> None:
    """Observers see them all the same."""
    log = written(tmp_path / "t.jsonl", close=False)
    seen: list[int] = []
    log.observers.append(lambda kind, fields, now_ns: seen.append(fields["value"]))
    log.emit(GenericCounter, name="n", value=-1)
    log.emit(GenericCounter, name="n", value=1)
    assert log.failure is not None
    assert (log.events_written, log.events_lost, seen) == (41, 2, [-1, 1])
