"""Which copies of which block lie in a tier, told as block events when a log is open.

No vLLM here: `primary` and the manager of the second tier say what comes and goes. A copy is (tier, place): the number
of the block in the primary tier, the row in the second one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from residentkv.runtimes.vllm.eventlog import EventLog
from residentkv.trace.events import BlockRemoved, BlockStored


class CopyLog:
    """The copies of one tier.

    Args:
        log: where the events go; what was said is known only while it is open, see `begin`.
        tier: its name in the events.
    """

    def __init__(self, log: EventLog, tier: str) -> None:
        self._log = log
        self._tier = tier
        self._names: dict[int, str] = {}
        self._leaving: list[tuple[int, str]] = []

    def begin(self, copies: Iterable[tuple[int, str]]) -> None:
        """A new log was opened: say what lies in the tier already."""
        self._names.clear()
        self.stored(list(copies), None)

    def stored(self, copies: Sequence[tuple[int, str]], request_id: str | None) -> None:
        """Say which (place, name) are there now; what was said before is not said again."""
        if not self._log.enabled:
            return
        new = [(place, name) for place, name in copies if self._names.get(place) != name]
        over = [(place, self._names[place]) for place, _ in new if place in self._names]
        if over:
            self._tell_removed(over)
        if new:
            self._names.update(new)
            self._log.emit(
                BlockStored,
                tier=self._tier,
                block_hashes=tuple(name for _, name in new),
                block_ids=tuple(place for place, _ in new),
                request_id=request_id,
            )

    def leaving(self, place: int, name: str) -> None:
        """A copy is being taken out of the tier; it is said by the next `flush`."""
        self._leaving.append((place, name))

    def flush(self) -> list[str]:
        """Say which copies left since the last call, and return their names."""
        leaving, self._leaving = self._leaving, []
        if leaving and self._log.enabled:
            self.stored(leaving, None)  # A copy that came and went within one step.
            self._tell_removed(leaving)
        return [name for _, name in leaving]

    def removed(self, places: Iterable[int]) -> None:
        """Say at once that these copies are gone, as far as they were said to be there."""
        gone = [(place, self._names[place]) for place in places if place in self._names]
        if gone:
            self._tell_removed(gone)

    def clear(self) -> None:
        """Say that the whole tier was emptied."""
        self.flush()
        self.removed(list(self._names))

    def _tell_removed(self, copies: Sequence[tuple[int, str]]) -> None:
        for place, _ in copies:
            self._names.pop(place, None)
        self._log.emit(
            BlockRemoved,
            tier=self._tier,
            block_hashes=tuple(name for _, name in copies),
            block_ids=tuple(place for place, _ in copies),
            request_id=None,
        )
