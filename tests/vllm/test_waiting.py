"""The door, attacked: who waits there waits for something that will come, and not past what it was told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from residentkv.audit.model import AuditReport, Verdict
from residentkv.runtimes.vllm.options import ConflictAction
from residentkv.trace.events import RequestAdmitted, RequestRefused
from tests.vllm.bench import Bench, claim, prompt

DEFERRING = tuple(ConflictAction(word) for word in ("expire", "offload", "demote", "defer", "refuse"))


def hard(name: str, blocks: int, **changes: Any) -> dict[str, Any]:
    return claim(name, predicate=f"leading_prefix_at_least({blocks})", mode="hard_protected") | changes


def conforming(report: AuditReport) -> None:
    assert report.verdict is Verdict.CONFORMING, [f.story for f in report.all_findings()]


def start(bench: Bench, request_id: str, tokens: list[int], wire: Any = None) -> None:
    """Let a request in and compute its prompt; it goes on."""
    bench.arrive(request_id, tokens, wire)
    assert bench.schedule(request_id) is None
    bench.tiers.primary.update(bench.prompts[request_id].hashes)
    bench.residency.step_done(request_id, 0, len(tokens))


def release(bench: Bench, claim_id: str) -> None:
    track = bench.book.find("tenant", claim_id)
    assert track is not None
    bench.book.release(track, "tenant", "asked_by_owner")


def deferred_until_work_ends(bench: Bench) -> None:
    """r3, of 6 blocks, was deferred for claims `h` and `g`; `h` of 4 blocks has gone since, and r2 uses 3."""
    bench.serve("r0", prompt(), hard("h", 4))
    bench.serve("r1", prompt(2, blocks=1), hard("g", 1))
    start(bench, "r2", prompt(3, blocks=3))
    bench.arrive("r3", prompt(4, blocks=6))
    assert bench.open_door() == {}
    release(bench, "h")


def never_stored(bench: Bench, max_tokens: int) -> None:
    """A claim `o` of 4 blocks that nobody stores: its first request is over, its second one, r2, is before the door."""
    start(bench, "r1", prompt(), claim("o"))
    bench.arrive("r2", prompt(), claim("o"), max_tokens=max_tokens)
    bench.end("r1", "length", 2)


def test_nobody_waits_for_a_copy_that_only_somebody_before_the_door_could_make(tmp_path: Path) -> None:
    """r2 needs two blocks, 4 + 4 of 9 are held, and only r2 could still store `o`: it is refused, not kept waiting."""
    bench = Bench(tmp_path, usable=9)
    bench.serve("r0", prompt(2), hard("h", 4))
    never_stored(bench, max_tokens=6)
    assert bench.open_door() == {"r2": "refused"}
    (told,) = [e for e in bench.events() if isinstance(e, RequestRefused)]
    assert (told.reason, told.blocking_claim_ids) == ("claims_hold", ("h",))
    assert [getattr(e, "reason", "") for e in bench.events("resident_claim_demoted")] == ["not_offloaded"]
    conforming(bench.stop())


def test_who_comes_first_does_not_wait_for_who_waits_behind_it(tmp_path: Path) -> None:
    """r1 outranks r2 and would need the room of `o`, which r2 alone could store: it is refused, and r2 is served."""
    bench = Bench(tmp_path, usable=8)
    never_stored(bench, max_tokens=2)
    bench.arrive("r3", prompt(3, blocks=5))
    bench.door._before["r3"].rank = (-1,)
    assert bench.open_door() == {"r3": "refused", "r2": "in"}
    bench.schedule("r2")
    bench.compute("r2")
    conforming(bench.stop())


def test_a_demotable_claim_in_use_is_not_demoted_in_vain(tmp_path: Path) -> None:
    """Its request computes it: to give it up now frees nothing. Whoever needs the room waits, then it goes by name."""
    bench = Bench(tmp_path, usable=10)
    bench.arrive("r1", prompt(), claim("d", mode="demotable"))
    bench.schedule("r1")
    bench.arrive("r2", prompt(2, blocks=6))
    assert bench.open_door() == {}
    assert not bench.events("resident_claim_demoted")
    bench.compute("r1")
    assert bench.open_door() == {"r2": "in"}
    assert [e.actions for e in bench.events() if isinstance(e, RequestAdmitted)][-1] == ("demote:d",)
    bench.schedule("r2")
    bench.compute("r2")
    conforming(bench.stop())


def test_a_deferral_ends_at_its_deadline_although_active_work_is_the_reason_by_then(tmp_path: Path) -> None:
    """It was told until when it waits: when claims have gone and others use the room, that still holds."""
    bench = Bench(tmp_path, usable=10, actions=DEFERRING, defer_s=5.0)
    deferred_until_work_ends(bench)
    assert bench.open_door() == {}
    bench.now_ns += 5_000_000_000
    assert bench.open_door() == {"r3": "refused"}
    (told,) = [e for e in bench.events() if isinstance(e, RequestRefused)]
    assert (told.reason, told.shortfall_blocks) == ("deferral_deadline", 2)
    bench.end("r2", "length", 2)
    conforming(bench.stop())


def test_a_deferred_request_that_fits_at_its_deadline_comes_in_past_who_waits(tmp_path: Path) -> None:
    """A larger one ahead of it waits for active work; at its deadline it is not held up by that."""
    bench = Bench(tmp_path, usable=12, actions=DEFERRING, defer_s=5.0)
    deferred_until_work_ends(bench)
    bench.arrive("big", prompt(5, blocks=8))
    bench.door._before["big"].rank = (-1,)
    assert bench.open_door() == {}
    bench.now_ns += 5_000_000_000
    assert bench.open_door() == {"r3": "in"}


def test_who_waits_for_claims_costs_a_step_nothing_until_there_is_more_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its prompt is not looked up again in every step while others compute; it is when a claim has ended."""
    bench = Bench(tmp_path, usable=12, actions=DEFERRING, defer_s=5.0)
    bench.serve("r0", prompt(), hard("h", 4))
    start(bench, "r1", prompt(2, blocks=2))
    bench.arrive("r2", prompt(3, blocks=8))
    bench.open_door()
    bench.open_door()
    find, looks = bench.tiers.find, 0

    def counted(block_hash: bytes) -> int | None:
        nonlocal looks
        looks += 1
        return find(block_hash)

    monkeypatch.setattr(bench.tiers, "find", counted)
    bench.tiers.tables["r1"].append(-1)
    assert (bench.open_door(), looks) == ({}, 0)
    release(bench, "h")
    assert bench.open_door() == {"r2": "in"}
