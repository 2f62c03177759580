from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path

import msgspec
import pytest

from residentkv.errors import InputError
from residentkv.trace.events import AnyEvent, ClaimAccepted, GenericCounter, RuntimeEvent, TraceClosed, TraceOpened
from residentkv.trace.reader import read_trace
from residentkv.trace.streams import MAX_LINE_BYTES
from residentkv.trace.writer import TraceWriteError, TraceWriter
from tests.trace.samples import plain_event

OPENED = {
    "runtime": "reference",
    "runtime_version": "1",
    "primitive": "pool",
    "adapter": None,
    "adapter_version": None,
    "depth": "native",
    "stands_in": (),
}
ENVELOPE = ("schema", "run_id", "source", "epoch", "seq", "mono_ns", "wall_ns")


def writer_of(path: Path, source: str = "s", epoch: int = 0) -> TraceWriter:
    """Open a writer."""
    return TraceWriter(path, source=source, run_id="r", epoch=epoch)


def read(path: Path) -> list[AnyEvent]:
    """Read all events."""
    return [event for chunk in read_trace(path) for event in chunk]


def seqs_of(events: list[AnyEvent]) -> dict[tuple[str, int], list[int]]:
    """Return the numbers of each (source, epoch) in file order."""
    seqs: dict[tuple[str, int], list[int]] = defaultdict(list)
    for event in events:
        seqs[event.source, event.epoch].append(event.seq)
    return dict(seqs)


def test_what_is_emitted_is_what_is_read(tmp_path: Path) -> None:
    """The returned event is the one a reader gets, with the envelope filled in; numbers count from 0."""
    path = tmp_path / "t.jsonl"
    writer = TraceWriter(path, source="s", run_id="r", epoch=3, mono_ns=iter(range(9)).__next__, wall_ns=lambda: 77)
    emitted = [
        writer.emit(TraceOpened, **OPENED),
        writer.emit(GenericCounter, name="n", value=1),
        writer.emit(RuntimeEvent, name="ä\n\u2028", request_id=None, job_id=4),
    ]
    writer.close("done")
    events = read(path)
    assert events[:3] == emitted
    assert isinstance(events[3], TraceClosed)
    assert [(e.seq, e.mono_ns, e.wall_ns, e.epoch) for e in events] == [(i, i, 77, 3) for i in range(4)]
    assert writer.closed


def test_a_list_is_written_and_returned_as_a_tuple(tmp_path: Path) -> None:
    """The event that comes back does not depend on how the caller held its values."""
    writer = writer_of(tmp_path / "t.jsonl")
    fields = {f: getattr(plain_event(ClaimAccepted), f) for f in ClaimAccepted.__struct_fields__ if f not in ENVELOPE}
    event = writer.emit(ClaimAccepted, **(fields | {"clipped_from": ["hard_protected"]}))
    assert event.clipped_from == ("hard_protected",)
    assert read(tmp_path / "t.jsonl") == [event]


