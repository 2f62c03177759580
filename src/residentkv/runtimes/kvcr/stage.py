"""What a case stands on: nodes, peers and desks with traces, all gone when the case is over."""

from __future__ import annotations

import socket
import time
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Self

from residentkv.runtimes.claimlog import ClaimLog
from residentkv.runtimes.kvcr.content import Prompt, make_prompt
from residentkv.runtimes.kvcr.desk import Desk
from residentkv.runtimes.kvcr.node import Inventory, Node
from residentkv.runtimes.kvcr.offload import Offloader
from residentkv.runtimes.kvcr.peer import Peer
from residentkv.trace.writer import TraceWriter

ADAPTER = "residentkv_desk"
PRIMITIVE = "claimed_deposit"
SLOTS = 12
"""Blocks of every pool of the study."""

STANDS_IN = ("engine: a program that deposits and reads blocks", "KV: bytes made from token ids")


def free_port() -> int:
    """Return a TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Clock:
    """The monotonic clock, which a case can put forward instead of waiting."""

    def __init__(self) -> None:
        self._ahead_ns = 0

    def __call__(self) -> int:
        """Return the time in nanoseconds."""
        return time.monotonic_ns() + self._ahead_ns

    def skip(self, seconds: float) -> None:
        """Let time pass."""
        self._ahead_ns += round(seconds * 1e9)


class Stage:
    """The processes of one case; leaving it stops them."""

    def __init__(self, case: str, out: Path) -> None:
        self.case = case
        self.out = out
        self._nodes: list[Node] = []
        self._peers: list[Peer] = []
        self._named = 0
        self.clock = Clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        died = any(peer.died for peer in self._peers)
        for peer in self._peers:
            peer.stop()
        if died:
            return  # KVCR refuses to close while a dead peer's transfer is unresolved; the process ends instead.
        for node in self._nodes:
            node.close()

    def node(self, *, slots: int = SLOTS, inventory: Inventory | None = None) -> Node:
        """Start a KVCR in this process."""
        self._named += 1
        name = f"{self.case}-{self._named}"
        node = Node(name, slots=slots, buffer_blocks=SLOTS, ports=(free_port(), free_port()), inventory=inventory)
        self._nodes.append(node)
        return node

    def peer(self) -> Peer:
        """Start a KVCR in another process."""
        self._named += 1
        peer = Peer(f"{self.case}-{self._named}", slots=SLOTS, buffer_blocks=SLOTS, ports=(free_port(), free_port()))
        self._peers.append(peer)
        return peer

    def desk(self) -> Desk:
        """Start a KVCR in this process with a desk before it, which writes the trace of the case."""
        desk = Desk(self._log(self.case), now_ns=self.clock)
        desk.attach(self.node(inventory=desk.on_inventory))
        return desk

    def offloader(self, name: str) -> Offloader:
        """Start a KVCR in this process with an offloader before it, which writes a trace of that name."""
        return Offloader(self._log(name), self.node(), buffer_blocks=SLOTS, now_ns=self.clock)

    def _log(self, name: str) -> ClaimLog:
        path = self.out / f"{name}.jsonl"
        path.unlink(missing_ok=True)
        log = ClaimLog(TraceWriter(path, source="residentkv-desk", run_id=name, mono_ns=self.clock))
        log.open(
            runtime="kvcr",
            version=version("kvcr"),
            primitive=PRIMITIVE,
            adapter=ADAPTER,
            depth="plugin",
            stands_in=STANDS_IN,
        )
        return log

    def prompt(self, name: str, blocks: int) -> Prompt:
        """Return a prefix that no other case has."""
        return make_prompt(f"{self.case}:{name}", blocks)


def load(node: Node, prompt: Prompt) -> dict[bytes, int]:
    """Put the bytes of a prefix into the node's buffer from index 0; return where each key lies."""
    for position in range(prompt.blocks):
        node.buffer.write(position, prompt.bytes_of(position))
    return {key: i for i, key in enumerate(prompt.keys)}


def wipe(node: Node, blocks: int) -> None:
    """Overwrite the node's buffer, so that what is read there later was really delivered."""
    for index in range(blocks):
        node.buffer.write(index, bytes(len(node.buffer.read(index))))


def same_bytes(node: Node, prompt: Prompt) -> bool:
    """Compare the node's buffer with the bytes that the prefix stands for."""
    return all(node.buffer.read(i) == prompt.bytes_of(i) for i in range(prompt.blocks))
