"""The middleware in front of a server that behaves as vLLM 0.32 does: statuses, headers, streams, owners."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from residentkv.errors import UsageError
from residentkv.runtimes.vllm.active import Refusal
from residentkv.server.middleware import ResidentClaims
from tests.server.counter import Counter, owners
from tests.vllm.bench import claim, prompt

JSON = (b"content-type", b"application/json")
STREAM = (b"content-type", b"text/event-stream; charset=utf-8")
LOST = Refusal(reason="restoration_failed", claim_id="c", owner_scope="tenant-a", restoration=True)
ERROR_500 = b'{"error":{"message":"Internal server error","type":"InternalServerError","param":null,"code":500}}'


class Server:
    """Stands for vLLM's app: it hands the request to the bench and answers as vLLM would, refused or served."""

    def __init__(self, counter: Counter) -> None:
        self.counter = counter
        self.script: list[bytes | Refusal | Exception] = [b"{}"]
        self.status = 200
        self.kind = JSON
        self.seen: dict[str, Any] = {}
        self.requests = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        assert dict(scope["headers"])[b"content-length"] == str(len(message["body"])).encode()
        self.seen = json.loads(message["body"])
        params = self.seen.get("kv_transfer_params") or {}
        self.requests += 1
        request_id = f"q{self.requests}"
        desk, bench = self.counter.desk, self.counter.bench
        with self.counter.guard:
            bench.arrive(request_id, prompt(), barred=desk.barred(params), **params)
            desk.told(params, bench.residency.reply_of(request_id))
        await send({"type": "http.response.start", "status": self.status, "headers": [self.kind]})
        for i, part in enumerate(self.script):
            if isinstance(part, Refusal):
                desk.refused(params, part)
                continue
            if isinstance(part, Exception):
                raise part
            more = i + 1 < len(self.script)
            await send({"type": "http.response.body", "body": part, "more_body": more})


