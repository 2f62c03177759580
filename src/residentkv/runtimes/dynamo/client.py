"""Requests to a Dynamo frontend, and what its answers say about workers and caches; nothing is believed here."""

from __future__ import annotations

import http.client
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from residentkv.runtimes.dynamo.fleet import MODEL

TIMEOUT_S = 60.0
SESSION_HEADER = "x-dynamo-session-id"
TOLD = ["worker_id", "timing"]
"""Extra fields that the frontend tells when asked (nvext.extra_fields)."""


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """One answer: status 0 when the connection broke.

    `worker_id` is where the answer says that it was decoded, `cached_tokens` and `kv_hit_rate` what it says about the
    cache; `workers` are all ids that its chunks named, in order of first appearance. `error` is the body otherwise.
    """

    status: int
    worker_id: int | None = None
    workers: tuple[int, ...] = ()
    prompt_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int | None = None
    kv_hit_rate: float | None = None
    finish_reason: str | None = None
    error: str = ""

    @property
    def served(self) -> bool:
        """Whether there was an answer that came to its end."""
        return self.status == 200 and self.finish_reason in ("stop", "length")


class Frontend:
    """The HTTP side of a frontend."""

    def __init__(self, port: int) -> None:
        self.port = port

    def complete(
        self,
        tokens: Sequence[int],
        *,
        max_tokens: int = 2,
        worker_id: int | None = None,
        session: str | None = None,
        stream: bool = False,
        salt: str | None = None,
        on_chunk: Any = None,
        **more: Any,
    ) -> Response:
        """Complete a prompt of token ids.

        Args:
            worker_id: the worker to be used (nvext.backend_instance_id).
            session: the session that the router may keep on one worker.
            on_chunk: called with the number of each chunk of a streamed answer.
            more: further fields of nvext.
        """
        nvext: dict[str, Any] = {"extra_fields": TOLD, **more}
        if worker_id is not None:
            nvext["backend_instance_id"] = worker_id
        if salt is not None:
            nvext["cache_salt"] = salt
        body: dict[str, Any] = {"model": MODEL, "prompt": list(tokens), "max_tokens": max_tokens, "nvext": nvext}
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        headers = {SESSION_HEADER: session} if session is not None else {}
        if stream:
            return self._stream(body, headers, on_chunk)
        status, text = self.post("/v1/completions", body, headers)
        return _read(status, [text])

    def post(self, path: str, body: Any, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        """Return (status, body) of a request; (0, the error) when the connection broke."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)
        try:
            connection.request(
                "POST", path, msgspec.json.encode(body), {"content-type": "application/json", **(headers or {})}
            )
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as e:
            return 0, str(e).encode()
        finally:
            connection.close()

    def _stream(self, body: Any, headers: Mapping[str, str], on_chunk: Any) -> Response:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)
        chunks: list[bytes] = []
        status = 0
        try:
            connection.request(
                "POST", "/v1/completions", msgspec.json.encode(body), {"content-type": "application/json", **headers}
            )
            answer = connection.getresponse()
            status = answer.status
            if status != 200:
                return _read(status, [answer.read()])
            for line in answer:
                if line.startswith(b"data: ") and line[6:].strip() != b"[DONE]":
                    chunks.append(line[6:].strip())
                    if on_chunk is not None:
                        on_chunk(len(chunks))
        except (OSError, http.client.HTTPException) as e:
            return Response(status=0, error=str(e))
        finally:
            connection.close()
        return _read(status, chunks)


def _read(status: int, parts: list[bytes]) -> Response:
    """Join what the parts of an answer say; a later part counts over an earlier one."""
    if status != 200:
        return Response(status=status, error=b"".join(parts).decode(errors="replace")[:500])
    found: dict[str, Any] = {}
    workers: list[int] = []
    for part in parts:
        try:
            record = msgspec.json.decode(part)
        except msgspec.DecodeError as e:
            return Response(status=status, error=f"an answer that is not JSON: {e}")
        for choice in record.get("choices") or ():
            if choice.get("finish_reason"):
                found["finish_reason"] = choice["finish_reason"]
        usage = record.get("usage") or {}
        if usage:
            found["prompt_tokens"] = usage.get("prompt_tokens") or 0
            found["output_tokens"] = usage.get("completion_tokens") or 0
            found["cached_tokens"] = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
        told = record.get("nvext") or {}
        worker = (told.get("worker_id") or {}).get("decode_worker_id")
        if worker is not None:
            found["worker_id"] = worker
            if worker not in workers:
                workers.append(worker)
        rate = (told.get("timing") or {}).get("kv_hit_rate")
        if rate is not None:
            found["kv_hit_rate"] = rate
        if record.get("error"):
            found["error"] = str(record["error"])[:500]
    return Response(status=status, workers=tuple(workers), **found)
