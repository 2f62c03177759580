from __future__ import annotations

import gzip
import hashlib
import io
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import zstandard

from residentkv.errors import InputError, NoInputError
from residentkv.trace import streams
from residentkv.trace.codec import encode_event
from residentkv.trace.events import AnyEvent
from residentkv.trace.reader import TraceDigest, read_any, read_published, read_trace
from tests.trace.samples import PLAIN_EVENTS, closed

PLAIN = b"".join(map(encode_event, PLAIN_EVENTS))
ZSTD = zstandard.ZstdCompressor(write_checksum=True)
PUBLISHED = (
    b'{"event":"generic_request_error_counter","event_sequence":1,"request_failures":2,"run_id":"r","timestamp_ns":5}\n'
)


def read_until_error(chunks: Iterator[list[AnyEvent]]) -> tuple[list[AnyEvent], InputError | None]:
    """Return everything that was handed out, and the error that ended it."""
    events: list[AnyEvent] = []
    try:
        for chunk in chunks:
            assert chunk
            events += chunk
    except InputError as e:
        return events, e
    return events, None


def stored(tmp_path: Path, data: bytes) -> Path:
    """Write the bytes to a file whose name says nothing about them."""
    path = tmp_path / "trace"
    path.write_bytes(data)
    return path


def skippable(data: bytes) -> bytes:
    """Return a zstd skippable frame."""
    return b"\x53\x2a\x4d\x18" + len(data).to_bytes(4, "little") + data


@pytest.mark.parametrize(
    "data",
    [
        PLAIN,
        gzip.compress(PLAIN),
        gzip.compress(PLAIN[:500]) + gzip.compress(b"") + gzip.compress(PLAIN[500:]) + b"\x00" * 100,
        ZSTD.compress(PLAIN),
        ZSTD.compress(PLAIN[:500]) + ZSTD.compress(b"") + skippable(b"note") + ZSTD.compress(PLAIN[500:]),
        skippable(b"note") + ZSTD.compress(PLAIN),
    ],
    ids=["plain", "gzip", "gzip-members", "zstd", "zstd-frames", "zstd-skippable"],
)
def test_trace_is_read_whatever_it_is_stored_as(tmp_path: Path, data: bytes) -> None:
    """The first bytes tell plain, gzip and zstd apart, not the name; the digest is of the bytes as stored."""
    digest = TraceDigest()
    assert read_until_error(read_trace(stored(tmp_path, data), digest=digest)) == (PLAIN_EVENTS, None)
    assert digest.sha256 == hashlib.sha256(data).hexdigest()
    assert digest.events == len(PLAIN_EVENTS)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, ZSTD.compress], ids=["plain", "gzip", "zstd"])
def test_long_trace_comes_in_chunks_and_in_order(tmp_path: Path, pack: object) -> None:
    """Chunks end at line ends wherever the blocks of the file end, and nothing is lost or doubled between them."""
    assert callable(pack)
    reasons = ["x" * (i * 7919 % 3000) for i in range(2000)]
    data = b"".join(encode_event(closed(i, reason)) for i, reason in enumerate(reasons))
    path = stored(tmp_path, pack(data))
    chunks = list(read_trace(path))
    assert [e.seq for chunk in chunks for e in chunk] == list(range(2000))
    assert [e.reason for chunk in chunks for e in chunk] == reasons
    assert len(chunks) > 10


def test_standard_input_is_read_for_a_dash(monkeypatch: pytest.MonkeyPatch) -> None:
    """`-` is standard input, compressed or not, and stays open for whoever else uses it."""
    stdin = SimpleNamespace(buffer=io.BytesIO(gzip.compress(PLAIN)))
    monkeypatch.setattr("sys.stdin", stdin)
    assert read_until_error(read_trace("-")) == (PLAIN_EVENTS, None)
    assert not stdin.buffer.closed


@pytest.mark.parametrize("name", ["missing", ".", "trace/below"])
def test_missing_file_is_no_input(tmp_path: Path, name: str) -> None:
    """A path without a readable file is not a bad trace: there is nothing to judge (exit 3)."""
    stored(tmp_path, PLAIN)
    with pytest.raises(NoInputError) as caught:
        list(read_trace(tmp_path / name))
    assert caught.value.exit_code == 3
    assert str(caught.value).startswith(str(tmp_path / name))


def test_path_with_a_nul_is_no_input() -> None:
    """A name that no file can have is no input either."""
    with pytest.raises(NoInputError):
        list(read_trace("a\x00b"))


