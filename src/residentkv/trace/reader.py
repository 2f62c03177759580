"""Reading traces from files: chunks of events in bounded memory, and the digest of what was stored."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from residentkv.errors import InputError, NoInputError
from residentkv.trace.codec import decode_chunk, empty_error, torn_error
from residentkv.trace.codes import LONG_LINE, TORN_STREAM
from residentkv.trace.events import AnyEvent
from residentkv.trace.published import PublishedDecoder, is_published_line
from residentkv.trace.scan import first_bad_byte, not_text_error
from residentkv.trace.segments import missing_part, parts_of
from residentkv.trace.streams import MAX_LINE_BYTES, LineChunks, StoredFile, TraceDigest

__all__ = ["TraceDigest", "read_any", "read_published", "read_trace"]

DecodeChunk = Callable[[bytes, int], tuple[list[AnyEvent], InputError | None]]
"""Decode a chunk of whole lines that follows so many lines: the events up to the first wrong line, and its error."""


def read_trace(path: str | os.PathLike[str], *, digest: TraceDigest | None = None) -> Iterator[list[AnyEvent]]:
    """Read a native trace.

    Args:
        path: a file, plain or compressed with gzip or zstd (told by its first bytes), or `-` for standard input; when
            the log was rotated, its parts `PATH.000001`, `PATH.000002`, ... are read before it, as one trace.
        digest: filled in while reading, when given; complete once the iterator is exhausted or has raised.

    Yields:
        Lists of events, none of them empty, in file order; memory stays bounded however long the trace is.

    Raises:
        NoInputError: there is no such file, or it cannot be opened.
        InputError: RKV101 to RKV113. Everything before the wrong line was yielded before; the error has the line.
    """
    name = os.fspath(path)
    return _read(name, digest, lambda first_line, part: _native(part))


def read_published(path: str | os.PathLike[str], *, digest: TraceDigest | None = None) -> Iterator[list[AnyEvent]]:
    """Read a trace in the published format; arguments, result and errors are those of `read_trace`."""
    name = os.fspath(path)
    decoder = PublishedDecoder(name)
    return _read(name, digest, lambda first_line, part: decoder.decode_chunk)


def read_any(path: str | os.PathLike[str], *, digest: TraceDigest | None = None) -> Iterator[list[AnyEvent]]:
    """Read a trace in the format that its first line has; arguments, result and errors are those of `read_trace`.

    A line of the other format further down is an error (RKV113).
    """
    name = os.fspath(path)

    first_part = parts_of(name)[0]

    def decoder_for(first_line: bytes, part: str) -> DecodeChunk:
        """Only native logs are rotated: what follows another format is not understood."""
        published = part == first_part and is_published_line(first_line)
        return PublishedDecoder(name).decode_chunk if published else _native(part)

    return _read(name, digest, decoder_for)


def _native(path: str) -> DecodeChunk:
    def decode(chunk: bytes, lines_before: int) -> tuple[list[AnyEvent], InputError | None]:
        return decode_chunk(chunk, path=path, lines_before=lines_before)

    return decode


def _read(
    path: str, digest: TraceDigest | None, decoder_for: Callable[[bytes, str], DecodeChunk]
) -> Iterator[list[AnyEvent]]:
    """Read a trace, all its parts when it was rotated: one stream, in which only the last part may be empty."""
    seen = TraceDigest() if digest is None else digest
    parts = parts_of(path)
    for i, part in enumerate(parts):
        last = i + 1 == len(parts)
        before = seen.events
        decode: DecodeChunk | None = None
        with StoredFile(part, digest, more_follows=not last) as stored:
            try:
                chunks = LineChunks(stored.text_blocks())
                for chunk in chunks:
                    if decode is None:
                        decode = decoder_for(chunk[: chunk.index(b"\n")], part)
                    events, error = decode(chunk, seen.events - before)
                    seen.events += len(events)
                    if events:
                        yield events
                    if error is not None:
                        raise error
                _check_end(chunks, part, seen.events - before, may_be_empty=last and before > 0)
            except InputError:
                if stored.drain():
                    _drain(parts[i + 1 :], digest)
                raise
    missing = missing_part(path) if len(parts) > 1 else None
    if missing is not None:
        raise InputError(
            "torn stream: found later parts of the log and not this one, expected every part from 000001 on; "
            "put it back, or audit each file by itself under another name",
            path=missing,
            code=TORN_STREAM.code,
        )


def _drain(parts: list[str], digest: TraceDigest | None) -> None:
    """Read what follows an error, for the digest only; a trace that cannot be read to its end has none."""
    for part in parts:
        try:
            with StoredFile(part, digest, more_follows=part != parts[-1]) as stored:
                if not stored.drain():
                    return
        except NoInputError:
            return


def _check_end(chunks: LineChunks, path: str, lines: int, *, may_be_empty: bool) -> None:
    """Raise unless the text ended with a whole line."""
    if chunks.error is not None:
        raise InputError(chunks.error.message, path=path, line=lines + 1, code=TORN_STREAM.code)
    tail = chunks.tail
    if not tail:
        if lines == 0 and not may_be_empty:
            raise empty_error(path)
        return
    bad = first_bad_byte(tail)
    if bad is not None:
        raise not_text_error(tail, bad, path=path, line_number=lines + 1)
    if chunks.too_long:
        raise InputError(
            f"line too long: found more than {MAX_LINE_BYTES} bytes without a line end, expected one event a line; "
            "is this one large JSON document?",
            path=path,
            line=lines + 1,
            code=LONG_LINE.code,
        )
    raise torn_error(tail, path=path, line_number=lines + 1)
