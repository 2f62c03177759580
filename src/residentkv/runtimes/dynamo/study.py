"""The study of Dynamo as `residentkv study` sees it; runs in the core and starts the driver where Dynamo is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from residentkv.runtimes.study import CaseRun, StudyCase
from residentkv.runtimes.studydriver import run_driver

TITLES = {
    "warm_route": "a bound claim, served by its worker",
    "evicted_at_target": "its blocks go at its worker",
    "dead_target_direct": "the worker named in requests dies",
    "dead_target_hard_affinity": "the worker of a hard session dies",
    "soft_affinity_migration": "the worker of a soft session dies in the middle of an answer",
    "prediction_without_events": "a router that predicts what is cached",
    "reservation_too_large": "a reservation larger than the worker",
    "accepted_hints": "times to live and priorities that are accepted",
    "busy_elsewhere": "a warm prefix at a worker that is busy",
    "score_as_binding": "a routing score that is taken for a binding",
    "salt_dropped": "a prompt under a salt, and without",
    "host_tier": "blocks that went to host memory and came back",
    "event_gap": "events that a subscriber missed",
    "best_effort_observed": "a claim that is only watched",
}


class DynamoStudy:
    """A frontend with the KV router and two simulated workers a case; the adapter stands before it."""

    runtime = "dynamo"
    cases = tuple(StudyCase(name=name, title=title) for name, title in TITLES.items())

    def run(
        self, cases: Sequence[str], out: Path, *, reduced: bool, progress: Callable[[str], None]
    ) -> Sequence[CaseRun]:
        """Run the cases in one process; a reduced run is the same, since each case is one question asked once."""
        return run_driver("dynamo", "residentkv.runtimes.dynamo.driver", cases, out, progress=progress)


STUDY = DynamoStudy()
