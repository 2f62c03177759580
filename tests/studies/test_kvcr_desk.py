"""The desk before KVCR: refusals by name, outcomes before the handles go back, and a pool that others use as well."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from residentkv.audit.api import audit_file
from residentkv.audit.model import AuditReport
from residentkv.claims.ledger import ClaimRecord
from residentkv.claims.lifecycle import IllegalTransition
from residentkv.runtimes.kvcr.content import Prompt, make_prompt
from residentkv.runtimes.kvcr.desk import Desk, NotYourClaim
from residentkv.runtimes.kvcr.node import Outcome
from residentkv.runtimes.kvcr.offload import Offloader
from tests.studies.logs import open_log


class SmallPool:
    """KVCR's pool in a few lines: claims by number, oldest unclaimed block first out, FAILED when nothing can go."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.held: dict[bytes, int] = {}
        self.handles: dict[int, bytes] = {}
        self.lost: set[bytes] = set()
        self.tell: Any = None

    def deposit(self, blocks: Mapping[bytes, int], *, no_evict: bool) -> dict[bytes, Outcome]:
        out = {}
        for key in blocks:
            if key not in self.held:
                if len(self.held) == self.slots and not self._evict():
                    out[key] = Outcome(word="FAILED", handle=None, slot=None)
                    continue
                self.held[key] = 0
                self.tell((key,), "DRAM", False)
            handle = None
            if no_evict:
                handle = len(self.handles) + 1
                self.handles[handle] = key
                self.held[key] += 1
            out[key] = Outcome(word="SUCCESS", handle=handle, slot=None)
        return out

    def deliver(self, blocks: Mapping[bytes, int]) -> dict[bytes, Outcome]:
        good = {key: key in self.held and key not in self.lost for key in blocks}
        return {k: Outcome(word="SUCCESS" if ok else "FAILED", handle=None, slot=None) for k, ok in good.items()}

    def release(self, handles: Sequence[int]) -> dict[int, bool]:
        for handle in handles:
            self.held[self.handles[handle]] -= 1
        return dict.fromkeys(handles, True)

    def query(self, keys: Collection[bytes]) -> list[tuple[str, str | None]]:
        return [("HIT", "DRAM") if key in self.held else ("MISS", None) for key in keys]

    def _evict(self) -> bool:
        victim = next((key for key, count in self.held.items() if not count), None)
        if victim is None:
            return False
        del self.held[victim]
        self.tell((victim,), "DRAM", True)
        return True


class Bench:
    """A desk on a small pool of 8 blocks, and the audit of what it wrote."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "trace.jsonl"
        log = open_log(self.path, "desk", runtime="kvcr", version="0.1.1", primitive="claimed_deposit", depth="plugin")
        self.desk, self.pool = Desk(log), SmallPool(8)
        self.pool.tell = self.desk.on_inventory
        self.desk.attach(cast(Any, self.pool))

    def claim(self, prompt: Prompt, mode: str = "hard_protected", name: str = "c") -> str:
        wire = {"claim_id": name, "owner_scope": "o", "mode": mode, "predicate": "whole_object"}
        return self.desk.claim(wire, prompt).verdict.value

    def audit(self) -> AuditReport:
        self.desk.close()
        return audit_file(self.path)


class Offloading:
    """An offloader with a buffer of 12 blocks on a small pool of 8."""

    def __init__(self, folder: Path) -> None:
        self.path, self.pool = folder / "trace.jsonl", SmallPool(8)
        self.pool.tell = lambda keys, tier, removed: None
        self.log = open_log(
            self.path, "desk", runtime="kvcr", version="0.1.1", primitive="claimed_deposit", depth="plugin"
        )
        self.offloader = Offloader(self.log, cast(Any, self.pool), buffer_blocks=12)

    def claim(self, prompt: Prompt, mode: str = "offloadable") -> ClaimRecord:
        wire = {"claim_id": "c", "owner_scope": "o", "mode": mode, "predicate": "whole_object"}
        return self.offloader.claim(wire, prompt)

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()]

    def audit(self) -> AuditReport:
        self.log.close("end")
        return audit_file(self.path)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_what_does_not_fit_beside_a_claim_is_refused_by_its_name(bench: Bench) -> None:
    """The whole deposit is refused before KVCR is asked, and nothing of it is stored."""
    assert bench.claim(make_prompt("claimed", 6)) == "accepted"
    answer = bench.desk.deposit(make_prompt("other", 3))
    assert (answer.finish_status, answer.blocking) == ("refused", ("c",))
    assert len(bench.pool.held) == 6
    report = bench.audit()
    assert report.verdict.value == "conforming"
    assert "conflict_outcome" in report.claims[0].observed


def test_a_demotable_claim_is_withdrawn_before_its_handles_go_back(bench: Bench) -> None:
    """The word comes before the first removal, so the loss is excused."""
    bench.claim(make_prompt("claimed", 6), "demotable")
    assert bench.desk.deposit(make_prompt("other", 5)).finish_status == "stopped"
    report = bench.audit()
    assert report.verdict.value == "conforming"
    assert "release_before_loss" in report.claims[0].observed


def test_another_owner_learns_nothing_and_changes_nothing(bench: Bench) -> None:
    """A stranger's release is turned away with the same words as for a claim that never was."""
    bench.claim(make_prompt("claimed", 6))
    with pytest.raises(NotYourClaim) as known:
        bench.desk.release("stranger", "c")
    with pytest.raises(NotYourClaim) as unknown:
        bench.desk.release("stranger", "d")
    assert str(known.value).replace("'c'", "'d'") == str(unknown.value)
    assert bench.desk.read("o", "c").reused_blocks == 6
    assert bench.audit().verdict.value == "conforming"


