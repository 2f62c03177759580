"""The engine's side of the claims API: owners see, renew and release their own claims and learn nothing of others."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from residentkv.audit.model import Verdict
from residentkv.runtimes.vllm.active import Refusal
from residentkv.server import wire
from residentkv.server.errors import refusal_error
from residentkv.server.tickets import MAX_NAMED, Refused, name_by_owner
from residentkv.trace.events import GenericCounter
from tests.server.counter import TICKET, Counter, owners, sha
from tests.vllm.bench import claim, prompt


@pytest.fixture
def counter(tmp_path: Path) -> Counter:
    return Counter(tmp_path, known=owners(max_claims=2, max_blocks=10))


def test_an_owner_lists_its_own_claims_page_by_page(counter: Counter) -> None:
    """Claims of another owner are on no page."""
    for name, owner, token in (("b", "tenant-a", "tok-a"), ("a", "tenant-a", "tok-a"), ("x", "tenant-b", "tok-b")):
        counter.claim(name, owner, token)
    first = counter.desk.answer(wire.ListClaims(token_sha256=sha("tok-a"), limit=1))
    assert isinstance(first, wire.Claims) and first.next_after == ("tenant-a", "a")
    rest = counter.desk.answer(wire.ListClaims(token_sha256=sha("tok-a"), after=("tenant-b", "a")))
    assert isinstance(rest, wire.Claims) and [c.claim_id for c in rest.claims] == ["b"] and rest.next_after is None


@pytest.mark.parametrize("name", ["x", "nothing"])
def test_a_foreign_claim_and_none_are_answered_in_the_same_words(counter: Counter, name: str) -> None:
    """Show, release and renew: equal answers, byte for byte, and nothing happens to the claim."""
    counter.claim("x", "tenant-b", "tok-b")
    mine = {"token_sha256": sha("tok-a"), "claim_id": name}
    asks = (wire.ShowClaim(**mine), wire.ReleaseClaim(**mine), wire.RenewClaim(**mine, revision=1, ttl_s=None))
    assert {wire.encode_line(counter.desk.answer(ask)) for ask in asks} == {wire.encode_line(wire.NOT_FOUND)}
    assert counter.bench.book.find("tenant-b", "x") is not None


def test_an_unknown_token_is_nobody(counter: Counter) -> None:
    """Nor does a request without a token begin."""
    for token in (sha("other"), None):
        assert counter.desk.answer(wire.Begin(ticket=TICKET, token_sha256=token)) == wire.UNAUTHENTICATED
    assert counter.desk.answer(wire.ListClaims(token_sha256=sha("other"))) == wire.UNAUTHENTICATED


def test_a_claim_without_a_ticket_is_rejected_whether_it_exists_or_not(counter: Counter) -> None:
    """Whoever goes around the middleware is served unclaimed and learns nothing, not even that a name is taken."""
    counter.claim("c", "tenant-a", "tok-a")
    asked = {
        "resident_claim": claim("c", "tenant-a"),
        "resident_claim_release": {"claim_id": "c", "owner_scope": "tenant-a"},
        "resident_claim_renew": {"claim_id": "c", "owner_scope": "tenant-a", "revision": 3, "ttl_s": 5},
    }
    for request_id, token, named in (("r1", None, "c"), ("r2", "tok-b", "c"), ("r3", "tok-b", "none")):
        asked["resident_claim"] = claim(named, "tenant-a")
        reply = counter.send(request_id, token, asked)
        assert reply["resident_claim"]["reason"] == "owner_unauthenticated"
        assert "claim_id" not in reply["resident_claim"]
        assert reply["resident_claim_release"] == [{"released": False, "reason": "owner_unauthenticated"}]
        assert reply["resident_claim_renew"] == [{"renewed": False, "reason": "owner_unauthenticated"}]
    track = counter.bench.book.find("tenant-a", "c")
    assert track is not None and track.record.revision == 0
    assert counter.bench.stop().verdict is Verdict.CONFORMING


def test_quotas_are_rejections_with_their_reason(counter: Counter) -> None:
    """Claims first, then blocks; what ended counts no longer; another owner is not concerned."""
    assert counter.claim("a", "tenant-a", "tok-a", 1)["decision"] == "accepted"
    assert counter.claim("b", "tenant-a", "tok-a", 2)["decision"] == "accepted"
    assert counter.claim("c", "tenant-a", "tok-a", 3)["reason"] == "owner_quota_claims"
    assert counter.claim("c", "tenant-b", "tok-b", 3)["decision"] == "accepted"
    counter.desk.answer(wire.ReleaseClaim(token_sha256=sha("tok-a"), claim_id="a"))
    counter.bench.arrive("big", prompt(4, 8), claim("c", "tenant-a"))
    assert counter.bench.residency.reply_of("big")["resident_claim"]["reason"] == "owner_quota_blocks"  # type: ignore[index]


def test_a_renewal_extends_the_term_and_is_in_the_log(counter: Counter) -> None:
    """Never a shorter term, never an old revision; and the audit takes it for what it is."""
    counter.claim("c", "tenant-a", "tok-a", ttl_s=100.0)

    def renew(revision: int, ttl_s: float | None) -> wire.AnyAnswer:
        return counter.desk.answer(
            wire.RenewClaim(token_sha256=sha("tok-a"), claim_id="c", revision=revision, ttl_s=ttl_s)
        )

    done = renew(1, 200.0)
    assert isinstance(done, wire.Claim) and done.done == "renewed" and done.claim.revision == 1
    assert done.claim.expires_in_s == pytest.approx(200.0)
    stale, shorter, wrong = renew(1, 300.0), renew(2, 1.0), renew(2, -1.0)
    assert isinstance(stale, wire.Problem) and stale.code == "stale_revision"
    for answer in (shorter, wrong):
        assert isinstance(answer, wire.Problem) and (answer.code, answer.param) == ("invalid", "ttl_s")
    (told,) = counter.bench.events("resident_claim_renewed")
    assert (told.revision, told.ttl_s) == (1, 200.0)  # type: ignore[attr-defined]
    assert counter.bench.stop().verdict is Verdict.CONFORMING


def test_with_a_broken_log_no_term_is_extended(counter: Counter) -> None:
    """It could not be told; that is no fault of the question."""
    counter.claim("c", "tenant-a", "tok-a", ttl_s=100.0)
    counter.bench.log.emit(GenericCounter, name="n", value=-1)
    answer = counter.desk.answer(wire.RenewClaim(token_sha256=sha("tok-a"), claim_id="c", revision=1, ttl_s=200.0))
    assert isinstance(answer, wire.Problem) and answer.code == "event_log_failed"
    renewal = {"claim_id": "c", "owner_scope": "tenant-a", "revision": 1, "ttl_s": 200.0}
    reply = counter.send("r2", "tok-a", {"resident_claim_renew": renewal})
    assert reply["resident_claim_renew"][0]["reason"] == "event_log_failed"


def test_a_request_renews_beside_its_claim(counter: Counter) -> None:
    """The same through kv_transfer_params, answered item by item."""
    counter.claim("c", "tenant-a", "tok-a", ttl_s=100.0)
    renewals = [
        {"claim_id": name, "owner_scope": "tenant-a", "revision": 1, "ttl_s": 500.0} for name in ("c", "none", "c")
    ]
    reply = counter.send("r2", "tok-a", {"resident_claim_renew": renewals})
    assert [r["reason"] for r in reply["resident_claim_renew"]] == ["", "not_found", "stale_revision"]


def test_a_term_ends_although_the_engine_takes_no_step(counter: Counter) -> None:
    """Any question, and the listener's tick, end what is due before they answer."""
    counter.claim("c", "tenant-a", "tok-a", ttl_s=1.0)
    counter.bench.now_ns += 2_000_000_000
    assert counter.desk.answer(wire.ShowClaim(token_sha256=sha("tok-a"), claim_id="c")) == wire.NOT_FOUND
    assert counter.bench.names()[-1] == "resident_claim_expired"


