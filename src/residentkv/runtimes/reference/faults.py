"""The public fault interface of the second tier: what goes wrong goes wrong in bytes and transfers, never in events."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from residentkv.errors import ResidentKVError, UsageError

if TYPE_CHECKING:
    from residentkv.runtimes.reference.tiers import TierEntry


class TransferFailed(ResidentKVError):
    """A transfer was made to fail."""


class Faults:
    """Armed before or during a run; each method says what the engine will meet."""

    def __init__(self) -> None:
        self._failing_loads = 0
        self._failing_stores = 0
        self._entries: dict[str, TierEntry] = {}

    def attach(self, entries: dict[str, TierEntry]) -> None:
        """Connect to the entries of the tier that these faults are for."""
        self._entries = entries

    def fail_loads(self, count: int = 1) -> None:
        """Let the next `count` load transfers fail; the stored bytes stay good."""
        self._failing_loads = _at_least_one(count)

    def fail_stores(self, count: int = 1) -> None:
        """Let the next `count` store transfers fail; nothing of them is stored."""
        self._failing_stores = _at_least_one(count)

    def corrupt(self, names: Iterable[str] | None = None) -> int:
        """Flip one bit in stored blocks (all by default) behind their checksum; return how many."""
        return self._damage(names, lambda data: bytes([data[0] ^ 1]) + data[1:], resign=False)

    def zero(self, names: Iterable[str] | None = None, *, undetectably: bool = False) -> int:
        """Overwrite stored blocks with zeros; return how many.

        With `undetectably` the checksum is written anew as well: loads succeed, and only the output shows that the
        bytes were really read. That is the negative control of a restoration.
        """
        return self._damage(names, lambda data: bytes(len(data)), resign=undetectably)

    def drop(self, names: Iterable[str] | None = None) -> int:
        """Lose stored blocks without a word, pinned or not; return how many."""
        chosen = self._chosen(names)
        for name in chosen:
            del self._entries[name]
        return len(chosen)

    def check_store(self) -> None:
        """Called by the tier before a store.

        Raises:
            TransferFailed: this store was made to fail.
        """
        if self._failing_stores:
            self._failing_stores -= 1
            raise TransferFailed("the store transfer was made to fail")

    def next_load_failure(self) -> str | None:
        """Called by the tier for every load: why all of it fails, or None."""
        if not self._failing_loads:
            return None
        self._failing_loads -= 1
        return "transfer_failed"

    def _damage(self, names: Iterable[str] | None, change: Callable[[bytes], bytes], *, resign: bool) -> int:
        chosen = self._chosen(names)
        for name in chosen:
            entry = self._entries[name]
            entry.data = change(entry.data)
            if resign:
                entry.checksum = hashlib.blake2b(entry.data, digest_size=16).digest()
        return len(chosen)

    def _chosen(self, names: Iterable[str] | None) -> list[str]:
        return [name for name in (list(self._entries) if names is None else names) if name in self._entries]


def _at_least_one(count: int) -> int:
    if count < 1:
        raise UsageError(f"count of failing transfers: found {count}, expected at least 1")
    return count
