"""The study of SGLang: which cases there are, which server each needs, and running them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from residentkv.errors import ResidentKVError
from residentkv.runtimes.sglang import cases, tiers
from residentkv.runtimes.sglang.bench import RUNTIME, Bench
from residentkv.runtimes.sglang.launch import HICACHE_STAND_INS, STAND_INS, SglangServer
from residentkv.runtimes.sglang.serve import FAULT_VARIABLE
from residentkv.runtimes.study import CaseRun, Check, StudyCase

POOL_TOKENS = 512
TRIALS = 5
"""Losses with either assignment that an experiment on eviction preference takes (`audit.evidence.MIN_TRIALS`)."""
PRIORITY = ("--radix-eviction-policy=priority", "--enable-priority-scheduling")
STORAGE_VARIABLE = "SGLANG_HICACHE_FILE_BACKEND_STORAGE_DIR"


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """How a server is started: its options, the size of a block, and whether it has host pool and storage."""

    name: str
    arguments: tuple[str, ...]
    page_tokens: int
    tiers: bool = False


PLAIN = Setting(name="priority", arguments=(*PRIORITY, "--enable-streaming-session"), page_tokens=16)
INVERTED = Setting(name="inverted", arguments=(*PRIORITY, "--schedule-low-priority-values-first"), page_tokens=16)
HICACHE = Setting(
    name="hicache",
    arguments=(
        "--enable-hierarchical-cache",
        "--hicache-ratio=2",
        "--hicache-io-backend=direct",
        "--hicache-mem-layout=layer_first",
        "--hicache-write-policy=write_through",
        "--hicache-storage-backend=file",
        '--hicache-storage-backend-extra-config={"prefetch_threshold": 32}',
        "--hicache-storage-prefetch-policy=wait_complete",
    ),
    page_tokens=8,
    tiers=True,
)

Case = Callable[[Bench], CaseRun]
TierCase = Callable[[Bench, tiers.Tiers], CaseRun]

_ON_DEVICE: dict[str, tuple[Setting, str, Case]] = {
    "best_effort": (PLAIN, "a claim joined to events and cached tokens: warm, cold, other prefix, other salt",
                    cases.best_effort),
    "soft_priority": (PLAIN, "the less important claim goes first, and with the assignment swapped",
                      cases.soft_priority),
    "flush": (PLAIN, "a flush, and the claims that it ends", cases.flush),
    "session_expiry": (PLAIN, "a session that was idle for its timeout", cases.session_expiry),
    "session_hold": (PLAIN, "a session that holds, and a request that starves beside it", cases.session_hold),
    "priority_inverted": (INVERTED, "the switch that turns the order of importance round", cases.priority_inverted),
}  # fmt: skip
_IN_TIERS: dict[str, tuple[str, TierCase]] = {
    "priority_ignored": ("a priority under the default eviction policy", tiers.priority_ignored),
    "load_back": ("offload to the host pool, and load-back", tiers.load_back),
    "load_back_refused": ("a load-back that is refused", tiers.load_back_refused),
    "copy_skipped": ("a copy back that reports success and moved nothing", tiers.copy_skipped),
    "storage_deleted": ("a restore from storage, and one whose files are gone", tiers.storage_deleted),
    "copy_raised": ("a copy back that raises", tiers.copy_raised),
}


class SglangStudy:
    """Cases on a real SGLang server with SmolLM2; cases of one setting share a start."""

    runtime = RUNTIME
    cases: Sequence[StudyCase] = (
        *(StudyCase(name=name, title=title) for name, (_, title, _) in _ON_DEVICE.items()),
        *(StudyCase(name=name, title=title) for name, (title, _) in _IN_TIERS.items()),
    )

    def run(
        self, cases: Sequence[str], out: Path, *, reduced: bool, progress: Callable[[str], None]
    ) -> Sequence[CaseRun]:
        """Run the named cases; `reduced` makes as many trials as an experiment takes, else twice as many.

        Raises:
            NoInputError: the environment or the model is missing.
            RuntimeFailed: the server did not start.
        """
        runs: list[CaseRun] = []
        for setting in (PLAIN, INVERTED, HICACHE):
            todo: list[tuple[str, Case | TierCase]]
            if setting.tiers:
                todo = [(name, case) for name, (_, case) in _IN_TIERS.items() if name in cases]
            else:
                todo = [(name, case) for name, (s, _, case) in _ON_DEVICE.items() if s is setting and name in cases]
            if todo:
                runs += run_setting(setting, todo, out, TRIALS if reduced else 2 * TRIALS, progress)
        return runs


def run_setting(
    setting: Setting,
    todo: Sequence[tuple[str, Case | TierCase]],
    out: Path,
    trials: int,
    progress: Callable[[str], None],
) -> list[CaseRun]:
    """Start one server and run cases on it; a case that cannot go on fails with what stopped it, and the next runs."""
    runs: list[CaseRun] = []
    progress(f"starting SGLang ({setting.name})")
    with tempfile.TemporaryDirectory(prefix="residentkv-hicache-") as scratch:
        fault, storage = Path(scratch) / "fault", Path(scratch) / "storage"
        storage.mkdir()
        environment = {FAULT_VARIABLE: str(fault), STORAGE_VARIABLE: str(storage)} if setting.tiers else {}
        with SglangServer(
            out / setting.name,
            arguments=setting.arguments,
            page_tokens=setting.page_tokens,
            pool_tokens=POOL_TOKENS,
            environment=environment,
        ) as server:
            bench = Bench(server, out, HICACHE_STAND_INS if setting.tiers else STAND_INS, trials, progress)
            where = tiers.Tiers(fault=fault, storage=storage)
            for name, case in todo:
                progress(f"case {name}")
                try:
                    runs.append(case(bench, where) if setting.tiers else case(bench))  # type: ignore[call-arg]
                except ResidentKVError as e:
                    runs.append(
                        CaseRun(case=name, checks=(Check(name="the case runs to its end", passed=False, found=str(e)),))
                    )
    return runs


STUDY = SglangStudy()
