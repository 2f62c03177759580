"""A clock that moves only when it is told to, and by a fixed tick with every event."""

from __future__ import annotations


class ManualClock:
    """Nanoseconds from 0; two runs of one workload read the same times."""

    def __init__(self, *, tick_ns: int = 1000) -> None:
        self._now_ns = 0
        self._tick_ns = tick_ns

    @property
    def now_ns(self) -> int:
        """The time, without moving it."""
        return self._now_ns

    @property
    def next_ns(self) -> int:
        """The time that the next event will carry; what is due then is due now."""
        return self._now_ns + self._tick_ns

    def tick(self) -> int:
        """Move by one tick and return the time; this stamps events."""
        self._now_ns += self._tick_ns
        return self._now_ns

    def advance_s(self, seconds: float) -> None:
        """Let time pass."""
        self.advance_to(self._now_ns + round(seconds * 1e9))

    def advance_to(self, now_ns: int) -> None:
        """Move to a later time; an earlier one changes nothing."""
        self._now_ns = max(self._now_ns, now_ns)
