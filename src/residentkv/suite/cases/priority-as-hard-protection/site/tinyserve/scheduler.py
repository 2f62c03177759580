"""The queue of requests and the cache behind it."""

from __future__ import annotations


class Scheduler:
    """Requests run by priority; cached blocks go by recency."""

    def pick_next(self, waiting):
        """The most important request runs first."""
        return max(waiting, key=lambda request: request.priority)

    def pick_victim(self, cached):
        """Make room."""
        return min(cached, key=lambda block: block.last_used)
