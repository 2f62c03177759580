"""Start a study's driver inside the environment of its runtime, and read what it found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from residentkv.environments import run_in_runtime
from residentkv.errors import InputError
from residentkv.runtimes.study import CaseRun


def run_driver(
    runtime: str, module: str, cases: Sequence[str], out: Path, *, progress: Callable[[str], None]
) -> list[CaseRun]:
    """Run `python -m module OUT CASE...` where the runtime is; `OUT/driver.log` gets what it writes.

    Raises:
        NoInputError: the environment of the runtime was not built.
        RuntimeFailed: the driver did not end with 0.
        InputError: what it wrote cannot be understood.
    """
    found = out / "runs.json"
    found.unlink(missing_ok=True)
    run_in_runtime(
        runtime,
        ["-m", module, str(out.resolve()), *cases],
        log=out / "driver.log",
        what=f"the study of {runtime}",
        on_line=progress,
    )
    try:
        return msgspec.json.decode(found.read_bytes(), type=list[CaseRun])
    except (OSError, msgspec.MsgspecError) as e:
        raise InputError(f"found {e}, expected what {module} writes", path=str(found)) from None
