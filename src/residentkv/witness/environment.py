"""The environment that has vLLM: where its interpreter is, and how this package is put on its path.

The core never imports vLLM. It starts the interpreter named by RESIDENTKV_VLLM_PYTHON with a path on which this very
package, and its distribution metadata with the plugin's entry point, come first; nothing is installed there.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from residentkv import environments
from residentkv.environments import RuntimeFailed, lay_overlay, model_folder, runtime_environment

__all__ = ["PYTHON_VARIABLE", "RuntimeFailed", "find_python", "lay_overlay", "model_folder", "run_in_runtime"]

PYTHON_VARIABLE = environments.python_variable("vllm")


def find_python() -> Path:
    """Return the interpreter that has vLLM: the one named, else that of the environment 'make env-vllm' built last.

    Raises:
        NoInputError: RESIDENTKV_VLLM_PYTHON names no file, or nothing is named and nothing was built.
    """
    return environments.find_python("vllm")


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
        env = runtime_environment(Path(overlay), {"VLLM_NO_USAGE_STATS": "1", **(environment or {})})
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
