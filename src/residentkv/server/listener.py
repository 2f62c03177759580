"""The claims socket: a Unix socket of the engine process, served by a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path

from residentkv.errors import InputError, UsageError
from residentkv.server.wire import MAX_ANSWER_BYTES, MAX_ASK_BYTES, AnyAnswer, AnyAsk, Problem, decode_ask, encode_line

logger = logging.getLogger("residentkv.server")

MAX_CONNECTIONS = 256
MODE = 0o600
START_PATIENCE_S = 10.0


class Listener:
    """Answers questions one line at a time; `answer` runs in the listener's thread and has to lock what it touches."""

    def __init__(
        self, path: str, answer: Callable[[AnyAsk], AnyAnswer], *, tick: Callable[[], None], every_s: float
    ) -> None:
        """Bind the socket and start the thread.

        Args:
            path: where the socket lies; a socket there that nobody serves any more is replaced.
            answer: called for every question.
            tick: called every `every_s` seconds while the listener lives.

        Raises:
            UsageError: something else lies there, somebody serves it, or it cannot be made.
        """
        self.path = Path(path)
        self._answer = answer
        self._tick = tick
        self._every_s = every_s
        self._open: set[asyncio.StreamWriter] = set()
        self._socket = _bind(self.path)
        self._inode = self.path.stat().st_ino
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="residentkv-claims", daemon=True)
        self._thread.start()
        self._ready.wait(START_PATIENCE_S)

    def close(self) -> None:
        """Stop answering, and remove the socket if it is still this one."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()
        with contextlib.suppress(OSError):
            if self.path.stat().st_ino == self._inode:
                self.path.unlink()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_unix_server(self._connection, sock=self._socket, limit=MAX_ASK_BYTES)
        self._ready.set()
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), self._every_s)
            try:
                self._tick()
            except Exception:
                logger.exception("residentkv: the periodic work of the claims socket failed")
        server.close()
        for writer in list(self._open):
            writer.close()
        await asyncio.sleep(0)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= MAX_CONNECTIONS:
            writer.write(encode_line(Problem(code="unavailable", message=f"{MAX_CONNECTIONS} connections are open")))
            writer.close()
            return
        self._open.add(writer)
        try:
            while line := await self._line(reader, writer):
                writer.write(self._reply(line))
                await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()

    async def _line(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """Return the next whole line; nothing at the end, and after a line that is too long, which is answered."""
        try:
            return await reader.readuntil(b"\n")
        except asyncio.IncompleteReadError:
            return b""
        except asyncio.LimitOverrunError:
            writer.write(
                encode_line(
                    Problem(code="invalid", message=f"a question has at most {MAX_ASK_BYTES} bytes and one line")
                )
            )
            await writer.drain()
            return b""

    def _reply(self, line: bytes) -> bytes:
        try:
            ask = decode_ask(line)
        except InputError as e:
            return encode_line(Problem(code="invalid", message=e.message))
        try:
            out = encode_line(self._answer(ask))
        except Exception as e:
            logger.exception("residentkv: a question on the claims socket was not answered")
            return encode_line(Problem(code="internal", message=f"unexpected {type(e).__name__}; see the engine's log"))
        if len(out) > MAX_ANSWER_BYTES:
            return encode_line(Problem(code="internal", message="the answer is too long; ask for fewer claims at once"))
        return out


def _bind(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _clear(path)
        os.fchmod(sock.fileno(), MODE)  # Linux gives the file the mode of the socket, so it is never open to others.
        sock.bind(str(path))
        path.chmod(MODE)
        sock.listen(64)
        sock.setblocking(False)
    except OSError as e:
        sock.close()
        raise UsageError(f"socket_path: {path}: {e.strerror or e}; name a path in a folder that exists") from None
    except UsageError:
        sock.close()
        raise
    return sock


def _clear(path: Path) -> None:
    """Remove a socket that a killed engine left behind; anything else stays."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise UsageError(f"socket_path: {path}: found a file that is no socket, expected nothing there")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except OSError:
            pass
    raise UsageError(f"socket_path: {path}: another engine answers there; give each engine a path of its own")
