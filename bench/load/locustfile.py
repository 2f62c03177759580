"""The clients of a load, for Locust: `locust --headless -f locustfile.py`, with a task in LOAD_TASK.

Each client takes the next request of the plan, one after another, until the plan or the time is over. What was
answered goes to a file, a line a request; the last line says how many were begun.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import gevent
from locust import HttpUser, events, task
from locust.exception import StopUser

TASK = json.loads(Path(os.environ["LOAD_TASK"]).read_text())
PLAN = json.loads(Path(TASK["plan"]).read_text())
DEADLINE_S = PLAN["shape"]["deadline_s"]


class Source:
    """Hands out the requests of the plan to all clients; they are greenlets of one process."""

    def __init__(self):
        self.items = iter(enumerate(TASK["items"] or PLAN["sequence"]))
        self.end_ns = time.monotonic_ns() + int(TASK["duration_s"] * 1e9) if TASK["duration_s"] else None
        self.begun = 0
        self.clients = PLAN["shape"]["clients"]
        self.out = Path(TASK["records"]).open("w")  # noqa: SIM115 (closed by the last client)

    def take(self):
        """Return the next request, or None when it is over."""
        if self.end_ns is not None and time.monotonic_ns() > self.end_ns:
            return None
        item = next(self.items, None)
        if item is not None:
            self.begun += 1
        return item

    def put(self, record):
        """Write one line."""
        self.out.write(json.dumps(record) + "\n")

    def leave(self, environment):
        """A client has nothing to do any more; after the last one the load is over."""
        self.clients -= 1
        if self.clients == 0:
            self.put({"begun": self.begun})
            self.out.close()
            environment.runner.quit()


SOURCE = None


@events.test_start.add_listener
def begin(environment, **_):
    """Start the clock when the first client starts."""
    global SOURCE
    SOURCE = Source()


def read_stream(response, record):
    """Take in the events of a stream: the tokens, the time of the first one, what was found in the cache."""
    for line in response.iter_lines():
        if not line.startswith(b"data: "):
            continue
        if line == b"data: [DONE]":
            record["done"] = True
            continue
        chunk = json.loads(line[6:])
        if "error" in chunk:
            record["error"] = json.dumps(chunk["error"])[:300]
            continue
        for choice in chunk.get("choices", ()):
            if choice.get("token_ids"):
                record["ttft_ns"] = record["ttft_ns"] or time.monotonic_ns() - record["start_ns"]
                record["tokens"] += choice["token_ids"]
            record["finish"] = choice.get("finish_reason") or record["finish"]
        details = (chunk.get("usage") or {}).get("prompt_tokens_details") or {}
        record["cached"] = details.get("cached_tokens", record["cached"])


class Client(HttpUser):
    """One client: one request at a time, with a deadline."""

    def body(self, prompt, anew):
        """Return the body of a request, with its claim if the server is to see it."""
        body = {
            "model": "load",
            "prompt": PLAN["prompts"][prompt],
            "max_tokens": PLAN["shape"]["max_tokens"],
            "temperature": 0,
            "ignore_eos": True,
            "return_token_ids": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        claim = PLAN["claims"][prompt]
        if TASK["claims"] and claim is not None:
            body["kv_transfer_params"] = {"resident_claim": claim}
            if anew:
                names = {"claim_id": claim["claim_id"], "owner_scope": claim["owner_scope"]}
                body["kv_transfer_params"]["resident_claim_release"] = names
        return body

    @task
    def ask(self):
        """Make the next request of the plan."""
        taken = SOURCE.take()
        if taken is None:
            SOURCE.leave(self.environment)
            raise StopUser
        number, (prompt, anew, first) = taken
        record = {"number": number, "prompt": prompt, "anew": anew, "first": first, "status": 0, "error": ""}
        record |= {"tokens": [], "finish": None, "cached": None, "ttft_ns": None, "hung": False, "done": False}
        record["start_ns"] = time.monotonic_ns()
        body = self.body(prompt, anew)
        try:
            with (
                gevent.Timeout(DEADLINE_S),
                self.client.post(
                    "/v1/completions", json=body, stream=True, name=PLAN["kinds"][prompt], catch_response=True
                ) as response,
            ):
                record["status"] = response.status_code
                if response.status_code == 200:
                    read_stream(response, record)
                else:
                    record["error"] = response.text[:300]
                if record["error"] or not record["done"]:
                    response.failure(record["error"] or "no end of the stream")
                else:
                    response.success()
        except gevent.Timeout:
            record["hung"] = True
        except Exception as e:
            record["error"] = f"{type(e).__name__}: {e}"[:300]
        record["end_ns"] = time.monotonic_ns()
        SOURCE.put(record)