@pytest.mark.parametrize(
    ("kind", "fields", "error"),
    [
        (GenericCounter, {"name": "", "value": 1}, msgspec.ValidationError),
        (GenericCounter, {"name": "n", "value": -1}, msgspec.ValidationError),
        (GenericCounter, {"name": "n", "value": 1.0}, msgspec.ValidationError),
        (GenericCounter, {"name": "n", "value": 1 << 64}, msgspec.ValidationError),
        (GenericCounter, {"name": "\ud800", "value": 1}, msgspec.ValidationError),
        (GenericCounter, {"name": "n" * 1025, "value": 1}, msgspec.ValidationError),
        (GenericCounter, {"name": "n"}, TypeError),
        (GenericCounter, {"name": "n", "value": 1, "more": 1}, TypeError),
        (GenericCounter, {"name": "n", "value": object()}, TypeError),
        (TraceOpened, OPENED | {"depth": "deep"}, msgspec.ValidationError),
        (TraceClosed, {"reason": "x" * MAX_LINE_BYTES}, TraceWriteError),
    ],
)
def test_rejected_value_consumes_no_number(
    tmp_path: Path, kind: type, fields: dict[str, object], error: type[Exception]
) -> None:
    """A value that a reader would refuse is refused by the writer: nothing is written and the next seq has no gap."""
    path = tmp_path / "t.jsonl"
    writer = writer_of(path)
    writer.emit(GenericCounter, name="before", value=0)
    with pytest.raises(error):
        writer.emit(kind, **fields)
    writer.emit(GenericCounter, name="after", value=0)
    assert [e.seq for e in read(path)] == [0, 1]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_number_that_json_does_not_have_is_refused(tmp_path: Path, value: float) -> None:
    """It would reach the file as null, which says something else."""
    writer = writer_of(tmp_path / "t.jsonl")
    accepted = plain_event(ClaimAccepted)
    fields = {f: getattr(accepted, f) for f in accepted.__struct_fields__ if f not in ENVELOPE}
    with pytest.raises(msgspec.ValidationError, match="finite"):
        writer.emit(ClaimAccepted, **(fields | {"ttl_s": value}))
    assert (tmp_path / "t.jsonl").read_bytes() == b""


def test_closed_writer_refuses(tmp_path: Path) -> None:
    """After close nothing more is written; closing again does nothing; abandon leaves out the last event."""
    writer = writer_of(tmp_path / "t.jsonl")
    writer.close()
    writer.close()
    with pytest.raises(TraceWriteError, match="closed"):
        writer.emit(GenericCounter, name="n", value=1)
    assert len(read(tmp_path / "t.jsonl")) == 1
    other = writer_of(tmp_path / "u.jsonl")
    other.emit(GenericCounter, name="n", value=1)
    other.abandon()
    assert [type(e) for e in read(tmp_path / "u.jsonl")] == [GenericCounter]


def test_path_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    """The message names the path and the reason."""
    with pytest.raises(TraceWriteError, match="No such file"):
        writer_of(tmp_path / "missing" / "t.jsonl")


