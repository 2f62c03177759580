"""The real server of stock vLLM with claims, and the shell of its operator and its clients."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from residentkv.environments import find_python, runtime_environment
from residentkv.runtimes.vllm.faults import Fault, FaultPlan, write_plan
from residentkv.runtimes.vllm.plugin import engine_settings
from residentkv.witness.driver import prepare_model

ROW_BYTES = 737_280
"""Bytes of one block of 32 tokens of SmolLM2-135M in bfloat16."""

BLOCKS = 65
TIER_ROWS = 16
TOKENS = {"A": "token-of-a", "B": "token-of-b"}
START_PATIENCE_S = 300.0
STOP_PATIENCE_S = 90.0
QUIET_S = 1.0
"""An engine that goes idle just then can miss a SIGTERM: CPython runs no handler until its main thread wakes again."""

SENTENCE = "You answer for the support desk of a small shop. "
SHELL = {
    **TOKENS,
    "SYSTEM": SENTENCE * 16,
    "LONG": SENTENCE * 64,
    "OTHER": "The shop sells bread, rolls, cakes and coffee. " * 130,
}
"""Variables of the shell: SYSTEM fills 5 blocks, LONG 22, which is more than the second tier has, OTHER about 45."""

_KEPT_HEADERS = ("x-residentkv-", "retry-after", "www-authenticate", "content-type")
_MASKS = [
    (r"\b((?:chat)?cmpl)-[0-9a-f]{16}(-\d+-[0-9a-f]{8})?", r"\1-ID"),
    (r'"created":\d+', '"created":T'),
    (r'"state":"(?:accepted|materialized|offloaded)"(.*?)"generation":\d+', r'"state":"STATE"\1"generation":N'),
    (r"\b(tokens|cache|kv):[0-9a-f]{32,64}", r"\1:HEX"),
    (r'"expires_in_s":[\d.]+', '"expires_in_s":S'),
    (r'"system_fingerprint":"[^"]*"', '"system_fingerprint":"FP"'),
    (r'"text":"(?:[^"\\]|\\.)*"', '"text":"TEXT"'),
    (r'"content":"(?:[^"\\]|\\.)+"', '"content":"TEXT"'),
    (r"\(\d+ events", "(N events"),
    (r"(?m)^(tenant-\S+ .*  )\d+\.\d$", r"\1S"),
    (r"(retry-after: )\d+", r"\1S"),
    (r'"retry_after_s":[\d.]+', '"retry_after_s":S'),
]


class LiveServer:
    """One server; `shell` runs a command as its operator or a client would, and returns what it printed."""

    def __init__(self, folder: Path, *, port: int | None = None) -> None:
        self.folder = folder
        self.port = port or _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.socket = folder / "claims.sock"
        self.trace = folder / "trace.jsonl"
        self.log = folder / "server.log"
        self.faults = folder / "faults.json"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> LiveServer:
        """Start it and wait until it serves."""
        owners = [
            {"owner_scope": "tenant-a", "token_sha256": [_sha(TOKENS["A"])]},
            {"owner_scope": "tenant-b", "token_sha256": [_sha(TOKENS["B"])], "max_claims": 1},
        ]
        (self.folder / "owners.json").write_text(json.dumps({"owners": owners}))
        settings = engine_settings(
            tier_bytes=TIER_ROWS * ROW_BYTES,
            options={
                "trace_path": str(self.trace),
                "trace_max_bytes": 1 << 16,
                "run_id": "server",
                "tier_dir": str(self.folder),
                "faults_path": str(self.faults),
                "clip_to_best_effort": True,
                "socket_path": str(self.socket),
                "owners_path": str(self.folder / "owners.json"),
            },
        )
        options = {
            "--model": str(prepare_model()),
            "--served-model-name": "smollm2",
            "--host": "127.0.0.1",
            "--port": str(self.port),
            "--block-size": "32",
            "--num-gpu-blocks-override": str(BLOCKS),
            "--max-model-len": "2048",
            "--gpu-memory-utilization": "0.2",
            "--shutdown-timeout": "30",
            "--middleware": "residentkv.server.middleware.ResidentClaims",
            "--scheduler-cls": settings["scheduler_cls"],
            "--kv-transfer-config": json.dumps(settings["kv_transfer_config"]),
        }
        more = {"RESIDENTKV_SOCKET": str(self.socket), "VLLM_SERVER_DEV_MODE": "1"}
        words = [w for pair in options.items() for w in pair]
        with self.log.open("ab") as sink:
            self._process = subprocess.Popen(
                [str(find_python("vllm")), "-m", "vllm.entrypoints.openai.api_server", "--enforce-eager", *words],
                stdout=sink,
                stderr=sink,
                stdin=subprocess.DEVNULL,
                env=runtime_environment(self.folder / "overlay", more),
            )
        self._wait(lambda: self._get("/health") == 200, START_PATIENCE_S, "serve")
        return self

    def stop(self) -> int:
        """Tell it to stop, as a service manager does, and return its exit code."""
        process = self._process
        if process is None:
            raise RuntimeError("the server was not started")
        time.sleep(QUIET_S)
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(STOP_PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise RuntimeError(f"the server did not stop; see {self.log}") from None

    def kill(self) -> None:
        """Make sure that nothing is left of it."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def shell(self, command: str) -> str:
        """Run a command in the server's folder and return what it printed, standard error included."""
        environment = {
            **os.environ,
            **SHELL,
            "URL": self.url,
            "RESIDENTKV_SOCKET": self.socket.name,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        done = subprocess.run(
            ["bash", "-c", command],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=environment,
            check=False,
            timeout=300,
        )
        return done.stdout + done.stderr

    def empty_primary(self) -> None:
        """Empty vLLM's prefix cache; that is refused while transfers are under way."""
        self._wait(lambda: b"true" in self._post("/reset_prefix_cache"), 60.0, "reset its prefix cache")

    def wait_for_state(self, owner: str, claim_id: str, state: str) -> None:
        """Wait until a claim is in a state."""

        def there() -> bool:
            shown = self.shell(f"residentkv claims show --json --owner {owner} {claim_id}")
            return f'"state":"{state}"' in shown

        self._wait(there, 60.0, f"bring {claim_id} to {state}")

    def fail_loads(self, *claim_ids: str) -> None:
        """Make the loads of these claims fail from now on; of none: let all succeed."""
        write_plan(self.faults, FaultPlan(faults=tuple(Fault(action="fail_load", claim_id=c) for c in claim_ids)))

    def _wait(self, ready: Any, patience_s: float, what: str) -> None:
        until = time.monotonic() + patience_s
        while not ready():
            if self._process is not None and self._process.poll() is not None:
                raise RuntimeError(f"the server ended with {self._process.returncode}; see {self.log}")
            if time.monotonic() > until:
                raise RuntimeError(f"the server did not {what} in {patience_s:.0f} s; see {self.log}")
            time.sleep(0.25)

    def _get(self, path: str) -> int:
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as e:
            return e.code
        except OSError:
            return 0

    def _post(self, path: str) -> bytes:
        with urllib.request.urlopen(urllib.request.Request(self.url + path, method="POST"), timeout=60) as answer:
            body: bytes = answer.read()
            return body


def masked(printed: str) -> str:
    """Return what a command printed without what differs from run to run: other headers, IDs, digests, times, texts."""
    head, blank, rest = printed.replace("\r\n", "\n").partition("\n\n")
    lines = head.split("\n")
    if lines[0].startswith("HTTP/"):
        lines = [line for i, line in enumerate(lines) if i == 0 or line.startswith(_KEPT_HEADERS)]
    text = "\n".join(lines) + blank + rest
    for pattern, instead in _MASKS:
        text = re.sub(pattern, instead, text)
    return text.strip("\n")


def _sha(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