@pytest.mark.parametrize("data", [b"", gzip.compress(b""), ZSTD.compress(b"")], ids=["plain", "gzip", "zstd"])
def test_empty_trace_is_an_error(tmp_path: Path, data: bytes) -> None:
    """No line at all is RKV110, also when the emptiness is compressed."""
    events, error = read_until_error(read_trace(stored(tmp_path, data)))
    assert events == []
    assert error is not None
    assert error.code == "RKV110"
    assert error.path == str(tmp_path / "trace")


def test_events_before_the_wrong_line_are_handed_out(tmp_path: Path) -> None:
    """The caller gets everything before the error, the error has the line, and the digest still covers the file."""
    bad = PLAIN + b'{"schema":2}\n' + PLAIN
    digest = TraceDigest()
    events, error = read_until_error(read_trace(stored(tmp_path, bad), digest=digest))
    assert events == PLAIN_EVENTS
    assert error is not None
    assert (error.code, error.line) == ("RKV107", len(PLAIN_EVENTS) + 1)
    assert digest.events == len(PLAIN_EVENTS)
    assert digest.sha256 == hashlib.sha256(bad).hexdigest()


def test_line_numbers_count_over_chunks(tmp_path: Path) -> None:
    """A wrong line far down the file is named by its number in the file."""
    data = encode_event(closed(0, "x" * 1000)) * 3000
    events, error = read_until_error(read_trace(stored(tmp_path, data + b"\n")))
    assert len(events) == 3000
    assert error is not None
    assert (error.code, error.line, error.column) == ("RKV101", 3001, 1)


def test_digest_stays_open_when_the_caller_stops_early(tmp_path: Path) -> None:
    """A digest of half a file would be a lie; there is none."""
    digest = TraceDigest()
    chunks = read_trace(stored(tmp_path, PLAIN * 1000), digest=digest)
    next(chunks)
    chunks.close()  # type: ignore[attr-defined]
    assert digest.sha256 is None


@pytest.mark.parametrize("cut", range(1, len(encode_event(closed(1, "ä")))))
def test_torn_last_line_is_an_error_wherever_it_is_torn(tmp_path: Path, cut: int) -> None:
    """Every proper beginning of a line is RKV108, also the whole line without its end, and in mid character."""
    torn = encode_event(closed(0)) + encode_event(closed(1, "ä"))[:cut]
    events, error = read_until_error(read_trace(stored(tmp_path, torn)))
    assert events == [closed(0)]
    assert error is not None
    assert (error.code, error.line) == ("RKV108", 2)


def test_binary_file_is_not_text(tmp_path: Path) -> None:
    """Bytes that are no text are said to be that, with or without line ends, at any length."""
    for data in (
        b"\x00\x01\x02",
        b"\x7fELF\x02\x01\x01\n\x00",
        b"\x89PNG\r\n\x1a\n",
        b"PK\x03\x04" + b"\x00" * 100,
        encode_event(closed(0)) + b"\xff\xfe",
        b"\x80" * (streams.MAX_LINE_BYTES + 100000),
    ):
        events, error = read_until_error(read_trace(stored(tmp_path, data)))
        assert error is not None
        assert error.code == "RKV109"
        assert error.line == len(events) + 1


def test_line_that_no_event_can_fill_is_refused_in_bounded_memory(tmp_path: Path) -> None:
    """A document without line ends is not read to its end before it is refused; the events before it are kept."""
    path = stored(tmp_path, encode_event(closed(0)) + b" " * (40 << 20))
    events, error = read_until_error(read_trace(path))
    assert events == [closed(0)]
    assert error is not None
    assert (error.code, error.line) == ("RKV111", 2)


def test_longest_line_is_read_and_one_byte_more_is_not(tmp_path: Path) -> None:
    """The limit is exact, and the line end does not count."""
    empty = len(encode_event(closed(1, ""))) - 1
    for extra, code in ((0, None), (1, "RKV111")):
        line = encode_event(closed(1, "x" * (streams.MAX_LINE_BYTES - empty + extra)))
        events, error = read_until_error(read_trace(stored(tmp_path, encode_event(closed(0)) + line)))
        assert (error.code if error else None) == code
        assert len(events) == (1 if code else 2)


def gzip_bomb() -> bytes:
    """Return 256 MiB of spaces as gzip."""
    packer = zlib.compressobj(1, wbits=31)
    return b"".join(packer.compress(b" " * (1 << 20)) for _ in range(256)) + packer.flush()


def zstd_bomb() -> bytes:
    """Return 4 GiB of spaces as one zstd frame of run-length blocks (RFC 8878, section 3.1.1)."""
    header = b"\x28\xb5\x2f\xfd" + b"\x00" + b"\x38"
    run = (1 << 1 | (1 << 17) << 3).to_bytes(3, "little") + b" "
    last = (1 | 1 << 1 | 1 << 3).to_bytes(3, "little") + b" "
    return header + run * (1 << 15) + last


