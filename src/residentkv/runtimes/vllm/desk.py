"""The engine's side of the claims socket: it reads and steps the claim book on behalf of owners.

No vLLM here. Everything that touches the book runs under `guard`, which the scheduler holds while it steps: an idle
engine answers at once, a busy one between two steps.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from residentkv.claims.ledger import StaleRevision
from residentkv.claims.model import ResidentClaim
from residentkv.claims.params import CLAIM_PARAM, OWNER_PARAMS
from residentkv.errors import UsageError
from residentkv.runtimes.vllm.active import Refusal
from residentkv.runtimes.vllm.claimbook import ClaimBook
from residentkv.runtimes.vllm.claimtrack import ClaimTrack
from residentkv.runtimes.vllm.options import PluginOptions
from residentkv.runtimes.vllm.renewal import check_ttl
from residentkv.runtimes.vllm.tracepath import path_of_engine
from residentkv.server import wire
from residentkv.server.listener import Listener
from residentkv.server.metrics import EngineMetrics
from residentkv.server.owners import Owners, read_owners
from residentkv.server.spans import Spans, tracer
from residentkv.server.tickets import TICKET_PARAM, Refused, Tickets, name_by_owner
from residentkv.server.usage import OwnerUsage

TICK_S = 0.2


class Desk:
    """Answers what comes over the socket, and checks who a request's claims belong to."""

    def __init__(self, book: ClaimBook, guard: threading.RLock, *, owners: Owners | None = None) -> None:
        self._book = book
        self._guard = guard
        self._owners = owners
        self._tickets = Tickets()
        self._usage = OwnerUsage()
        self._metrics = EngineMetrics()
        self._listener: Listener | None = None
        book.log.observers.append(self._usage.observe)
        book.log.observers.append(self._metrics.observe)
        if owners is not None:
            book.quota = self._quota

    def listen(self, path: str) -> None:
        """Begin to answer on a Unix socket.

        Raises:
            UsageError: the socket cannot be made there.
        """
        self._listener = Listener(path, self.answer, tick=self._expire, every_s=TICK_S)

    def close(self) -> None:
        """Stop answering. Not to be called under the guard: a question may be waiting for it."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _expire(self) -> None:
        """An idle engine takes no steps, and terms end all the same."""
        with self._guard:
            self._book.expire_due()

    def _quota(self, claim: ResidentClaim) -> tuple[str, str] | None:
        if self._owners is None:
            return None
        claims, blocks = self._usage.of(claim.owner_scope)
        return self._owners.over_quota(claim.owner_scope, claims=claims + 1, blocks=blocks + claim.footprint_blocks)

    # --- requests, in the scheduler's thread ---

    def barred(self, params: Mapping[str, Any]) -> tuple[str, str] | None:
        """Return (reason, detail) when a request may not speak about the claims that it names.

        With an owners file, only the middleware can vouch for a request, by the ticket that it began for its token.
        """
        if self._owners is None or not any(params.get(name) is not None for name in OWNER_PARAMS):
            return None
        note = self._tickets.find(params.get(TICKET_PARAM))
        if note is None or not note.begun or note.owner_scope is None:
            return "owner_unauthenticated", "this engine has an owners file; claim through its HTTP middleware"
        for name in OWNER_PARAMS:
            raw = params.get(name)
            for item in raw if isinstance(raw, list) else [raw]:
                if isinstance(item, Mapping) and item.get("owner_scope") != note.owner_scope:
                    return "owner_unauthenticated", f"{name}.owner_scope is not the owner of the token"
        return None

    def told(self, params: Mapping[str, Any], reply: Mapping[str, Any] | None) -> None:
        """Keep the decision about the claim of a request, for the API process to ask for."""
        ticket, claim = params.get(TICKET_PARAM), (reply or {}).get(CLAIM_PARAM)
        if isinstance(ticket, str) and isinstance(claim, dict):
            self._tickets.tell_claim(ticket, dict(claim))

    def refused(self, params: Mapping[str, Any], refusal: Refusal | None) -> None:
        """Keep why a request was refused, for the API process to ask for."""
        ticket = params.get(TICKET_PARAM)
        if isinstance(ticket, str) and refusal is not None:
            self._tickets.tell_refused(ticket, _refused(refusal))

    # --- questions, in the listener's thread ---

    def answer(self, ask: wire.AnyAsk) -> wire.AnyAnswer:
        """Answer one question."""
        with self._guard, self._book.log.at(self._book.log.now_ns()):
            self._book.expire_due()
            owner_scope = ask.owner_scope
            if ask.token_sha256 is not None:
                owner = self._owners.of_token(ask.token_sha256) if self._owners is not None else None
                if owner is None and not (self._owners is None and isinstance(ask, (wire.Begin, wire.ReadOutcome))):
                    return wire.UNAUTHENTICATED
                owner_scope = owner.owner_scope if owner is not None else None
            match ask:
                case wire.Begin():
                    return self._begin(ask.ticket, owner_scope)
                case wire.ReadOutcome():
                    return self._outcome(ask.ticket, owner_scope)
                case wire.ReadMetrics():
                    return wire.Metrics(
                        text=self._metrics.render(self._book.log, map(_counted, self._book), self._held())
                    )
                case wire.ListClaims():
                    return self._list(owner_scope, ask)
            if owner_scope is None:
                return wire.Problem(code="invalid", message="whose claim? name an owner", param="owner_scope")
            return self._about_one(owner_scope, ask)

    def _begin(self, ticket: str, owner_scope: str | None) -> wire.AnyAnswer:
        if self._owners is not None and owner_scope is None:
            return wire.UNAUTHENTICATED
        self._tickets.begin(ticket, owner_scope)
        return wire.Began(owner_scope=owner_scope)

    def _outcome(self, ticket: str, owner_scope: str | None) -> wire.AnyAnswer:
        note = self._tickets.find(ticket)
        if note is None:
            return wire.OutcomeRead()
        caller = note.owner_scope or owner_scope
        if caller is None and self._owners is None and note.claim is not None:
            caller = note.claim.get("owner_scope")
        refusal = note.refused.seen_by(caller) if note.refused is not None else None
        return wire.OutcomeRead(claim=note.claim, refusal=refusal)

    def _list(self, owner_scope: str | None, ask: wire.ListClaims) -> wire.AnyAnswer:
        tracks = sorted(
            (t for t in self._book if owner_scope in (None, t.claim.owner_scope)), key=lambda t: t.claim.key
        )
        after = ask.after if owner_scope is None or ask.after is None else (owner_scope, ask.after[1])
        rest = [t for t in tracks if after is None or t.claim.key > after]
        page = rest[: ask.limit]
        more = page[-1].claim.key if len(rest) > len(page) else None
        return wire.Claims(claims=tuple(self._view(t) for t in page), next_after=more)

    def _about_one(self, owner_scope: str, ask: wire.ShowClaim | wire.ReleaseClaim | wire.RenewClaim) -> wire.AnyAnswer:
        track = self._book.find(owner_scope, ask.claim_id)
        if track is None:
            return wire.NOT_FOUND
        if isinstance(ask, wire.ShowClaim):
            return wire.Claim(claim=self._view(track), done="shown")
        if isinstance(ask, wire.ReleaseClaim):
            self._book.release(track, owner_scope, "asked_by_owner")
            return wire.Claim(claim=self._view(track), done="released")
        if self._book.log.failure is not None:
            return wire.Problem(code="event_log_failed", message="the event log is broken, so no new term can be told")
        try:
            check_ttl(ask.ttl_s)
            self._book.renew(track, revision=ask.revision, ttl_s=ask.ttl_s)
        except StaleRevision as e:
            return wire.Problem(code="stale_revision", message=str(e), param="revision")
        except UsageError as e:
            return wire.Problem(code="invalid", message=str(e), param="ttl_s")
        return wire.Claim(claim=self._view(track), done="renewed")

    def _view(self, track: ClaimTrack) -> wire.ClaimView:
        claim, record = track.claim, track.record
        deadline_ns = record.deadline_ns
        left_s = None if deadline_ns is None else max(0, deadline_ns - self._book.log.now_ns()) / 1e9
        return wire.ClaimView(
            claim_id=claim.claim_id,
            owner_scope=claim.owner_scope,
            mode=record.mode.value,
            state=record.state.value,
            predicate=str(claim.predicate),
            footprint_blocks=claim.footprint_blocks,
            protected_blocks=record.protected_blocks(),
            priority=claim.priority,
            revision=record.revision,
            generation=record.generation,
            on_restore_failure=claim.on_restore_failure.value,
            object_id=claim.object_id,
            token_map_id=claim.token_map_id,
            cache_identity=claim.cache_identity,
            expires_in_s=left_s,
        )

    def _held(self) -> int:
        return self._book.ledger.protected_blocks


def _counted(track: ClaimTrack) -> tuple[str, str]:
    return track.record.state.value, track.record.mode.value


def _refused(refusal: Refusal) -> Refused:
    """A refusal that names the claim of its request is about that claim's bytes; any other one is about room."""
    if refusal.claim_id is not None and refusal.owner_scope is not None:
        named = name_by_owner([(refusal.owner_scope, refusal.claim_id)])
        return Refused(reason=refusal.reason, restoration=True, blocking_claims=1, named=named)
    return Refused(
        reason=refusal.reason,
        restoration=False,
        blocking_claims=len(refusal.blockers),
        named=name_by_owner(refusal.blockers),
        need_blocks=refusal.need_blocks,
        shortfall_blocks=refusal.shortfall_blocks,
        retry_after_s=refusal.retry_after_s,
    )


def open_desk(book: ClaimBook, guard: threading.RLock, options: PluginOptions, engine: int) -> Desk:
    """Build the desk that the options ask for; each engine of a data-parallel server has a socket of its own.

    Raises:
        UsageError, InputError, NoInputError: the socket or the owners file; the engine does not start then.
    """
    owners = read_owners(options.owners_path) if options.owners_path is not None else None
    desk = Desk(book, guard, owners=owners)
    if options.spans:
        book.log.observers.append(Spans(tracer()).observe)
    if options.socket_path is not None:
        desk.listen(path_of_engine(options.socket_path, engine))
    return desk
