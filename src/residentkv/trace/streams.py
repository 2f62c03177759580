"""Stored bytes to chunks of whole lines, in bounded memory: plain, gzip and zstd, told apart by their first bytes."""

from __future__ import annotations

import hashlib
import os
import sys
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

import zstandard

from residentkv.errors import InputError, NoInputError
from residentkv.trace.codes import TORN_STREAM

CHUNK_BYTES: Final = 1 << 16
"""Lines are handed on in chunks of about this size: small enough to stay in the cache of one core."""

MAX_LINE_BYTES: Final = 1 << 24
MAX_WINDOW_BYTES: Final = 1 << 27
_ZSTD_FEED_BYTES: Final = 512
"""A zstd block of 4 bytes can stand for 128 KiB, so one call on 512 bytes returns at most 16 MiB."""


class TraceDigest:
    """What is known about the stored bytes of one trace once it was read.

    `sha256` (hex) is of the bytes as stored, compressed or not, and stays None until all of them were read: it is set
    also after an error in a line, and not when the file cannot be read to its end or the caller stops early. `events`
    counts the events handed out. The files of a rotated trace are digested as if they were one.
    """

    def __init__(self) -> None:
        self.sha256: str | None = None
        self.events = 0
        self.hashed = hashlib.sha256()


class StoredFile:
    """One file, or standard input for `-`, read forward once."""

    def __init__(self, path: str | os.PathLike[str], digest: TraceDigest | None, *, more_follows: bool = False) -> None:
        """Open it and read the first bytes; with `more_follows` the digest is not complete at its end.

        Raises:
            NoInputError: it does not exist, or cannot be opened or read.
        """
        self.path = os.fspath(path)
        self._more_follows = more_follows
        try:
            if self.path != "-" and (Path(self.path).is_char_device() or Path(self.path).is_block_device()):
                raise ValueError("a device, which may have no end")
            self._file: BinaryIO = (
                sys.stdin.buffer if self.path == "-" else Path(self.path).open("rb")  # noqa: SIM115 (see __exit__)
            )
            self._first = self._file.read(CHUNK_BYTES)
        except (OSError, ValueError) as e:
            reason = e.strerror if isinstance(e, OSError) else str(e)
            raise NoInputError(
                f"{self.path}: {reason}; expected a trace of JSON lines, plain, gzip or zstd, or '-' for standard input"
            ) from None
        self._stored = self._blocks(digest)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.path != "-":
            self._file.close()

    def _blocks(self, digest: TraceDigest | None) -> Iterator[bytes]:
        block = self._first
        while block:
            if digest is not None:
                digest.hashed.update(block)
            yield block
            try:
                block = self._file.read(CHUNK_BYTES)
            except OSError as e:
                raise _torn(self.path, f"{e.strerror} while reading") from None
        if digest is not None and not self._more_follows:
            digest.sha256 = digest.hashed.hexdigest()

    def text_blocks(self) -> Iterator[bytes]:
        """Yield the text once, decompressed when the first bytes are those of gzip or zstd.

        Raises:
            InputError: RKV112, the stored or compressed bytes end early or are corrupt.
        """
        if self._first[:2] == b"\x1f\x8b":
            return _gunzip(self._stored, self.path)
        zstd_frame = self._first[:4] == b"\x28\xb5\x2f\xfd"
        zstd_skippable = self._first[1:4] == b"\x2a\x4d\x18" and 0x50 <= self._first[0] <= 0x5F
        if zstd_frame or zstd_skippable:
            return _unzstd(self._stored, self.path)
        return self._stored

    def drain(self) -> bool:
        """Read what is left, for the digest only, and tell whether that was possible."""
        try:
            for _ in self._stored:
                pass
        except InputError:
            return False
        return True


def _torn(path: str, found: str) -> InputError:
    return InputError(
        f"torn stream: found {found}, expected a whole file; copy or write the trace again",
        path=path,
        code=TORN_STREAM.code,
    )


def _gunzip(blocks: Iterable[bytes], path: str) -> Iterator[bytes]:
    """Decompress gzip members, one after another, zero padding between them allowed; at most a chunk at a time."""
    member = zlib.decompressobj(wbits=31)
    started = True
    for stored in blocks:
        block = stored
        while block or started:
            if not started:
                block = block.lstrip(b"\x00")
                if not block:
                    break
                member, started = zlib.decompressobj(wbits=31), True
            try:
                text = member.decompress(block, CHUNK_BYTES)
            except zlib.error as e:
                raise _torn(path, f"corrupt gzip data ({e})") from None
            if text:
                yield text
            if member.eof:
                block, started = member.unused_data, False
            else:
                block = member.unconsumed_tail
                if not block and len(text) < CHUNK_BYTES:
                    break
    if started:
        raise _torn(path, "the end of the file within a gzip member")


def _unzstd(blocks: Iterable[bytes], path: str) -> Iterator[bytes]:
    """Decompress zstd frames, one after another."""
    frame: zstandard.ZstdDecompressionObj | None = None
    for block in blocks:
        for at in range(0, len(block), _ZSTD_FEED_BYTES):
            piece = block[at : at + _ZSTD_FEED_BYTES]
            while piece:
                if frame is None:
                    frame = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES).decompressobj()
                try:
                    text = frame.decompress(piece)
                except zstandard.ZstdError as e:
                    raise _torn(path, f"corrupt zstd data ({e})") from None
                if text:
                    yield text
                piece = frame.unused_data if frame.eof else b""
                if frame.eof:
                    frame = None
    if frame is not None:
        raise _torn(path, "the end of the file within a zstd frame")


class LineChunks:
    """Iterate over chunks of whole lines; after the last one, `tail`, `error` and `too_long` say how it ended."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = blocks
        self.tail = b""
        """What stands after the last line end; for a line that is too long, its first part."""
        self.error: InputError | None = None
        """Why the text ended early, when it did."""
        self.too_long = False
        """Whether the line after the last chunk is longer than MAX_LINE_BYTES."""

    def __iter__(self) -> Iterator[bytes]:
        parts: list[bytes] = []
        held_bytes = 0
        open_bytes = 0
        try:
            for block in self._blocks:
                end = block.rfind(b"\n") + 1
                parts.append(block)
                held_bytes += len(block)
                if open_bytes + (block.find(b"\n") if end else len(block)) > MAX_LINE_BYTES:
                    self.too_long = True
                    break
                open_bytes = len(block) - end if end else open_bytes + len(block)
                if end and held_bytes >= CHUNK_BYTES:
                    text = b"".join(parts)
                    yield text[: held_bytes - open_bytes]
                    parts = [text[held_bytes - open_bytes :]]
                    held_bytes = open_bytes
        except InputError as e:
            self.error = e
        text = b"".join(parts)
        if self.too_long:
            ended = len(text) - len(parts[-1]) - open_bytes
        else:
            ended = len(text) - open_bytes
        if ended:
            yield text[:ended]
        self.tail = text[ended:]
