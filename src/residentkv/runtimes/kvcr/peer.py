"""A second process with a KVCR of its own, told by a pipe what to do; it can be killed like any process."""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection
from typing import Any

from residentkv.runtimes.kvcr.content import block_bytes
from residentkv.runtimes.kvcr.node import PATIENCE_S, POLL_S, Node, NodeFailed, Outcome


def serve(pipe: Connection, name: str, slots: int, buffer_blocks: int, ports: tuple[int, int]) -> None:
    """Run one node until told to stop: carry out what the pipe says, and let KVCR make progress between."""
    node = Node(name, slots=slots, buffer_blocks=buffer_blocks, ports=ports)
    pipe.send(node.endpoint)
    try:
        while True:
            if not pipe.poll(POLL_S):
                node.pump()
                continue
            word, arguments = pipe.recv()
            if word == "stop":
                break
            if word == "fill":
                for index, key in enumerate(arguments[0]):
                    node.buffer.write(index, block_bytes(key))
                pipe.send(None)
            elif word == "deposit":
                keys, no_evict = arguments
                pipe.send(node.deposit({key: i for i, key in enumerate(keys)}, no_evict=no_evict))
            elif word == "release":
                pipe.send(node.release(arguments[0]))
            else:
                pipe.send(node.query(arguments[0]))
    finally:
        node.close()


class Peer:
    """The other end of the pipe."""

    def __init__(self, name: str, *, slots: int, buffer_blocks: int, ports: tuple[int, int]) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(
            target=serve, args=(theirs, name, slots, buffer_blocks, ports), name=name, daemon=True
        )
        self._process.start()
        theirs.close()
        self.died = False
        self.endpoint = str(self._receive())

    def deposit(self, keys: tuple[bytes, ...], *, no_evict: bool) -> dict[bytes, Outcome]:
        """Let the peer compute blocks into its buffer and deposit them."""
        self._ask("fill", keys)
        found: dict[bytes, Outcome] = self._ask("deposit", keys, no_evict)
        return found

    def release(self, handles: list[int]) -> dict[int, bool]:
        """Let the peer give handles back."""
        found: dict[int, bool] = self._ask("release", handles)
        return found

    def query(self, keys: list[bytes]) -> list[tuple[str, str | None]]:
        """Ask the peer what it has."""
        found: list[tuple[str, str | None]] = self._ask("query", keys)
        return found

    def kill(self) -> None:
        """Let the process die without a word."""
        self.died = True
        self._process.kill()
        self._process.join()

    def stop(self) -> None:
        """End the process in order; one that is dead already is left alone."""
        if self._process.is_alive():
            self._pipe.send(("stop", ()))
            self._process.join(PATIENCE_S)
        self._process.kill()
        self._process.join()

    def _ask(self, word: str, *arguments: Any) -> Any:
        self._pipe.send((word, arguments))
        return self._receive()

    def _receive(self) -> Any:
        if not self._pipe.poll(2 * PATIENCE_S):
            raise NodeFailed(f"the process of {self._process.name} does not answer")
        try:
            return self._pipe.recv()
        except EOFError:
            raise NodeFailed(f"the process of {self._process.name} ended; see its messages in the log") from None
