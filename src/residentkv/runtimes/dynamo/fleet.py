"""A Dynamo frontend with its KV router and some simulated workers: processes without etcd and NATS.

Discovery is a folder, requests go by TCP, events by ZMQ. The workers are Dynamo's own mocker: its cache logic, events
and answers are real, the engine and the KV bytes are simulated.
"""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from residentkv.environments import find_model
from residentkv.errors import ResidentKVError

MODEL = "study"
BLOCK_TOKENS = 16
WORKER_BLOCKS = 32
"""Device blocks of each worker of the study."""

PATIENCE_S = 90.0
POLL_S = 0.1
CONNECT_S = 2.0


class FleetFailed(ResidentKVError):
    """A process of the fleet did not come up or ended; the message names its log."""


class Worker(msgspec.Struct, kw_only=True):
    """One worker process and the instance id under which Dynamo knows it."""

    name: str
    instance_id: int
    process: Any
    alive: bool = True


def free_port() -> int:
    """Return a TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Fleet:
    """Frontend and workers; leaving it kills them. `folder` gets logs and the discovery store.

    Args:
        frontend: more options of `dynamo.frontend`.
        worker: more options of `dynamo.mocker`.
    """

    def __init__(
        self, folder: Path, *, frontend: Sequence[str] = (), worker: Sequence[str] = (), workers: int = 2
    ) -> None:
        self.folder = folder
        self.store = folder / "discovery"
        self.port = free_port()
        self._frontend = tuple(frontend)
        self._worker = tuple(worker)
        self._count = workers
        self._started = 0
        self._processes: list[subprocess.Popen[bytes]] = []
        self.workers: list[Worker] = []

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._start(
                "frontend",
                ["dynamo.frontend", "--http-host", "127.0.0.1", "--http-port", str(self.port), *self._frontend],
            )
            for _ in range(self._count):
                self.add_worker()
            self._wait(self._serves, "the frontend serves no model")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def add_worker(self) -> Worker:
        """Start one more worker and wait until discovery lists it."""
        before = set(self.instances())  # With dead ones, which discovery lists until their lease is over.
        name = f"worker-{self._started}"
        self._started += 1
        process = self._start(
            name,
            [
                "dynamo.mocker",
                *("--model-path", str(find_model()), "--model-name", MODEL),
                *("--block-size", str(BLOCK_TOKENS), "--speedup-ratio", "0"),
                *("--num-gpu-blocks-override", str(WORKER_BLOCKS)),
                *self._worker,
            ],
        )
        fresh: list[int] = []

        def discovered() -> bool:
            fresh.extend(set(self.instances()) - before - set(fresh))
            return bool(fresh)

        self._wait(discovered, f"{name} is not discovered")
        worker = Worker(name=name, instance_id=fresh[0], process=process)
        self.workers.append(worker)
        return worker

    def kill(self, instance_id: int) -> None:
        """Let a worker die without a word."""
        for worker in self.workers:
            if worker.instance_id == instance_id and worker.alive:
                os.killpg(worker.process.pid, signal.SIGKILL)
                worker.process.wait()
                worker.alive = False

    def instances(self) -> list[int]:
        """Return the workers that discovery lists, whether or not they are alive."""
        found = []
        for path in (self.store / "v1" / "instances").glob("*generate*"):
            record = self._record(path)
            if record.get("endpoint") == "generate":
                found.append(int(record["instance_id"]))
        return sorted(found)

    def is_alive(self, instance_id: int) -> bool:
        """Tell whether somebody listens at the address under which discovery lists a worker; unlisted ones are gone."""
        for path in (self.store / "v1" / "instances").glob("*generate*"):
            record = self._record(path)
            if record.get("endpoint") == "generate" and record["instance_id"] == instance_id:
                host, _, port = str(record["transport"]["tcp"]).partition("/")[0].rpartition(":")
                try:
                    socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
                except OSError:
                    return False
                return True
        return False

    def event_channels(self) -> dict[int, str]:
        """Return the ZMQ address of every publisher of KV events that discovery lists, by publisher id."""
        found = {}
        for path in (self.store / "v1" / "event_channels").glob("*kv%2Devents*"):
            record = self._record(path)
            if record.get("topic") == "kv-events":
                found[int(record["instance_id"])] = str(record["transport"]["config"]["endpoint"])
        return found

    def stop(self) -> None:
        """Kill what still runs."""
        for process in self._processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    @staticmethod
    def _record(path: Path) -> dict[str, Any]:
        """Return a record of the store; one that is being written or removed now counts as not there."""
        try:
            return dict(msgspec.json.decode(path.read_bytes()))
        except (OSError, msgspec.DecodeError):
            return {}

    def _start(self, name: str, arguments: list[str]) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "DYN_DISCOVERY_BACKEND": "file",
            "DYN_FILE_KV": str(self.store),
            "DYN_EVENT_PLANE": "zmq",
            "DYN_REQUEST_PLANE": "tcp",
            "DYN_LOG": "warn",
            "HF_HUB_OFFLINE": "1",
        }
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def _serves(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/v1/models")
            answer = connection.getresponse().read()
            return MODEL in str(msgspec.json.decode(answer))
        except (OSError, http.client.HTTPException, msgspec.DecodeError):
            return False
        finally:
            connection.close()

    def _wait(self, done: Any, problem: str) -> None:
        until = time.monotonic() + PATIENCE_S
        while not done():
            killed = {w.process.pid for w in self.workers if not w.alive}
            ended = [p for p in self._processes if p.pid not in killed and p.poll() is not None]
            if ended or time.monotonic() > until:
                raise FleetFailed(f"{problem}; see the logs in {self.folder}")
            time.sleep(POLL_S)
