"""Start a study's driver inside the environment of its runtime, and read what it found."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from residentkv.environments import RuntimeFailed, find_python, runtime_environment
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
    python = find_python(runtime)
    log, found = out / "driver.log", out / "runs.json"
    found.unlink(missing_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="residentkv-overlay-") as overlay,
        log.open("wb") as sink,
        subprocess.Popen(
            [str(python), "-m", module, str(out.resolve()), *cases],
            stdout=subprocess.PIPE,
            stderr=sink,
            stdin=subprocess.DEVNULL,
            env=runtime_environment(Path(overlay)),
            text=True,
        ) as process,
    ):
        try:
            for line in process.stdout or ():
                progress(line.rstrip("\n"))
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        lines = [x for x in log.read_text(errors="replace").splitlines() if x.strip()] or ["nothing on standard error"]
        raise RuntimeFailed(f"the study of {runtime} ended with {process.returncode}: {lines[-1][:200]}; see {log}")
    try:
        return msgspec.json.decode(found.read_bytes(), type=list[CaseRun])
    except (OSError, msgspec.MsgspecError) as e:
        raise InputError(f"found {e}, expected what {module} writes", path=str(found)) from None
