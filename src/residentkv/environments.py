"""The environments that have a serving runtime: where the interpreter is, and how a program of ours is run there.

The core never imports a runtime. It starts the interpreter that `RESIDENTKV_<RUNTIME>_PYTHON` names, or that of the
environment built last by 'make env-<runtime>', with a path on which this very package and its metadata come first;
nothing is installed there.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import residentkv
from residentkv.errors import NoInputError, ResidentKVError
from residentkv.files import cache_dir

MODEL_NAME = "smollm2-135m-instruct"
"""Name of the folder of the prepared model that every live run serves."""


class RuntimeFailed(ResidentKVError):
    """The process with the runtime ended with an error; the message names its log."""


def python_variable(runtime: str) -> str:
    """Return the name of the variable that names the interpreter of a runtime."""
    return f"RESIDENTKV_{runtime.upper()}_PYTHON"


def find_python(runtime: str) -> Path:
    """Return the interpreter that has the runtime: the one named, else that of the environment that make built last.

    Raises:
        NoInputError: the variable names no file, or nothing is named and nothing was built.
    """
    variable, target = python_variable(runtime), f"env-{runtime}"
    named = os.environ.get(variable)
    if named:
        if not Path(named).is_file():
            raise NoInputError(f"{variable}: {named} does not exist; run 'make {target}' to build it")
        return Path(named)
    built = sorted((cache_dir() / "venvs").glob(f"{runtime}-*/.complete"), key=lambda stamp: stamp.stat().st_mtime_ns)
    if not built:
        raise NoInputError(
            f"found no environment with {runtime} in {cache_dir() / 'venvs'}, and {variable} is not set; "
            f"run 'make {target}', which builds one, or name the interpreter of your own"
        )
    return built[-1].parent / "bin" / "python"


def model_folder() -> Path:
    """Return where the prepared model lies; 'residentkv witness --prepare' makes it."""
    return cache_dir() / "models" / MODEL_NAME


def find_model() -> Path:
    """Return the folder of the prepared model.

    Raises:
        NoInputError: it was not prepared.
    """
    folder = model_folder()
    if not (folder / "config.json").is_file():
        raise NoInputError(f"{folder}: no prepared model; run 'make env-vllm', which prepares it")
    return folder


def lay_overlay(folder: Path) -> Path:
    """Lay links to this package and its metadata into `folder`, so that an interpreter finds both and nothing else."""
    folder.mkdir(parents=True, exist_ok=True)
    package = folder / "residentkv"
    if not package.exists():
        package.symlink_to(Path(residentkv.__file__).parent.resolve(), target_is_directory=True)
    distribution = importlib.metadata.distribution("residentkv")
    name = f"residentkv-{distribution.version}.dist-info"
    if not (folder / name).exists():
        (folder / name).mkdir()
        for part in ("METADATA", "entry_points.txt"):
            (folder / name / part).write_text(distribution.read_text(part) or "")
    return folder


def runtime_environment(overlay: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables for a process of a runtime: this package on its path, nothing sent anywhere, and `extra`."""
    return {
        **os.environ,
        "PYTHONPATH": str(lay_overlay(overlay)),
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        **(extra or {}),
    }


def run_in_runtime(
    runtime: str,
    arguments: Sequence[str],
    *,
    log: Path,
    what: str,
    environment: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] = lambda line: None,
) -> None:
    """Run `python ARGUMENTS` where the runtime is; `log` gets what it writes, `on_line` sees the standard output.

    Raises:
        NoInputError: there is no such environment.
        RuntimeFailed: the program did not end with 0; `what` it was is in the message.
    """
    python = find_python(runtime)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="residentkv-overlay-") as overlay, log.open("ab") as sink:
        env = runtime_environment(Path(overlay), environment)
        with subprocess.Popen(
            [str(python), *arguments], stdout=subprocess.PIPE, stderr=sink, stdin=subprocess.DEVNULL, env=env, text=True
        ) as process:
            try:
                for line in process.stdout or ():
                    sink.write(line.encode())
                    sink.flush()
                    on_line(line.rstrip("\n"))
            except BaseException:
                process.kill()
                raise
        code = process.returncode
    if code != 0:
        lines = [x for x in log.read_text(errors="replace").splitlines() if x.strip()] or ["nothing on standard error"]
        raise RuntimeFailed(f"{what} ended with {code}: {lines[-1][:200]}; see {log}")