def test_a_refusal_names_to_each_caller_its_own_claims_only(counter: Counter) -> None:
    """The others are counted; who has no token is told no name at all."""
    refused = Refused(
        reason="claims_hold",
        restoration=False,
        blocking_claims=2,
        named=name_by_owner([("tenant-a", "mine"), ("tenant-b", "theirs")]),
        shortfall_blocks=3,
    )
    for token, named in (("tok-a", ("mine",)), ("tok-b", ("theirs",)), (None, ())):
        seen = refused.seen_by({"tok-a": "tenant-a", "tok-b": "tenant-b"}.get(token or ""))
        assert (seen.claim_ids, seen.blocking_claims, seen.shortfall_blocks) == (named, 2, 3)
        error = refusal_error(msgspec.structs.replace(seen, retry_after_s=1.2))
        assert (int(error.status), dict(error.headers)["retry-after"]) == (503, "2")
        assert {"mine", "theirs"} & set(error.message.split("'")) == set()


def test_a_refusal_beside_any_number_of_claims_names_a_bounded_number_of_them(counter: Counter) -> None:
    """Thousands of refusals are remembered; each counts all claims in the way."""
    blockers = tuple((owner, f"c{i}") for i in range(1000) for owner in ("tenant-a", "tenant-b"))
    ticket = counter.begin("tok-a")
    counter.desk.refused({"residentkv_ticket": ticket}, Refusal(reason="claims_hold", blockers=blockers))
    answer = counter.desk.answer(wire.ReadOutcome(ticket=ticket, token_sha256=sha("tok-a")))
    assert isinstance(answer, wire.OutcomeRead) and answer.refusal is not None
    assert answer.refusal.blocking_claims == 2000
    assert answer.refusal.claim_ids == tuple(f"c{i}" for i in range(MAX_NAMED))


def test_a_ticket_is_read_with_the_owner_that_began_it(counter: Counter) -> None:
    """Another owner's token does not change whose ticket it is."""
    ticket = counter.begin("tok-a")
    refusal = Refusal(reason="restoration_failed", claim_id="c", owner_scope="tenant-a", restoration=True)
    counter.desk.refused({"residentkv_ticket": ticket}, refusal)
    told = counter.desk.answer(wire.ReadOutcome(ticket=ticket, token_sha256=sha("tok-a")))
    assert isinstance(told, wire.OutcomeRead) and told.refusal is not None
    assert (told.refusal.outcome, told.refusal.claim_ids) == ("restoration_failed", ("c",))


def test_without_an_owners_file_the_request_is_believed(tmp_path: Path) -> None:
    """As on an engine without a socket: the owner is whom the request names, and tickets need no token."""
    counter = Counter(tmp_path)
    assert counter.claim("c", "anybody", None)["decision"] == "accepted"
    assert counter.desk.answer(wire.ListClaims(token_sha256=sha("tok-a"))) == wire.UNAUTHENTICATED
    everybody = counter.desk.answer(wire.ListClaims())
    assert isinstance(everybody, wire.Claims) and len(everybody.claims) == 1
    assert isinstance(counter.desk.answer(wire.ShowClaim(claim_id="c")), wire.Problem)
