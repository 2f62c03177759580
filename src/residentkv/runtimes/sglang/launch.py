"""A real SGLang server as a child process: start it, ask it, read its KV events, stop it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from residentkv.environments import RuntimeFailed, find_model, find_python, runtime_environment
from residentkv.runtimes.kvevents import KvEventFeed

STAND_INS = (
    "CPU instead of a GPU, attention by torch (torch_native, float32)",
    "sgl_kernel: a module whose every function raises when called",
    "torchvision::nms and qnms: declared, never called",
)
"""What stands in for something else in every run here; said in the header of each trace."""
HICACHE_STAND_INS = (
    *STAND_INS,
    "transfer_kv_direct: an index copy of torch between device pool and host pool, in unpinned memory",
)
START_S = 240.0
STOP_S = 15.0


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An HTTP answer; status 0 means that none came, and `text` says why."""

    status: int
    text: str

    @property
    def body(self) -> Any:
        """The decoded JSON, or None when there is none."""
        try:
            return json.loads(self.text) if self.text else None
        except ValueError:
            return None


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What SGLang says of one answered request; tokens by the tier they came from (`cached_tokens_details`)."""

    request_id: str
    prompt_tokens: int
    output_ids: tuple[int, ...]
    finish_status: str
    cached_tokens: int
    device_tokens: int
    host_tokens: int
    storage_tokens: int


class SglangServer:
    """One server with SmolLM2 on this machine; use it as a context manager.

    Args:
        folder: gets `server.log` and the sockets.
        arguments: options beyond the common ones.
        page_tokens: tokens of a block.
        pool_tokens: tokens that the device pool holds.
        environment: further variables.
    """

    def __init__(
        self,
        folder: Path,
        *,
        arguments: tuple[str, ...] = (),
        page_tokens: int = 16,
        pool_tokens: int = 512,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.page_tokens = page_tokens
        self.pool_tokens = pool_tokens
        self.log = folder / "server.log"
        self._arguments = arguments
        self._environment = dict(environment or {})
        self._sockets = tempfile.TemporaryDirectory(prefix="residentkv-sglang-")
        self._process: subprocess.Popen[bytes] | None = None
        self._port = free_port()
        self.feed: KvEventFeed | None = None

    def __enter__(self) -> Self:
        """Start the server and wait until it answers.

        Raises:
            NoInputError: the environment or the model is missing.
            RuntimeFailed: it ended or did not answer in time.
        """
        base = Path(self._sockets.name)
        events = {
            "publisher": "zmq",
            "endpoint": f"ipc://{base}/events",
            "replay_endpoint": f"ipc://{base}/replay",
        }
        common = (
            f"--model-path={find_model()} --device=cpu --attention-backend=torch_native --dtype=float32 "
            f"--sleep-on-idle --host=127.0.0.1 --port={self._port} --page-size={self.page_tokens} "
            "--skip-server-warmup --disable-overlap-schedule --enable-cache-report --random-seed=0 "
            f"--max-running-requests=4 --max-total-tokens={self.pool_tokens}"
        ).split()
        command = [str(find_python("sglang")), "-m", "residentkv.runtimes.sglang.serve", *common]
        command += ["--kv-events-config", json.dumps(events), *self._arguments]
        environment = runtime_environment(base / "overlay", {"SGLANG_USE_CPU_ENGINE": "1", **self._environment})
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as sink:
            self._process = subprocess.Popen(
                command, stdout=sink, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment,
                start_new_session=True,
            )  # fmt: skip
        try:
            self._wait_until_up()
            self.feed = KvEventFeed(f"ipc://{base}/events", f"ipc://{base}/replay")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server and everything that it started."""
        self.stop()

    @property
    def is_up(self) -> bool:
        """Whether the process still runs."""
        return self._process is not None and self._process.poll() is None

    def ask(self, path: str, body: object | None = None, *, wait_s: float = 120.0) -> Answer:
        """Send a request and return what came back within `wait_s`."""
        url = f"http://127.0.0.1:{self._port}{path}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=wait_s) as answer:
                return Answer(status=answer.status, text=answer.read().decode(errors="replace"))
        except urllib.error.HTTPError as e:
            return Answer(status=e.code, text=e.read().decode(errors="replace"))
        except (OSError, http.client.HTTPException) as e:
            return Answer(status=0, text=f"{type(e).__name__}: {e}")

    def info(self) -> dict[str, Any]:
        """Return what the server says of itself (`/server_info`).

        Raises:
            RuntimeFailed: it did not answer.
        """
        answer = self.ask("/server_info")
        if answer.status != 200 or not isinstance(answer.body, dict):
            raise RuntimeFailed(f"SGLang: /server_info answered {answer.status}: {answer.text[:200]}")
        return answer.body

    def generate(
        self,
        token_ids: tuple[int, ...],
        *,
        output_tokens: int = 1,
        wait_s: float = 120.0,
        fields: Mapping[str, object] | None = None,
    ) -> Usage | Answer:
        """Send a prompt of token ids; return what SGLang says of it, or the answer when it was not served."""
        sampling = {"max_new_tokens": output_tokens, "temperature": 0, "ignore_eos": True}
        answer = self.ask(
            "/generate", {"input_ids": list(token_ids), "sampling_params": sampling, **(fields or {})}, wait_s=wait_s
        )
        body = answer.body
        if answer.status != 200 or not isinstance(body, dict) or "meta_info" not in body:
            return answer
        return usage_of(body)

    def stop(self) -> None:
        """Stop the server; nothing is left running."""
        if self.feed is not None:
            self.feed.close()
            self.feed = None
        process, self._process = self._process, None
        if process is not None:
            _end_group(process)
        self._sockets.cleanup()

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if not self.is_up:
                raise RuntimeFailed(f"SGLang ended while it started: {last_line(self.log)}; see {self.log}")
            if self.ask("/health", wait_s=5.0).status == 200:
                return
            time.sleep(0.5)
        raise RuntimeFailed(f"SGLang did not answer within {START_S:.0f} s: {last_line(self.log)}; see {self.log}")


def usage_of(body: Mapping[str, Any]) -> Usage:
    """Read the answer of `/generate` (SGLang 0.5.23, `managers/scheduler_components/output_streamer.py`).

    Raises:
        RuntimeFailed: it has another shape.
    """
    meta = body.get("meta_info")
    details = (meta or {}).get("cached_tokens_details") or {}
    try:
        return Usage(
            request_id=meta["id"],  # type: ignore[index]
            prompt_tokens=meta["prompt_tokens"],  # type: ignore[index]
            output_ids=tuple(body["output_ids"]),
            finish_status=meta["finish_reason"]["type"],  # type: ignore[index]
            cached_tokens=meta["cached_tokens"],  # type: ignore[index]
            device_tokens=details.get("device", 0),
            host_tokens=details.get("host", 0),
            storage_tokens=details.get("storage", 0),
        )
    except (KeyError, TypeError) as e:
        raise RuntimeFailed(f"SGLang answered without {e}: {json.dumps(body)[:200]}") from None


def free_port() -> int:
    """Return a port of this machine that nobody listens on now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def last_line(log: Path) -> str:
    """Return the last line of a log that says something."""
    lines = [x.strip() for x in log.read_text(errors="replace").splitlines() if x.strip()] if log.exists() else []
    return lines[-1][:300] if lines else "nothing was logged"


def _end_group(process: subprocess.Popen[bytes]) -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            break
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            continue
    process.wait(STOP_S)