class Client:
    """Sends requests through the middleware."""

    def __init__(self, server: Server, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RESIDENTKV_SOCKET", str(path))
        self.server = server
        self.monkeypatch = monkeypatch

    def __call__(
        self, method: str, path: str, body: Any = None, token: str | None = None, raw: bytes | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        return asyncio.run(self._call(method, path, body, token, raw))

    async def _call(self, method: str, path: str, body: Any, token: str | None, raw: bytes | None) -> Any:
        data = raw if raw is not None else json.dumps(body).encode()
        headers = [(b"content-length", str(len(data)).encode())]
        headers += [(b"authorization", f"Bearer {token}".encode())] if token else []
        route, _, query = path.partition("?")
        scope = {
            "type": "http",
            "method": method,
            "path": route,
            "raw_path": route.encode(),
            "query_string": query.encode(),
            "headers": headers,
        }
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": data, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        middleware = ResidentClaims(self.server)
        try:
            await middleware(scope, receive, send)
        finally:
            middleware.client.close()
        assert [m["type"] for m in sent].count("http.response.start") == 1
        found = {k.decode(): v.decode() for k, v in sent[0]["headers"]}
        return sent[0]["status"], found, b"".join(m["body"] for m in sent[1:])

    def complete(self, asked: dict[str, Any] | None, token: str | None = None) -> tuple[int, dict[str, str], bytes]:
        return self("POST", "/v1/completions", {"model": "m", "kv_transfer_params": asked}, token)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    counter = Counter(tmp_path, known=owners(max_claims=1))
    counter.desk.listen(str(tmp_path / "s"))
    yield Server(counter)
    counter.desk.close()


@pytest.fixture
def client(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    return Client(server, tmp_path / "s", monkeypatch)


def mine(name: str = "c", **changes: Any) -> dict[str, Any]:
    """A claim that names no owner: the token does."""
    wire = claim(name, **changes)
    del wire["owner_scope"]
    return {"resident_claim": wire}


def about(body: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(body)["error"]
    return found


def test_a_decision_comes_back_as_headers(client: Client, server: Server) -> None:
    """Accepted, joined, rejected by quota; the middleware puts the owner in, and the rest goes on as it was."""
    status, headers, body = client.complete(mine(), "tok-a")
    assert (status, body, headers["x-residentkv-decision"], headers["x-residentkv-mode"]) == (
        200,
        b"{}",
        "accepted",
        "offloadable",
    )
    assert server.seen["kv_transfer_params"]["resident_claim"]["owner_scope"] == "tenant-a"
    assert client.complete(mine(), "tok-a")[1]["x-residentkv-decision"] == "joined"
    assert client.complete(mine("ö%"), "tok-a")[1]["x-residentkv-reason"] == "owner_quota_claims"
    assert "x-residentkv-decision" not in client.complete(None)[1]


def test_a_streamed_answer_has_the_headers_too(client: Client, server: Server) -> None:
    """Its start is held until the first event is there."""
    server.kind, server.script = STREAM, [b"data: {}\n\n", b"data: [DONE]\n\n"]
    status, headers, body = client.complete(mine(), "tok-a")
    assert (status, headers["x-residentkv-decision"], body) == (200, "accepted", b"data: {}\n\ndata: [DONE]\n\n")


def test_a_failed_restoration_is_424_with_the_claim_named(client: Client, server: Server) -> None:
    """vLLM says 500 without a name; nothing of that is sent."""
    server.status, server.script = 500, [LOST, ERROR_500]
    status, headers, body = client.complete(mine(), "tok-a")
    error = about(body)
    assert (status, error["code"], error["residentkv"]["claim_ids"]) == (424, 424, ["c"])
    assert headers["x-residentkv-refusal"] == "restoration_failed"


def test_a_refusal_before_the_first_byte_of_a_stream_is_a_status(client: Client, server: Server) -> None:
    """Also when vLLM sends the role of a chat first: the engine had refused by then."""
    server.kind = STREAM
    for script in ([LOST, b'data: {"error": {"code": 500}}\n\n'], [LOST, b'data: {"delta":{"role":"assistant"}}\n\n']):
        server.script = [*script, b"data: [DONE]\n\n"]
        status, _, body = client.complete(mine(), "tok-a")
        assert (status, about(body)["residentkv"]["outcome"]) == (424, "restoration_failed")


def test_a_refusal_in_the_middle_of_a_stream_is_an_event(client: Client, server: Server) -> None:
    """The status has gone out, so the error event is the typed one; the stream ends as vLLM ends it."""
    server.kind = STREAM
    server.script = [b"data: {}\n\n", LOST, b'data: {"error": {"code": 500}}\n\n', b"data: [DONE]\n\n"]
    status, _, body = client.complete(mine(), "tok-a")
    events = body.split(b"\n\n")
    assert status == 200 and events[0] == b"data: {}" and events[2] == b"data: [DONE]"
    assert json.loads(events[1].removeprefix(b"data: "))["error"]["code"] == 424


def test_a_stream_that_the_server_breaks_off_ends_with_the_refusal(client: Client, server: Server) -> None:
    """vLLM's `/v1/responses` does; what is no refusal breaks off as it does without residentkv."""
    server.kind = STREAM
    server.script = [b"event: response.created\n\n", LOST, ValueError("no event for an error")]
    status, _, body = client("POST", "/v1/responses", {"kv_transfer_params": mine()}, "tok-a")
    events = body.split(b"\n\n")
    assert status == 200 and json.loads(events[1].removeprefix(b"data: "))["error"]["code"] == 424
    assert events[2] == b"data: [DONE]"
    server.script = [LOST, ValueError("before the first byte")]
    assert client("POST", "/v1/responses", {"kv_transfer_params": mine()}, "tok-a")[0] == 424
    server.script = [b"data: {}\n\n", ValueError("of the server")]
    with pytest.raises(ValueError, match="of the server"):
        client("POST", "/v1/responses", {"kv_transfer_params": mine()}, "tok-a")


def test_an_error_that_is_no_refusal_is_passed_on(client: Client, server: Server) -> None:
    """Streamed or not: what residentkv does not know it does not explain."""
    server.status, server.script = 500, [ERROR_500]
    assert client.complete(mine(), "tok-a")[::2] == (500, ERROR_500)
    server.status, server.kind = 200, STREAM
    server.script = [b"data: {}\n\n", b'data: {"error": {"code": 500}}\n\n']
    assert client.complete(None)[2] == b"".join(p for p in server.script if isinstance(p, bytes))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"mode": "hard"}, "mode"),
        ({"ttl_s": -1}, "ttl_s"),
        ({"ttl_s": "1"}, "ttl_s"),
        ({"predicate": "whole"}, "predicate"),
        ({"claim_id": ""}, "claim_id"),
        ({"color": 1}, "color"),
    ],
)
def test_a_bad_claim_is_400_with_the_field_named(
    client: Client, server: Server, changes: dict[str, Any], field: str
) -> None:
    """And it never reaches the server."""
    status, _, body = client.complete(mine(**changes), "tok-a")
    assert (status, about(body)["param"]) == (400, f"kv_transfer_params.resident_claim.{field}")
    assert server.requests == 0


def test_whoever_has_no_token_or_names_another_owner_is_turned_away(client: Client, server: Server) -> None:
    """401 and 403, before the server sees anything; a request without claims needs no token."""
    assert client.complete(mine(), None)[0] == client.complete(mine(), "wrong")[0] == 401
    for name in ("resident_claim", "resident_claim_release"):
        status, _, body = client.complete({name: claim("c", "tenant-b")}, "tok-a")
        assert (status, about(body)["param"]) == (403, f"kv_transfer_params.{name}.owner_scope")
    assert server.requests == 0
    assert client.complete({}, None)[0] == 200


def test_a_ticket_of_the_client_is_replaced(client: Client, server: Server) -> None:
    """Nobody can speak under the ticket of somebody else."""
    client.complete({"residentkv_ticket": "f" * 32}, None)
    assert server.seen["kv_transfer_params"]["residentkv_ticket"] != "f" * 32


