"""Asking the claims socket: from a command, and from the API server's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from residentkv.errors import InputError, NoInputError
from residentkv.server.wire import MAX_ANSWER_BYTES, AnyAnswer, AnyAsk, decode_answer, encode_line

PATIENCE_S = 10.0
MAX_CONNECTIONS = 16
"""Connections of one process at most; the engine answers one question at a time, so more would only wait there."""


def _unreachable(path: str, why: object) -> NoInputError:
    return NoInputError(f"{path}: {why}; expected the claims socket that 'socket_path' names; is the engine running?")


def ask(path: str, question: AnyAsk) -> AnyAnswer:
    """Ask one question and wait for the answer.

    Raises:
        NoInputError: nobody answers there.
        InputError: the answer is not understood.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(PATIENCE_S)
        try:
            sock.connect(path)
            sock.sendall(encode_line(question))
            with sock.makefile("rb") as lines:
                line = lines.readline(MAX_ANSWER_BYTES + 1)
        except OSError as e:
            raise _unreachable(path, e.strerror or e) from None
    if not line.endswith(b"\n"):
        raise _unreachable(path, "the connection ended without an answer")
    return decode_answer(line)


class AsyncClient:
    """Connections that are kept for the next question; each carries one question at a time, others wait for a free one.

    The socket serves a bounded number of connections, to all processes together: a burst of requests takes its turn
    here, and does not take the socket from the operator.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._free = asyncio.Semaphore(MAX_CONNECTIONS)

    async def ask(self, question: AnyAsk) -> AnyAnswer:
        """Ask one question; a kept connection that turns out to be dead is replaced once.

        Raises:
            NoInputError: nobody answers there.
            InputError: the answer is not understood.
        """
        async with self._free:
            return await self._ask(encode_line(question))

    async def _ask(self, line: bytes) -> AnyAnswer:
        while self._idle:
            answer = await self._exchange(self._idle.pop(), line)
            if answer is not None:
                return answer
        try:
            fresh = await asyncio.open_unix_connection(self.path, limit=MAX_ANSWER_BYTES)
        except OSError as e:
            raise _unreachable(self.path, e.strerror or e) from None
        answer = await self._exchange(fresh, line)
        if answer is None:
            raise _unreachable(self.path, "the connection ended without an answer")
        return answer

    async def _exchange(
        self, connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], line: bytes
    ) -> AnyAnswer | None:
        """Send a line and read one; None when the connection ended before an answer."""
        reader, writer = connection
        try:
            writer.write(line)
            async with asyncio.timeout(PATIENCE_S):
                await writer.drain()
                answer = await reader.readuntil(b"\n")
        except TimeoutError:
            writer.close()
            raise _unreachable(self.path, f"no answer within {PATIENCE_S:.0f} s") from None
        except (OSError, asyncio.IncompleteReadError):
            writer.close()
            return None
        except asyncio.LimitOverrunError:
            writer.close()
            raise InputError("claims socket: the answer is too long") from None
        except BaseException:
            writer.close()  # What is still to come would be taken for the answer to the next question.
            raise
        self._idle.append(connection)
        return decode_answer(answer)

    def close(self) -> None:
        """Close what is kept."""
        while self._idle:
            with contextlib.suppress(Exception):
                self._idle.pop()[1].close()
