"""The study of KVCR as `residentkv study` sees it; runs in the core and starts the driver where KVCR is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from residentkv.runtimes.study import CaseRun, StudyCase
from residentkv.runtimes.studydriver import run_driver

TITLES = {
    "hard_claim": "a claim under pressure, and after its release",
    "pool_full_of_claims": "a deposit that does not fit beside claims",
    "expiring_claim": "a claim with a term, and one that KVCR holds for ever",
    "demotable_claim": "a claim that is withdrawn before its blocks go",
    "offload_and_load": "bytes that went to the pool and come back, or not",
    "remote_fetch": "blocks of another process, with their bytes",
    "fetch_absent": "blocks that nobody has, that the peer lacks, whose holder died",
    "foreign_handle": "a claim released by a handle of another process",
    "unclaimed_eviction": "a best-effort deposit under pressure",
    "overwrite": "other bytes under a key that is there",
}


class KvcrStudy:
    """Two processes with a KVCR each, real bytes, and a desk that keeps claims in one of them."""

    runtime = "kvcr"
    cases = tuple(StudyCase(name=name, title=title) for name, title in TITLES.items())

    def run(
        self, cases: Sequence[str], out: Path, *, reduced: bool, progress: Callable[[str], None]
    ) -> Sequence[CaseRun]:
        """Run the cases in one process; a reduced run is the same, since the whole takes seconds."""
        return run_driver("kvcr", "residentkv.runtimes.kvcr.driver", cases, out, progress=progress)


STUDY = KvcrStudy()
