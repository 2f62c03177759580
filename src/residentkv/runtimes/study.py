"""Studies of serving runtimes: cases that start the real thing, write traces, and say what was told and what not.

A study measures and never judges. It hands over the traces that it wrote, the verdict that it expects the audit to come
to, and what it observed besides; `residentkv study` audits the traces and compares.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Protocol, cast

import msgspec

from residentkv.errors import UsageError, near

Word = Literal["conforming", "violating", "inconclusive"]
"""A verdict of the audit, as a word."""

Told = Literal["told", "partly", "silent"]
"""Whether the runtime itself says that something happened: by event, answer or error; in part; or not at all."""

Caught = Literal["adapter", "audit", "nobody"]
"""Who notices from outside: the adapter at once, the audit of the trace, or nobody, so that it is not observable."""


class StudyCase(msgspec.Struct, frozen=True, kw_only=True):
    """One question that is put to a runtime."""

    name: str
    title: str


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One expectation of a case and what was found; computed from the run, never written down beforehand."""

    name: str
    passed: bool
    found: str


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """One way to lose a claim's KV, made to happen in this run.

    `by` says what told it, or how it was caught. `told` and `caught` come from the run, or are what the checks of the
    case hold it to; a case with a check that failed has shown no loss.
    """

    name: str
    told: Told
    caught: Caught
    by: str


class ExpectedTrace(msgspec.Struct, frozen=True, kw_only=True):
    """A trace of a case and what its audit has to say; `path` is relative to the folder of the study."""

    path: str
    verdict: Word


class CaseRun(msgspec.Struct, frozen=True, kw_only=True):
    """What one case left: traces, checks, and the losses that it made happen."""

    case: str
    traces: tuple[ExpectedTrace, ...] = ()
    checks: tuple[Check, ...] = ()
    losses: tuple[Loss, ...] = ()


class Study(Protocol):
    """What a runtime's module offers: an object named `STUDY`."""

    @property
    def runtime(self) -> str:
        """Name of the runtime, as descriptors have it."""

    @property
    def cases(self) -> Sequence[StudyCase]:
        """All cases, in the order in which they run."""

    def run(
        self, cases: Sequence[str], out: Path, *, reduced: bool, progress: Callable[[str], None]
    ) -> Sequence[CaseRun]:
        """Run the named cases on the real runtime and write their traces below `out`, which exists.

        Cases may share a start of the runtime. `reduced` runs fewer repetitions and never another question.

        Raises:
            NoInputError: the environment of the runtime was not built.
            ResidentKVError: the runtime did not start or ended; the message names its log.
        """


STUDIES: dict[str, str] = {
    "dynamo": "residentkv.runtimes.dynamo.study",
    "kvcr": "residentkv.runtimes.kvcr.study",
    "sglang": "residentkv.runtimes.sglang.study",
}
"""Runtimes that can be studied, and the module that has `STUDY`; imported only when asked for."""


def find_study(runtime: str) -> Study:
    """Return the study of a runtime.

    Raises:
        UsageError: there is none; the message names those that are.
    """
    if runtime not in STUDIES:
        known = ", ".join(sorted(STUDIES)) or "none"
        raise UsageError(f"no study of {runtime[:60]!r}, expected one of {known}{near(runtime, STUDIES)}")
    return cast(Study, importlib.import_module(STUDIES[runtime]).STUDY)


def choose_cases(study: Study, names: Sequence[str]) -> list[str]:
    """Return the named cases in the study's order, all of them when none is named.

    Raises:
        UsageError: the study has no such case.
    """
    known = [c.name for c in study.cases]
    for name in names:
        if name not in known:
            raise UsageError(
                f"{study.runtime} has no case {name[:60]!r}, expected one of {', '.join(known)}{near(name, known)}"
            )
    return [name for name in known if not names or name in names]
