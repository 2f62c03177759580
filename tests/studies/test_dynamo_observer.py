"""The observer beside Dynamo: when it says nothing, because events or answers do not let it tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from residentkv.audit.api import audit_file
from residentkv.audit.evidence import evidence_of
from residentkv.errors import UsageError
from residentkv.runtimes.dynamo import observer as observing
from residentkv.runtimes.dynamo.observer import Observer
from residentkv.runtimes.dynamo.scoring import ScoreBelief
from tests.studies.logs import open_log
from tests.studies.small_dynamo import SmallDynamo, hash_blocks
from tests.studies.test_dynamo_router import IDENTITY, PREFIX, tail

WIRE = {"claim_id": "c", "owner_scope": "o", "mode": "best_effort", "predicate": "whole_object"}


class Scene:
    """An observer beside a small Dynamo; the claim is watched from the beginning."""

    def __init__(
        self, folder: Path, kind: type[Observer] = Observer, mode: str = "best_effort", says: int | None = None
    ) -> None:
        self.path, self.dynamo = folder / "trace.jsonl", SmallDynamo()
        self.dynamo.says = says
        log = open_log(
            self.path, "observer", runtime="dynamo", version="1.6.1", primitive="event_plane", depth="observe"
        )
        small = cast(Any, self.dynamo)
        self.observer = kind(log, small, small, identity=IDENTITY, hash_blocks=hash_blocks)
        self.observer.watch({**WIRE, "mode": mode}, PREFIX, tail(0))

    def ask(self, n: int) -> int | None:
        """Return the worker that the observer found."""
        return self.observer.request("c", tail(n))[1]

    def verdict(self) -> str:
        self.observer.release("c")
        self.observer.close()
        return audit_file(self.path).verdict.value


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observing, "PATIENCE_S", 0.05)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_a_warm_and_an_evicted_prefix_are_told_apart(scene: Scene) -> None:
    """Events and answers agree: a reuse, and a computation after the removal was told."""
    assert scene.ask(1) == 11
    scene.dynamo.evict(11, scene.observer.index.find(11, hash_blocks(PREFIX))[-1:])
    assert scene.ask(2) == 11
    assert scene.verdict() == "conforming"
    shown = {i.obligation for i in evidence_of(audit_file(scene.path)) if i.polarity == "supports"}
    assert {"claim_identity", "cache_identity", "object_identity", "joinability"} <= shown
    assert '"active_request_recomputed"' in scene.path.read_text()


@pytest.mark.parametrize("what", ["gap", "restart"])
def test_missed_events_leave_the_trace_inconclusive(scene: Scene, what: str) -> None:
    """What the worker holds is not known any more, whatever the answer counts."""
    if what == "gap":
        scene.dynamo.muted = True
        scene.dynamo.complete(list(range(64)), worker_id=11)
        scene.dynamo.muted = False
    else:
        scene.dynamo.restart(11)
    scene.ask(1)
    assert scene.verdict() == "inconclusive"
    assert not evidence_of(audit_file(scene.path))


def test_more_cached_tokens_than_blocks_were_seen_is_inconclusive(scene: Scene) -> None:
    """The events say that a block went; an answer that counts it as cached is not believed."""
    scene.dynamo.evict(11, scene.observer.index.find(11, hash_blocks(PREFIX))[-1:])
    scene.dynamo.counts = len(PREFIX)
    assert scene.ask(1) is None
    assert '"resident_claim_reused"' not in scene.path.read_text()
    assert scene.verdict() == "inconclusive"


@pytest.mark.parametrize("said", [11, 22])
def test_an_answer_of_another_worker_than_the_events_show_is_inconclusive(scene: Scene, said: int) -> None:
    """Whose cache was reused is not known when answer and events name two workers."""
    scene.dynamo.says = said
    assert scene.ask(1) == (11 if said == 11 else None)
    assert ('"resident_claim_reused"' in scene.path.read_text()) is (said == 11)
    assert scene.verdict() == ("conforming" if said == 11 else "inconclusive")


def test_a_prefix_is_not_watched_at_a_worker_that_the_answer_denies(tmp_path: Path) -> None:
    """The claim is withdrawn by name, as one that nobody witnessed."""
    scene = Scene(tmp_path, says=22)
    assert '"resident_claim_demoted"' in scene.path.read_text()
    assert '"resident_claim_materialized"' not in scene.path.read_text()


def test_an_answer_that_does_not_tell_cached_tokens_does_not_tell_that_there_were_none(scene: Scene) -> None:
    """Without details of the cache nothing is said of a recomputation, and the trace is inconclusive."""
    scene.dynamo.silent = True
    assert scene.ask(1) == 11
    assert '"active_request_recomputed"' not in scene.path.read_text()
    assert scene.verdict() == "inconclusive"


@pytest.mark.parametrize("spent", [tail(0), [], tail(1)[:3]], ids=["sent before", "none", "short"])
def test_a_tail_that_does_not_show_who_computes_it_is_refused(scene: Scene, spent: list[int]) -> None:
    """A worker that computes it may publish nothing, and the events of another one would be taken for its."""
    scene.dynamo.elsewhere = 22
    with pytest.raises(UsageError, match="tail: found"):
        scene.observer.request("c", spent)
    assert scene.ask(1) == 22, "a fresh one shows it"
    assert '"resident_claim_reused"' not in scene.path.read_text()
    assert scene.verdict() == "conforming"


def test_a_name_is_watched_once(scene: Scene) -> None:
    """Another owner under the same name would take the place of the first one."""
    with pytest.raises(UsageError, match="watches a name once"):
        scene.observer.watch({**WIRE, "owner_scope": "other"}, PREFIX, tail(9))
    assert scene.verdict() == "conforming"


@pytest.mark.parametrize("elsewhere", [None, 22])
def test_a_score_that_finds_the_prefix_is_no_binding(tmp_path: Path, elsewhere: int | None) -> None:
    """Whether the score found the same worker again or another one: nobody was bound, and the audit says so."""
    scene = Scene(tmp_path, ScoreBelief, "routed_reuse")
    scene.dynamo.elsewhere = elsewhere
    assert scene.ask(1) == (elsewhere or 11)
    assert scene.verdict() == "violating"
    found = {(i.polarity, i.obligation) for i in evidence_of(audit_file(scene.path))}
    assert ("contradicts", "route_binding") in found
    assert not {o for polarity, o in found if polarity == "supports"}