@pytest.mark.parametrize("bomb", [gzip_bomb, zstd_bomb])
def test_decompression_bomb_is_refused_in_bounded_memory(tmp_path: Path, bomb: object) -> None:
    """However far a few bytes expand, what is held is bounded by the longest line."""
    assert callable(bomb)
    path = stored(tmp_path, bomb())
    tracemalloc.start()
    try:
        _, error = read_until_error(read_trace(path))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert error is not None
    assert error.code == "RKV111"
    assert peak < 8 * streams.MAX_LINE_BYTES


@pytest.mark.parametrize("pack", [gzip.compress, ZSTD.compress], ids=["gzip", "zstd"])
def test_torn_compressed_stream_is_an_error_wherever_it_is_torn(tmp_path: Path, pack: object) -> None:
    """No beginning of a compressed file passes for a whole one; what could be decompressed was handed out."""
    assert callable(pack)
    packed = pack(PLAIN[:3000])
    whole = PLAIN_EVENTS[: PLAIN[:3000].count(b"\n")]
    for cut in range(4, len(packed), 7):
        events, error = read_until_error(read_trace(stored(tmp_path, packed[:cut])))
        assert error is not None
        assert error.code == "RKV112", cut
        assert error.line == len(events) + 1
        assert events == whole[: len(events)]


@pytest.mark.parametrize("pack", [gzip.compress, ZSTD.compress], ids=["gzip", "zstd"])
def test_corrupt_compressed_stream_never_gives_other_events(tmp_path: Path, pack: object) -> None:
    """One flipped bit is an error, or (in a field that carries no data) changes nothing."""
    assert callable(pack)
    packed = pack(PLAIN)
    for at in range(4, len(packed), 5):
        flipped = packed[:at] + bytes([packed[at] ^ 0x10]) + packed[at + 1 :]
        events, error = read_until_error(read_trace(stored(tmp_path, flipped)))
        assert error is not None or events == PLAIN_EVENTS


@pytest.mark.parametrize("pack", [gzip.compress, ZSTD.compress], ids=["gzip", "zstd"])
def test_bytes_after_the_compressed_stream_are_an_error(tmp_path: Path, pack: object) -> None:
    """Something appended to a compressed trace is neither read as a trace nor ignored."""
    assert callable(pack)
    events, error = read_until_error(read_trace(stored(tmp_path, pack(PLAIN) + PLAIN)))
    assert events == PLAIN_EVENTS
    assert error is not None
    assert error.code == "RKV112"


def test_file_that_cannot_be_read_to_its_end_is_torn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the storage in the middle is told after what could be read; there is no digest."""

    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            data = super().read(size)
            if not data:
                raise OSError(5, "Input/output error")
            return data

    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=Failing(PLAIN)))
    digest = TraceDigest()
    events, error = read_until_error(read_trace("-", digest=digest))
    assert events == PLAIN_EVENTS
    assert error is not None
    assert error.code == "RKV112"
    assert "Input/output error" in str(error)
    assert digest.sha256 is None


def test_format_is_told_by_the_first_line(tmp_path: Path) -> None:
    """`read_any` reads both formats; each reader by itself refuses the other."""
    path = stored(tmp_path, PUBLISHED)
    events, error = read_until_error(read_any(path))
    assert error is None
    assert events == read_until_error(read_published(path))[0]
    assert [e.seq for e in events] == [0]
    refused = read_until_error(read_trace(path))[1]
    assert refused is not None
    assert (refused.code, refused.line) == ("RKV113", 1)
    path = stored(tmp_path, PLAIN)
    assert read_until_error(read_any(path)) == (PLAIN_EVENTS, None)
    refused = read_until_error(read_published(path))[1]
    assert refused is not None
    assert (refused.code, refused.line) == ("RKV113", 1)


@pytest.mark.parametrize(("first", "second"), [(PLAIN, PUBLISHED), (PUBLISHED, PLAIN)])
def test_two_formats_in_one_file_are_an_error(tmp_path: Path, first: bytes, second: bytes) -> None:
    """A file is of one format; the line where the other begins is named."""
    events, error = read_until_error(read_any(stored(tmp_path, first + second)))
    assert len(events) == first.count(b"\n")
    assert error is not None
    assert (error.code, error.line) == ("RKV113", len(events) + 1)


def test_first_line_that_is_no_event_of_either_format_is_an_error(tmp_path: Path) -> None:
    """What cannot be told is judged as a native trace, and refused as such."""
    for data, code in (
        (b"{}\n", "RKV104"),
        (b"[]\n", "RKV101"),
        (b'{"event_sequence":1,"event_sequence":1}\n', "RKV102"),
    ):
        error = read_until_error(read_any(stored(tmp_path, data)))[1]
        assert error is not None
        assert error.code == code