def test_room_that_others_took_beside_the_desk_ends_a_claim_before_it_materializes(bench: Bench) -> None:
    """KVCR fails a deposit that the desk had accepted: the claim is withdrawn by name, and no handle is kept."""
    other = make_prompt("beside", 5)
    bench.pool.deposit(dict.fromkeys(other.keys, 0), no_evict=True)
    bench.claim(make_prompt("claimed", 6))
    counts = [count for key, count in bench.pool.held.items() if key not in other.keys]
    assert counts == [0] * len(counts)
    report = bench.audit()
    assert (report.verdict.value, report.claims[0].state) == ("conforming", "demoted")


def test_a_delivery_that_fails_breaks_the_promise_and_says_so(bench: Bench) -> None:
    """Bytes of a hard claim that cannot be had are harm by name, and the audit calls that a broken promise."""
    prompt = make_prompt("claimed", 6)
    bench.claim(prompt)
    bench.pool.lost.add(prompt.keys[2])
    assert bench.desk.read("o", "c").failed == (prompt.keys[2],)
    report = bench.audit()
    assert report.verdict.value == "violating"
    assert "promise-broken" in {f.slug for f in report.all_findings()}


@pytest.mark.parametrize("lost", [False, True])
def test_a_load_is_named_and_its_failure_is_not_enough_without_a_scheduler(tmp_path: Path, lost: bool) -> None:
    """Bytes that come back keep the contract; a failed load that only the connector tells breaks it."""
    scene, prompt = Offloading(tmp_path), make_prompt("claimed", 4)
    record = scene.claim(prompt)
    scene.pool.lost.update(prompt.keys[1:2] if lost else ())
    assert scene.offloader.restore(record, prompt) is not lost
    if not lost:
        scene.offloader.release()
    report = scene.audit()
    assert report.verdict.value == ("violating" if lost else "conforming")
    if lost:
        assert "failure-without-outcome" in {f.slug for f in report.all_findings()}
    else:
        assert {"offload_identity", "restore_before_reuse"} <= set(report.claims[0].observed)


@pytest.mark.parametrize(
    ("mode", "blocks", "reason"),
    [
        ("hard_protected", 4, "mode_unsupported"),
        ("routed_reuse", 4, "mode_unsupported"),
        ("expiring", 4, "mode_unsupported"),
        ("offloadable", 13, "never_fits"),
    ],
)
def test_what_the_arbiter_does_not_accept_is_rejected_and_not_stored(
    tmp_path: Path, mode: str, blocks: int, reason: str
) -> None:
    """A mode that the offloader does not keep, or more than the buffer has: nothing is promised and nothing moves."""
    scene, prompt = Offloading(tmp_path), make_prompt("claimed", blocks)
    record = scene.claim(prompt, mode)
    with pytest.raises(IllegalTransition):
        scene.offloader.restore(record, prompt)
    scene.offloader.release()
    assert (record.state.value, scene.pool.held) == ("rejected", {})
    assert [e["reason"] for e in scene.events() if e["event"] == "resident_claim_rejected"] == [reason]
    assert not [e for e in scene.events() if e["event"] in ("resident_claim_accepted", "block_stored")]
    assert scene.audit().verdict.value == "conforming"


@pytest.mark.parametrize("blocks", [8, 10])
def test_a_claim_that_the_pool_did_not_take_whole_is_withdrawn(tmp_path: Path, blocks: int) -> None:
    """Only the blocks that KVCR called a success are told as stored; of a part nothing is promised or kept."""
    scene, prompt = Offloading(tmp_path), make_prompt("claimed", blocks)
    record = scene.claim(prompt)
    told = [len(e["block_hashes"]) for e in scene.events() if e.get("tier") == "kvcr.local_dram"]
    assert (record.state.value, told) == ("offloaded" if blocks == 8 else "demoted", [8])
    scene.offloader.release()
    assert not any(scene.pool.held.values())
    assert scene.audit().verdict.value == "conforming"


def test_a_copy_that_the_lookup_does_not_find_is_told_as_a_loss(tmp_path: Path) -> None:
    """What is gone from the pool is no hit; the claim is harmed by name, which breaks what was promised."""
    scene, prompt = Offloading(tmp_path), make_prompt("claimed", 4)
    record = scene.claim(prompt)
    del scene.pool.held[prompt.keys[1]]
    scene.pool.handles = {h: k for h, k in scene.pool.handles.items() if k in scene.pool.held}
    scene.offloader.handles = list(scene.pool.handles)
    assert not scene.offloader.restore(record, prompt)
    assert [e["hit_pos"] for e in scene.events() if e["event"] == "offload_lookup_result"] == [[[0, 1], [2, 4]]]
    assert record.state.value == "harmed"
    scene.offloader.release()
    report = scene.audit()
    assert report.verdict.value == "violating"
    found = {f.slug for f in report.all_findings()}
    assert "promise-broken" in found
    assert "harm-unnamed" not in found


def test_a_copy_that_goes_after_the_lookup_is_a_failed_load(tmp_path: Path) -> None:
    """The lookup found it, the load did not: the failure is told, and nobody refuses the request."""
    scene, prompt = Offloading(tmp_path), make_prompt("claimed", 4)
    record = scene.claim(prompt)
    assert not scene.offloader.restore(record, prompt, before_load=scene.pool.held.clear)
    report = scene.audit()
    assert "failure-without-outcome" in {f.slug for f in report.all_findings()}
