"""The ASGI middleware for stock vLLM's OpenAI server: `--middleware residentkv.server.middleware.ResidentClaims`.

vLLM 0.32 ends every request that the engine refuses with status 500 and without its `kv_transfer_params`
(entrypoints/generate/base/serving.py, _raise_if_error), and drops those of a streamed answer. So each request gets a
ticket inside its `kv_transfer_params`; the engine notes under that ticket what it decided, before the first byte of the
answer exists; and the middleware holds the start of an answer until it has asked for it over the claims socket, which
the environment variable RESIDENTKV_SOCKET names.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets

import msgspec

from residentkv.errors import ResidentKVError, UsageError
from residentkv.server.asgi import App, Message, Receive, Scope, Send, read_all, replay, resized, send_error
from residentkv.server.body import GenerationBody, read_body
from residentkv.server.client import AsyncClient
from residentkv.server.errors import UNKNOWN_DECISION, HttpError, decision_headers, problem_error, refusal_error
from residentkv.server.routes import PREFIX, answer_route
from residentkv.server.wire import AnyAnswer, AnyAsk, Began, Begin, OutcomeRead, Problem, ReadOutcome, RefusalView

logger = logging.getLogger("residentkv.server")

SOCKET_VARIABLE = "RESIDENTKV_SOCKET"
GENERATION_PATHS = frozenset(
    {
        "/v1/completions",
        "/v1/chat/completions",
        "/v1/chat/completions/batch",
        "/v1/responses",
        "/v1/messages",
        "/cohere/v2/chat",
        "/inference/v1/generate",
        "/invocations",
    }
)
"""Where vLLM 0.32 takes `kv_transfer_params`."""

_ERROR_EVENT = b'data: {"error"'


class ResidentClaims:
    """Answers `/residentkv/...` itself, and tells clients of all other requests what became of their claims."""

    def __init__(self, app: App) -> None:
        path = os.environ.get(SOCKET_VARIABLE)
        if not path:
            raise UsageError(f"{SOCKET_VARIABLE}: found nothing, expected the 'socket_path' that the engine was given")
        self.app = app
        self.client = AsyncClient(path)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = str(scope["path"]).removeprefix(scope.get("root_path", ""))
        if path == PREFIX or path.startswith(PREFIX + "/"):
            await answer_route(scope, receive, send, ask=self.ask, token=token_of(scope))
        elif scope["method"] == "POST" and path in GENERATION_PATHS:
            await self._generate(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def ask(self, question: AnyAsk) -> AnyAnswer:
        """Ask the engine; that it cannot be reached is an answer, too."""
        try:
            return await self.client.ask(question)
        except ResidentKVError as e:
            logger.warning("residentkv: %s", e)
            return Problem(code="unavailable", message="the engine does not answer about claims")

    async def _generate(self, scope: Scope, receive: Receive, send: Send) -> None:
        data = await read_all(receive)
        if data is None:
            return
        body = read_body(data)
        if body is None:
            await self.app(scope, replay(data, receive), send)
            return
        if isinstance(body, HttpError):
            await send_error(send, body)
            return
        ticket, token = secrets.token_hex(16), token_of(scope)
        if body.speaks_of_claims:
            began = await self.ask(Begin(ticket=ticket, token_sha256=token))
            if not isinstance(began, Began):
                await send_error(send, problem_error(_problem(began)))
                return
            wrong = body.set_owner(began.owner_scope) if began.owner_scope is not None else None
            wrong = wrong or body.check_claim()
            if wrong is not None:
                await send_error(send, wrong)
                return
        sealed = body.sealed(ticket)
        answering = _Answering(self, send, ticket, token, body)
        try:
            await self.app(resized(scope, len(sealed)), replay(sealed, receive), answering.send)
        except Exception:
            if not await answering.ended():
                raise


class _Answering:
    """Holds the start of one answer until it is known what became of the claim."""

    def __init__(
        self, middleware: ResidentClaims, send: Send, ticket: str, token: str | None, body: GenerationBody
    ) -> None:
        self._middleware = middleware
        self._send = send
        self._question = ReadOutcome(ticket=ticket, token_sha256=token)
        self._asks = body.speaks_of_claims
        self._claims = body.claims
        self._start: Message | None = None
        self._streams = False
        self._over = False

    async def send(self, message: Message) -> None:
        """Pass on what the server sends."""
        if self._over:
            return
        if message["type"] == "http.response.start":
            self._start = message
            self._streams = any(
                k == b"content-type" and v.startswith(b"text/event-stream") for k, v in message["headers"]
            )
            return
        if message["type"] == "http.response.body":
            if self._start is not None:
                await self._begin(self._start)
            elif self._streams and bytes(message.get("body", b"")).startswith(_ERROR_EVENT):
                message = await self._retold(message)
        if not self._over:
            await self._send(message)

    async def _begin(self, start: Message) -> None:
        """The first byte is here: say what is known by now, as status and headers."""
        self._start = None
        if self._asks or self._streams or start["status"] >= 500:
            outcome = await self._outcome()
            if outcome.refusal is not None:
                self._over = True
                await send_error(self._send, refusal_error(outcome.refusal))
                return
            if outcome.claim is not None:
                start["headers"] = [*start["headers"], *decision_headers(outcome.claim)]
            elif self._claims and start["status"] < 400:
                start["headers"] = [*start["headers"], *UNKNOWN_DECISION]
        await self._send(start)

    async def _retold(self, message: Message) -> Message:
        """An error in the middle of a stream: if it is a refusal, tell it as one; the status is gone already."""
        refusal = (await self._outcome()).refusal
        if refusal is None:
            return message
        return {**message, "body": _event(refusal)}

    async def ended(self) -> bool:
        """The server broke off: if it did because of a refusal, end the answer with that, and tell that it is done.

        vLLM 0.32 streams the first event of `/v1/responses` before it asks the engine, and has no event for an error.
        """
        refusal = None if self._over else (await self._outcome()).refusal
        if refusal is None:
            return False
        self._over = True
        if self._start is not None:
            await send_error(self._send, refusal_error(refusal))
        elif self._streams:
            end = {"type": "http.response.body", "body": _event(refusal) + b"data: [DONE]\n\n", "more_body": False}
            await self._send(end)
        else:
            return False
        return True

    async def _outcome(self) -> OutcomeRead:
        answer = await self._middleware.ask(self._question)
        return answer if isinstance(answer, OutcomeRead) else OutcomeRead()


def token_of(scope: Scope) -> str | None:
    """Return the SHA-256 of the caller's token, from `X-ResidentKV-Token`, else from `Authorization: Bearer`."""
    found: dict[bytes, bytes] = dict(scope["headers"])
    token = found.get(b"x-residentkv-token")
    if token is None:
        scheme, _, rest = found.get(b"authorization", b"").partition(b" ")
        token = rest.strip() if scheme.lower() == b"bearer" else None
    return hashlib.sha256(token).hexdigest() if token else None


def _event(refusal: RefusalView) -> bytes:
    return b"data: " + msgspec.json.encode(refusal_error(refusal).document()) + b"\n\n"


def _problem(answer: AnyAnswer) -> Problem:
    return answer if isinstance(answer, Problem) else Problem(code="internal", message="an answer of another kind")
