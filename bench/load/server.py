"""One OpenAI server of vLLM on loopback: start it, watch its memory, ask it something, end it in order."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from bench.load.plan import Shape
from residentkv.environments import RuntimeFailed, find_python, runtime_environment
from residentkv.runtimes.vllm.plugin import engine_settings

MIDDLEWARE = "residentkv.server.middleware.ResidentClaims"
SOCKET_VARIABLE = "RESIDENTKV_SOCKET"
START_S = 300.0
STOP_S = 120.0
QUIET_S = 1.0
"""An engine that goes idle just then can miss a SIGTERM: CPython runs no handler until its main thread wakes again."""
SAMPLE_S = 1.0


class MemorySample(msgspec.Struct, frozen=True, kw_only=True):
    """Memory of all processes of a server together; anonymous memory leaves out mapped files such as the tier."""

    at_s: float
    rss_bytes: int
    anonymous_bytes: int


class Server:
    """A running server; `samples` grows while it runs."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.log = log
        self.samples: list[MemorySample] = []
        self._begin = time.monotonic()
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._sample, daemon=True)
        self._watch.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, body: Mapping[str, Any] | None = None, timeout_s: float = 120.0) -> Any:
        """Post a body, or get a page, and return what was answered (None for an empty answer).

        Raises:
            RuntimeFailed: the answer is an error.
        """
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.url + path, data=data, headers={"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as answer:
                text = answer.read()
        except urllib.error.HTTPError as e:
            raise RuntimeFailed(f"{path}: status {e.code}: {e.read()[:300]!r}; see {self.log}") from None
        return json.loads(text) if text else None

    def answers(self) -> bool:
        """Tell whether it answers at all."""
        try:
            self.ask("/health", timeout_s=5.0)
        except (OSError, RuntimeFailed):
            return False
        return True

    def stop(self) -> None:
        """Ask the server to end, as its operator would, and wait until all of it has ended.

        Raises:
            RuntimeFailed: it did not end.
        """
        self._over.set()
        time.sleep(QUIET_S)
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise RuntimeFailed(f"the server did not end within {STOP_S:.0f} s; see {self.log}") from None
        end = time.monotonic() + STOP_S
        while processes_of(self.process.pid) and time.monotonic() < end:
            time.sleep(0.1)
        self.kill()

    def kill(self) -> None:
        """End whatever is left."""
        self._over.set()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _sample(self) -> None:
        while not self._over.wait(SAMPLE_S):
            rss, anonymous = memory_of(processes_of(self.process.pid))
            self.samples.append(
                MemorySample(at_s=time.monotonic() - self._begin, rss_bytes=rss, anonymous_bytes=anonymous)
            )


def processes_of(session: int) -> list[int]:
    """Return the living processes of a session."""
    out = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                fields = (entry / "stat").read_text().rpartition(") ")[2].split()
                if int(fields[3]) == session and fields[0] != "Z":
                    out.append(int(entry.name))
    return out


def memory_of(pids: list[int]) -> tuple[int, int]:
    """Return (resident, anonymous resident) bytes of these processes together."""
    rss = anonymous = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    rss += int(line.split()[1]) * 1024
                elif line.startswith("RssAnon:"):
                    anonymous += int(line.split()[1]) * 1024
    return rss, anonymous


def free_port() -> int:
    """Return a port of loopback that nobody listens on now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def command_line(shape: Shape, model: Path, port: int, options: Mapping[str, Any] | None, row_bytes: int) -> list[str]:
    """Return the arguments of the server; without `options` it is stock vLLM with no connector.

    The server is started as a module: the command `vllm` looks up a distribution that the build for CPUs does not have.
    """
    arguments = [
        *("-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--served-model-name", "load"),
        *("--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--block-size", str(shape.block_tokens)),
        *("--num-gpu-blocks-override", str(shape.usable_blocks + 1), "--max-model-len", "1024"),
        *("--max-num-seqs", str(shape.clients), "--gpu-memory-utilization", "0.2", "--enforce-eager"),
        *("--enable-prompt-tokens-details", "--uvicorn-log-level", "warning", "--seed", "0"),
        *("--shutdown-timeout", "30"),
    ]
    if options is not None:
        arguments += ["--middleware", MIDDLEWARE]
        settings = engine_settings(tier_bytes=shape.tier_blocks * row_bytes, options=options)
        arguments += ["--scheduler-cls", settings["scheduler_cls"]]
        arguments += ["--kv-transfer-config", json.dumps(settings["kv_transfer_config"])]
    return arguments


@contextlib.contextmanager
def serving(arguments: list[str], port: int, log: Path, *, socket_path: str | None = None) -> Iterator[Server]:
    """Start a server and wait until it answers; whatever happens, none of its processes is left.

    Raises:
        RuntimeFailed: it ended, or did not answer in time.
    """
    with tempfile.TemporaryDirectory(prefix="residentkv-overlay-") as overlay, log.open("wb") as sink:
        more = {
            "VLLM_LOGGING_LEVEL": "WARNING",
            "VLLM_SERVER_DEV_MODE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": "1",
        }
        if socket_path is not None:
            more[SOCKET_VARIABLE] = socket_path
        process = subprocess.Popen(
            [str(find_python("vllm")), *arguments],
            stdout=sink,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=runtime_environment(Path(overlay), more),
            start_new_session=True,
        )
        server = Server(process, port, log)
        try:
            end = time.monotonic() + START_S
            while not server.answers():
                if process.poll() is not None:
                    raise RuntimeFailed(f"the server ended with {process.returncode}; see {log}")
                if time.monotonic() > end:
                    raise RuntimeFailed(f"the server did not answer within {START_S:.0f} s; see {log}")
                time.sleep(0.5)
            yield server
        finally:
            server.kill()
