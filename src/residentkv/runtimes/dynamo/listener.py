"""Listening to the event plane of a fleet; `zmq` is in the environment of the runtime."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from residentkv.runtimes.dynamo.kvevents import Batch, decode_message

SETTLE_S = 0.5
"""ZMQ tells nobody when a subscription has reached its publisher; what is published before is missed, and is a gap."""


class Listener:
    """A subscription to the KV events of publishers; `read` never waits longer than it is told to."""

    def __init__(self, channels: Mapping[int, str]) -> None:
        import zmq

        self._zmq = zmq
        self._socket: Any = zmq.Context.instance().socket(zmq.SUB)
        self._socket.setsockopt(zmq.SUBSCRIBE, b"")
        self._connected: set[str] = set()
        self.follow(channels)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close(0)

    def follow(self, channels: Mapping[int, str]) -> None:
        """Listen to these publishers, too."""
        fresh = set(channels.values()) - self._connected
        for address in sorted(fresh):
            self._socket.connect(address)
        self._connected |= fresh
        if fresh:
            time.sleep(SETTLE_S)

    def leave(self) -> None:
        """Stop listening to all publishers, as a subscriber that loses its connection does; `follow` listens again."""
        for address in sorted(self._connected):
            self._socket.disconnect(address)
        self._connected.clear()
        self.read()

    def read(self, wait_s: float = 0.0) -> list[Batch]:
        """Return what came, in the order in which it came; wait for the first message if there is none.

        Raises:
            InputError: a message that cannot be understood.
        """
        found = []
        patience_ms = round(wait_s * 1000)
        while self._socket.poll(patience_ms):
            found.append(decode_message(self._socket.recv_multipart()))
            patience_ms = 0
        return found

    def drain(self, quiet_s: float = 1.0) -> list[Batch]:
        """Return what comes until nothing came for a while."""
        found: list[Batch] = []
        while fresh := self.read(quiet_s):
            found.extend(fresh)
        return found
