"""One lock over claims: the scheduler's thread holds it while it steps, other threads get in between two steps."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from residentkv.runtimes.vllm.connector import ResidentOffloadingConnector


class GuardedScheduler:
    """Scheduler mixin, outermost: whatever reads or changes claims runs under the connector's guard.

    `shutdown` is not among them: it ends the thread that may be waiting for the guard.
    """

    _guard: AbstractContextManager[Any] = nullcontext()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        connector: Any = getattr(self, "connector", None)
        if isinstance(connector, ResidentOffloadingConnector):
            self._guard = connector.guard

    def add_request(self, *args: Any, **kwargs: Any) -> Any:
        """Take a request in."""
        with self._guard:
            return super().add_request(*args, **kwargs)  # type: ignore[misc]

    def finish_requests(self, *args: Any, **kwargs: Any) -> Any:
        """End requests from outside."""
        with self._guard:
            return super().finish_requests(*args, **kwargs)  # type: ignore[misc]

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """Schedule a step."""
        with self._guard:
            return super().schedule(*args, **kwargs)  # type: ignore[misc]

    def update_from_output(self, *args: Any, **kwargs: Any) -> Any:
        """Take in what a step brought."""
        with self._guard:
            return super().update_from_output(*args, **kwargs)  # type: ignore[misc]

    def reset_prefix_cache(self, *args: Any, **kwargs: Any) -> Any:
        """Empty the primary tier."""
        with self._guard:
            return super().reset_prefix_cache(*args, **kwargs)  # type: ignore[misc]