def test_threads_share_a_writer_without_gap_or_mix(tmp_path: Path) -> None:
    """Lines of several threads are whole, numbered without gap in file order, and their clocks do not run back."""
    path = tmp_path / "t.jsonl"
    writer = writer_of(path)
    start = threading.Barrier(8)

    def work(thread: int) -> None:
        start.wait()
        for i in range(300):
            writer.emit(GenericCounter, name=f"{thread}-" + "x" * (i % 900), value=i)

    threads = [threading.Thread(target=work, args=(t,)) for t in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    events = read(path)
    assert [e.seq for e in events] == list(range(2401))
    assert [e.mono_ns for e in events] == sorted(e.mono_ns for e in events)
    counters = [e for e in events if isinstance(e, GenericCounter)]
    for t in range(8):
        assert [e.value for e in counters if e.name.startswith(f"{t}-")] == list(range(300))


WORKER = """
import sys
from residentkv.trace.events import GenericCounter
from residentkv.trace.writer import TraceWriter
path, source, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
writer = TraceWriter(path, source=source, run_id="r")
print("ready", flush=True)
sys.stdin.readline()
for i in range(count):
    writer.emit(GenericCounter, name=source + "x" * (i * 37 % 1000), value=i)
writer.close()
"""


def start_worker(path: Path, source: str, count: int) -> subprocess.Popen[str]:
    """Start a process that opens the trace and waits for one line before it writes."""
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(path), source, str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == "ready\n"
    return worker


def release(worker: subprocess.Popen[str]) -> None:
    """Let a worker write."""
    assert worker.stdin is not None
    worker.stdin.write("go\n")
    worker.stdin.flush()


def test_processes_append_to_one_file(tmp_path: Path) -> None:
    """Several processes, each with its own source, share a file: every line is whole and every source has no gap."""
    path = tmp_path / "t.jsonl"
    workers = [start_worker(path, f"w{i}", 1500) for i in range(4)]
    for worker in workers:
        release(worker)
    for worker in workers:
        worker.communicate()
        assert worker.returncode == 0
    seqs = seqs_of(read(path))
    assert seqs == {(f"w{i}", 0): list(range(1501)) for i in range(4)}


def test_killed_process_leaves_a_gapless_beginning(tmp_path: Path) -> None:
    """After kill -9 in the middle what can be read has no gap and no close; another process goes on unharmed."""
    path = tmp_path / "t.jsonl"
    victim = start_worker(path, "victim", 10_000_000)
    other = start_worker(path, "other", 2000)
    release(victim)
    deadline = time.monotonic() + 60
    while path.stat().st_size < 200_000 and time.monotonic() < deadline:
        time.sleep(0.005)
    release(other)
    os.kill(victim.pid, signal.SIGKILL)
    victim.communicate()
    other.communicate()
    assert victim.returncode == -signal.SIGKILL
    events: list[AnyEvent] = []
    error: InputError | None = None
    try:
        for chunk in read_trace(path):
            events += chunk
    except InputError as e:
        error = e
    seqs = seqs_of(events)
    assert seqs["victim", 0] == list(range(len(seqs["victim", 0])))
    assert len(seqs["victim", 0]) > 100
    assert not any(isinstance(e, TraceClosed) and e.source == "victim" for e in events)
    if error is None:
        assert seqs["other", 0] == list(range(2001))
    else:
        assert error.code in ("RKV101", "RKV108")


def test_forked_child_cannot_use_the_writer_of_its_parent(tmp_path: Path) -> None:
    """It would write the numbers of the parent a second time; it is told to open a writer of its own."""
    path = tmp_path / "t.jsonl"
    code = f"""
import os, sys
from residentkv.trace.events import GenericCounter
from residentkv.trace.writer import TraceWriter, TraceWriteError
writer = TraceWriter({str(path)!r}, source="s", run_id="r")
writer.emit(GenericCounter, name="parent", value=0)
child = os.fork()
if child == 0:
    try:
        writer.emit(GenericCounter, name="child", value=0)
    except TraceWriteError:
        os._exit(7)
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
writer.close()
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "7\n"
    assert [e.seq for e in read(path)] == [0, 1]


def test_full_device_consumes_no_number(tmp_path: Path) -> None:
    """When nothing could be written (ENOSPC) the number is still free; the message says why."""
    writer = writer_of(Path("/dev/full"))
    with pytest.raises(TraceWriteError, match="seq 0 was not written: No space left on device"):
        writer.emit(GenericCounter, name="n", value=1)
    assert not writer.closed
    with pytest.raises(TraceWriteError, match="seq 0 "):
        writer.close()
    writer.abandon()


def test_short_write_closes_the_writer(tmp_path: Path) -> None:
    """A line that the file system took only in part tears the trace: the writer stops, and the reader says RKV108."""
    path = tmp_path / "t.jsonl"
    code = f"""
import resource, signal
from residentkv.trace.events import GenericCounter
from residentkv.trace.writer import TraceWriter, TraceWriteError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
writer = TraceWriter({str(path)!r}, source="s", run_id="r")
try:
    while True:
        writer.emit(GenericCounter, name="n", value=1)
except TraceWriteError as e:
    print(writer.closed, e)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("True ")
    assert "the trace is torn" in run.stdout
    assert path.stat().st_size == 1000
    with pytest.raises(InputError, match="RKV108") as caught:
        read(path)
    lines = path.read_bytes().split(b"\n")
    assert caught.value.line == len(lines)
    assert [json.loads(line)["seq"] for line in lines[:-1]] == list(range(len(lines) - 1))


def test_a_restarted_source_continues_the_file_under_a_new_epoch(tmp_path: Path) -> None:
    """A second incarnation appends to the same file; its numbers count from 0 again under its own epoch."""
    path = tmp_path / "t.jsonl"
    first = writer_of(path)
    first.emit(GenericCounter, name="n", value=1)
    first.abandon()
    second = writer_of(path, epoch=1)
    second.emit(GenericCounter, name="n", value=1)
    second.close()
    assert seqs_of(read(path)) == {("s", 0): [0], ("s", 1): [0, 1]}