def test_a_claim_around_the_middleware_is_rejected_by_the_engine(client: Client, server: Server) -> None:
    """On a path that takes no claims nothing is sealed."""
    body = {"kv_transfer_params": {"resident_claim": claim("c", "tenant-a")}}
    client("POST", "/v1/other", body)
    answer = server.counter.bench.residency.reply_of("q1")
    assert answer is not None and answer["resident_claim"]["reason"] == "owner_unauthenticated"


@pytest.mark.parametrize(
    "raw",
    [
        b'{"temperature": NaN, "kv_transfer_params": {"resident_claim": %s}}' % json.dumps(claim()).encode(),
        b'{"kv_transfer_params": {"resident_claim": {"claim_id": "\\ud800"}}}',
        b'{"prompt": "\\ud800"}',
        json.dumps({"kv_transfer_params": {"resident_claim": claim()}}).encode("utf-16"),
    ],
)
def test_what_only_the_server_would_read_does_not_pass_by_the_middleware(
    client: Client, server: Server, raw: bytes
) -> None:
    """Python reads more than JSON: such a request would be refused without a name, or claim without an owner."""
    status, _, body = client("POST", "/v1/completions", raw=raw)
    assert (status, about(body)["residentkv"]["reason"], server.requests) == (400, "body_unreadable", 0)


@pytest.mark.parametrize("path", ["/invocations", "/v1/chat/completions/batch", "/cohere/v2/chat"])
def test_wherever_vllm_takes_a_claim_it_is_decided_by_name(client: Client, server: Server, path: str) -> None:
    """The other ways into the same engine have the same owners, headers and errors."""
    body = {"model": "m", "kv_transfer_params": mine()}
    assert client("POST", path, body, "tok-b")[1]["x-residentkv-decision"] == "accepted"
    server.status, server.script = 500, [LOST, ERROR_500]
    assert client("POST", path, {"model": "m"})[0] == 424


def test_a_claim_that_nobody_decided_about_is_told_so(
    client: Client, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Served, and nothing known about the claim (beam search leaves it out, say): unknown is not silence."""
    monkeypatch.setattr(server.counter.desk, "told", lambda *_: None)
    assert client.complete(mine(), "tok-a")[1]["x-residentkv-decision"] == "unknown"
    assert "x-residentkv-decision" not in client.complete({}, "tok-a")[1]


def test_the_claims_api_over_http(client: Client, server: Server) -> None:
    """List, show, renew and release, each by the owner of the token; a foreign claim is 404 in the words for none."""
    client.complete(mine("a/b"), "tok-a")
    path = "/residentkv/claims/a%2Fb"
    assert json.loads(client("GET", "/residentkv/claims?limit=5", token="tok-a")[2])["claims"][0]["claim_id"] == "a/b"
    assert client("GET", "/residentkv/claims", token=None)[0] == 401
    for limit in ("0", "501", "x", "000000001" + 5000 * "0"):
        assert client("GET", f"/residentkv/claims?limit={limit}", token="tok-a")[0] == 400
    assert client("GET", path, token="tok-a")[0] == 200
    foreign, nothing = client("DELETE", path, token="tok-b"), client("DELETE", path + "x", token="tok-b")
    assert foreign == nothing and foreign[0] == 404
    assert client("POST", path + "/renew", {"revision": 1, "ttl_s": 60}, "tok-a")[0] == 200
    assert client("POST", path + "/renew", {"revision": 1, "ttl_s": 90}, "tok-a")[0] == 409
    status, _, body = client("POST", path + "/renew", {"revision": "2", "ttl_s": 60}, "tok-a")
    assert (status, about(body)["param"]) == (400, "revision")
    assert client("DELETE", path, token="tok-a")[0] == 200
    assert client("DELETE", path, token="tok-a")[0] == 404
    assert client("PUT", path, token="tok-a")[0] == 404


def test_metrics_are_for_everybody_and_name_nobody(client: Client, server: Server) -> None:
    """No owner and no claim is a label."""
    client.complete(mine("secret-name"), "tok-a")
    status, headers, body = client("GET", "/residentkv/metrics")
    assert status == 200 and headers["content-type"].startswith("text/plain")
    assert b'residentkv_claims{mode="offloadable",state="accepted"} 1.0' in body
    assert b"secret-name" not in body and b"tenant" not in body


def test_without_its_engine_a_claim_is_503_and_other_requests_are_served(
    client: Client, server: Server, tmp_path: Path
) -> None:
    """Fail-closed: a claim that nobody can vouch for is not sent."""
    server.counter.desk.close()
    assert client.complete(mine(), "tok-a")[0] == 503
    assert client.complete(None)[0] == 200


def test_without_a_socket_the_server_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A middleware that could tell nobody anything is a mistake of the operator."""
    monkeypatch.delenv("RESIDENTKV_SOCKET", raising=False)
    with pytest.raises(UsageError, match="RESIDENTKV_SOCKET"):
        ResidentClaims(None)  # type: ignore[arg-type]
