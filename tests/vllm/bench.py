"""A stand-in for vLLM around the plugin's own logic: two tiers as sets, one request after another, no model.

It calls the residency in the order in which the connector and the scheduler class do on a real engine, so that the
logic can be tested in milliseconds; `tests/live` shows the same on vLLM itself.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from residentkv.audit.api import audit_file
from residentkv.audit.model import AuditReport
from residentkv.claims.arbiter import ArbiterPolicy
from residentkv.claims.predicates import ranges_of
from residentkv.runtimes.vllm.active import Lookup
from residentkv.runtimes.vllm.admission import Door
from residentkv.runtimes.vllm.claimbook import ClaimBook
from residentkv.runtimes.vllm.eventlog import EventLog
from residentkv.runtimes.vllm.intake import RequestFacts
from residentkv.runtimes.vllm.jobs import JobPart, OpenJob
from residentkv.runtimes.vllm.options import Mechanism, PluginOptions
from residentkv.runtimes.vllm.residency import Residency
from residentkv.trace.events import Event
from residentkv.trace.reader import read_trace

BLOCK = 4
"""Tokens a block."""


class Tiers:
    """Both tiers as sets; implements `CopyView`, and `PrimaryView` over as many blocks as requests and pins name."""

    def __init__(self, rows: int, usable_blocks: int) -> None:
        self.usable_blocks = usable_blocks
        self.primary: set[bytes] = set()
        self.tables: dict[str, list[int]] = {}
        self.pins: Counter[int] = Counter()
        self.excludes_victims = True
        self._numbers: dict[bytes, int] = {}
        self.tier: set[bytes] = set()
        self.coming: set[bytes] = set()
        self.rows = rows
        self.holds: Counter[bytes] = Counter()

    def in_primary(self, block_hash: bytes) -> bool:
        return block_hash in self.primary

    def in_tier(self, key: bytes) -> bool:
        return key in self.tier

    def kept(self, key: bytes) -> bool:
        return key in self.tier or key in self.coming

    def tier_rows(self) -> int:
        return self.rows

    def hold(self, keys: Collection[bytes]) -> None:
        self.holds.update(keys)

    def let_go(self, keys: Collection[bytes]) -> None:
        self.holds.subtract(keys)
        self.holds = +self.holds

    def held_with(self, keys: Collection[bytes]) -> int:
        return len(set(self.holds) | set(keys))

    def condemn(self, keys: Collection[bytes]) -> None:
        """Nothing is told of copies here."""

    def number(self, block_hash: bytes) -> int:
        return self._numbers.setdefault(block_hash, len(self._numbers))

    def find(self, block_hash: bytes) -> int | None:
        return self.number(block_hash) if block_hash in self.primary else None

    def pin(self, block_hashes: Sequence[bytes]) -> tuple[int, ...]:
        if not self.excludes_victims:
            return ()
        ids = tuple(self.number(h) for h in block_hashes if h in self.primary)
        self.pins.update(ids)
        return ids

    def unpin(self, block_ids: Sequence[int]) -> None:
        self.pins.subtract(block_ids)
        self.pins = +self.pins

    def lose(self, block_ids: Sequence[int]) -> None:
        self.unpin(block_ids)
        self.primary -= {h for h, i in self._numbers.items() if i in block_ids}

    def settle(self) -> None:
        """Pins are given back at once here."""

    def used_blocks(self) -> int:
        return len(set(self.pins) | {i for table in self.tables.values() for i in table})

    def pinned_blocks(self) -> int:
        return len(self.pins)

    def is_pinned(self, block_id: int) -> bool:
        return block_id in self.pins

    def users(self, block_id: int) -> int:
        return sum(block_id in table for table in self.tables.values())

    def allocated(self, request_id: str) -> list[int]:
        return self.tables.get(request_id, [])

    def count_allocated(self, request_id: str) -> int:
        return len(self.tables.get(request_id, ()))


class Bench:
    """One engine incarnation."""

    def __init__(
        self, folder: Path, *, rows: int = 64, usable: int = 96, attempts: int = 1, ranks: int = 1, **options: Any
    ) -> None:
        self.path = folder / "trace.jsonl"
        self.ranks = ranks
        self.now_ns = 1_000
        self.log = EventLog(runtime_version="0.32.0")
        self.tiers = Tiers(rows, usable)
        settings = PluginOptions(**options)
        policy: ArbiterPolicy = settings.arbiter_policy()
        self.tiers.excludes_victims = settings.keeps(Mechanism.VICTIM_EXCLUSION)
        self.log.now_ns = self._now  # type: ignore[method-assign]
        self.log.open(str(self.path), "bench")
        self.book = ClaimBook(self.log, self.tiers, usable_blocks=usable, policy=policy)
        self.door = Door(self.book, self.tiers, checks=settings.keeps(Mechanism.FEASIBILITY_CHECK))
        self.book.active_beside = self.door.active_beside
        self.residency = Residency(self.book, self.door, restore_attempts=attempts)
        self.prompts: dict[str, RequestFacts] = {}
        self.refused: list[str] = []
        self.replies: dict[str, dict[str, Any] | None] = {}
        self._jobs = itertools.count()

    def _now(self) -> int:
        if self.log._instant_ns is not None:
            return self.log._instant_ns
        self.now_ns += 1
        return self.now_ns

    # --- requests ---

    def arrive(self, request_id: str, tokens: list[int], claim: Any = None, **more: Any) -> dict[str, Any]:
        """A request arrives; return what was answered about its claim."""
        unreadable, salt = more.pop("unreadable", None), more.pop("salt", "")
        text, barred = more.pop("text", True), more.pop("barred", None)
        max_tokens = more.pop("max_tokens", 2)
        params = ({"resident_claim": claim} if claim is not None else {}) | more
        hashes, seed = [], salt.encode()
        for i in range(len(tokens) // BLOCK):
            seed = hashlib.sha256(seed + bytes(str(tokens[i * BLOCK : (i + 1) * BLOCK]), "ascii")).digest()
            hashes.append(seed)
        facts = RequestFacts(
            request_id=request_id,
            params=params,
            token_ids=tokens if text else None,
            prompt_tokens=len(tokens),
            block_tokens=BLOCK,
            hashes=hashes,
            keys=[h + b"\0" for h in hashes],
            cache_identity=f"cache:{salt or 'none'}",
            unreadable=unreadable,
            barred=barred,
            max_tokens=max_tokens,
        )
        self.prompts[request_id] = facts
        self.residency.request_new(facts)
        reply: dict[str, Any] = self.residency._requests[request_id].reply
        return reply

    def open_door(self) -> dict[str, str]:
        """Decide about all that wait; return `in` or `refused` for those who do so no longer; the latter have ended."""
        admitted, refused = self.residency.open_door()
        for request_id in refused:
            self.end(request_id, "error", 0)
        return dict.fromkeys(admitted, "in") | dict.fromkeys(refused, "refused")

    def schedule(self, request_id: str) -> OpenJob | str | None:
        """Let in, look up and allocate; return the load job, None when nothing is loaded, or `refused`."""
        if self.door.holds(request_id):
            answers = self.open_door()
            if answers.get(request_id) == "refused":
                return "refused"
            assert answers.get(request_id) == "in", "the request waits before the door"
        facts = self.prompts[request_id]
        local = _leading(facts.hashes, self.tiers.primary)
        hits = _leading(facts.keys[local:], self.tiers.tier)
        if self.residency.lookup(request_id, local, hits) is Lookup.REFUSE:
            assert self.residency.take_refusals() == [request_id]
            self.end(request_id, "error", 0)
            return "refused"
        self.residency.admitted(request_id, hits)
        self.tiers.tables[request_id] = [self.tiers.number(h) for h in facts.hashes]
        if not hits:
            return None
        return self.make_job(request_id, True, range(local, local + hits))

    def make_job(self, request_id: str, is_load: bool, positions: Collection[int]) -> OpenJob:
        """A transfer job is made."""
        facts = self.prompts[request_id]
        keys = [facts.keys[p] for p in positions]
        if not is_load:
            self.tiers.coming.update(keys)
        return self.residency.job_created(
            request_id,
            next(self._jobs),
            is_load=is_load,
            keys=keys,
            positions=list(positions),
            block_ids=[100 + p for p in positions],
            workers_total=self.ranks,
        )

    def finish_job(self, job: OpenJob, failed: Collection[int] = (), *, damaged: bool = False) -> bool:
        """A job is over; return whether the request was refused because of it."""
        parts = [
            JobPart(
                job_id=job.job_id,
                worker=worker,
                failed=tuple(sorted(failed)),
                bytes=(len(job.positions) - len(failed)) * 10,
                reason="" if not failed else ("checksum_mismatch" if damaged else "injected"),
                damaged=damaged,
                start_ns=1,
                end_ns=2,
            )
            for worker in range(self.ranks)
        ]
        self.residency.transfers(parts)
        refusal = self.residency.refusal_of(job.request_id)
        if refusal is not None and job.is_load:
            self.end(job.request_id, "error", 0)
        if job.is_load:
            facts = self.prompts[job.request_id]
            self.tiers.tier -= job.drop
            if job.drop:
                self.residency.copies_dropped(job.drop)
            if not failed:
                self.tiers.primary.update(facts.hashes[p] for p in job.positions)
        else:
            self.tiers.coming.difference_update(job.keys)
            if failed:
                self.tiers.tier.difference_update(job.keys)
                self.residency.copies_dropped(job.keys)
            else:
                self.tiers.tier.update(job.keys)
        self.residency.copies_settled()
        return refusal is not None

    def compute(self, request_id: str, *, store: bool = True, fail_store: bool = False) -> None:
        """Prefill what is not there, store what the claim lacks, produce two tokens and end."""
        facts = self.prompts[request_id]
        have = _leading(facts.hashes, self.tiers.primary)
        before = min(have * BLOCK, facts.prompt_tokens - 1)
        wanted = [
            p
            for p, key in enumerate(facts.keys)
            if key not in self.tiers.tier or self.residency.needs_own_store(request_id, key)
        ]
        job = self.make_job(request_id, False, wanted) if store and wanted else None
        self.tiers.primary.update(facts.hashes)
        if request_id in self.residency.watched:
            self.residency.step_done(request_id, before, facts.prompt_tokens)
        if job is not None:
            self.finish_job(job, job.positions if fail_store else ())
        self.end(request_id, "length", 2)

    def end(self, request_id: str, status: str, output_tokens: int) -> None:
        """The request ends and no further store is made for it; one that was served had been let in."""
        if status == "length" and self.door.holds(request_id):
            assert self.open_door()[request_id] == "in"
        self.replies[request_id] = self.residency.request_finished(request_id, status, output_tokens)
        self.tiers.tables.pop(request_id, None)
        self.residency.stores_ended(request_id)

    def serve(self, request_id: str, tokens: list[int], claim: Any = None, **more: Any) -> str:
        """Arrive, load, compute, end: return `refused` or `served`. `fail` names positions whose load fails."""
        fail, damaged = more.pop("fail", ()), more.pop("damaged", False)
        fail_store, store = more.pop("fail_store", False), more.pop("store", True)
        self.arrive(request_id, tokens, claim, **more)
        while True:
            job = self.schedule(request_id)
            if job == "refused":
                return "refused"
            if job is None:
                break
            assert isinstance(job, OpenJob)
            if self.finish_job(job, [p for p in fail if p in job.positions], damaged=damaged):
                return "refused"
            if not fail:
                break
            fail = ()
        self.compute(request_id, store=store, fail_store=fail_store)
        return "served"

    # --- the operator ---

    def reset_primary(self) -> None:
        """Empty the primary tier."""
        self.residency.before_reset(primary=True, tier=False)
        self.tiers.primary.clear()

    def stop(self) -> AuditReport:
        """End the engine in order and audit its log."""
        self.residency.release_all("engine:shutdown", "shutdown")
        self.log.close("shutdown")
        assert self.log.failure is None
        return audit_file(self.path)

    def events(self, *names: str) -> list[Event]:
        """Return the events written so far, or those of these names."""
        out = [e for chunk in read_trace(self.path) for e in chunk]
        return [e for e in out if not names or event_name(e) in names]

    def names(self) -> list[str]:
        """Return the names of all events written so far."""
        return [event_name(e) for e in self.events()]


def event_name(event: Event) -> str:
    """Return the published name of an event."""
    return str(event.__struct_config__.tag)


def claim(name: str = "c", owner: str = "tenant", **changes: Any) -> dict[str, Any]:
    """Return the wire form of a claim on four leading blocks."""
    return {
        "claim_id": name,
        "owner_scope": owner,
        "predicate": "leading_prefix_at_least(4)",
        "mode": "offloadable",
    } | changes


def prompt(seed: int = 1, blocks: int = 4) -> list[int]:
    """Return a prompt of so many full blocks and one token more."""
    return [seed * 1000 + i for i in range(blocks * BLOCK + 1)]


def _leading(names: Any, present: set[bytes]) -> int:
    return sum(1 for _ in itertools.takewhile(lambda n: n in present, names))


__all__ = ["BLOCK", "Bench", "claim", "event_name", "prompt", "ranges_of"]
