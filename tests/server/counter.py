"""A desk over the bench: what an engine with an owners file answers, without vLLM."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import Any

from residentkv.runtimes.vllm.desk import Desk
from residentkv.server import wire
from residentkv.server.owners import Owner, Owners
from tests.vllm.bench import Bench, claim, prompt

TICKET = "0" * 32


def sha(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def owners(**quota: int) -> Owners:
    """Tenants a (with the quota) and b."""
    return Owners(
        (
            Owner(owner_scope="tenant-a", token_sha256=(sha("tok-a"),), **quota),
            Owner(owner_scope="tenant-b", token_sha256=(sha("tok-b"),)),
        )
    )


class Counter:
    """An engine, its desk, and requests that come through a middleware."""

    def __init__(self, folder: Path, *, known: Owners | None = None, **options: Any) -> None:
        self.bench = Bench(folder, **options)
        self.guard = threading.RLock()
        self.desk = Desk(self.bench.book, self.guard, owners=known)
        self._tickets = 0

    def begin(self, token: str | None) -> str:
        """Begin a ticket and return it, whatever the answer."""
        self._tickets += 1
        ticket = f"{self._tickets:032x}"
        self.desk.answer(wire.Begin(ticket=ticket, token_sha256=sha(token) if token else None))
        return ticket

    def send(self, request_id: str, token: str | None, asked: dict[str, Any], seed: int = 1) -> dict[str, Any]:
        """Send a request that says something about claims, serve it, and return what it was answered."""
        params = asked | {"residentkv_ticket": self.begin(token)}
        self.bench.arrive(request_id, prompt(seed), barred=self.desk.barred(params), **params)
        self.bench.schedule(request_id)
        self.bench.compute(request_id)
        return self.bench.replies[request_id] or {}

    def claim(self, name: str, owner: str, token: str | None, seed: int = 1, **changes: Any) -> dict[str, Any]:
        """Claim a prompt and return the decision."""
        answer: dict[str, Any] = self.send(
            f"r-{owner}-{name}-{seed}", token, {"resident_claim": claim(name, owner, **changes)}, seed
        )["resident_claim"]
        return answer
