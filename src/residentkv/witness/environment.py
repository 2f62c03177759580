"""The environment that has vLLM: where its interpreter is, and how this package is put on its path.

The core never imports vLLM. It starts the interpreter named by RESIDENTKV_VLLM_PYTHON with a path on which this very
package, and its distribution metadata with the plugin's entry point, come first; nothing is installed there.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import residentkv
from residentkv.errors import NoInputError, ResidentKVError
from residentkv.files import cache_dir

PYTHON_VARIABLE = "RESIDENTKV_VLLM_PYTHON"
MODEL_NAME = "smollm2-135m-instruct"


class RuntimeFailed(ResidentKVError):
    """The process with the runtime ended with an error; the message names its log."""


def find_python() -> Path:
    """Return the interpreter that has vLLM: the one named, else that of the environment 'make env-vllm' built last.

    Raises:
        NoInputError: RESIDENTKV_VLLM_PYTHON names no file, or nothing is named and nothing was built.
    """
    named = os.environ.get(PYTHON_VARIABLE)
    if named:
        if not Path(named).is_file():
            raise NoInputError(f"{PYTHON_VARIABLE}: {named} does not exist; run 'make env-vllm' to build it")
        return Path(named)
    built = sorted((cache_dir() / "venvs").glob("vllm-*/.complete"), key=lambda stamp: stamp.stat().st_mtime_ns)
    if not built:
        raise NoInputError(
            f"found no environment with vLLM in {cache_dir() / 'venvs'}, and {PYTHON_VARIABLE} is not set; "
            "run 'make env-vllm', which builds one, or name the interpreter of your own"
        )
    return built[-1].parent / "bin" / "python"


def model_folder() -> Path:
    """Return where the prepared model lies."""
    return cache_dir() / "models" / MODEL_NAME


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


def run_in_runtime(
    arguments: list[str],
    *,
    log: Path,
    what: str,
    environment: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] = lambda line: None,
) -> None:
    """Run `python ARGUMENTS` in the vLLM environment; `log` gets what it writes, `on_line` sees the standard output.

    Raises:
        NoInputError: there is no such environment.
        RuntimeFailed: the program did not end with 0.
    """
    python = find_python()
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="residentkv-overlay-") as overlay, log.open("ab") as sink:
        env = {
            **os.environ,
            "PYTHONPATH": str(lay_overlay(Path(overlay))),
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "VLLM_NO_USAGE_STATS": "1",
            **(environment or {}),
        }
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
