"""Claims on the real server of stock vLLM: what clients, owners and the operator see, and how it ends.

One server for all that is asked of it, a second start for the restart; without the vLLM environment these tests fail.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from residentkv.audit.api import audit_file
from residentkv.audit.model import Verdict
from residentkv.trace.events import ClaimAccepted, ClaimReleased, TraceClosed
from residentkv.trace.reader import read_trace
from tests.live.serving import LiveServer
from tests.live.transcript import CLAIM, PAGE, complete, record, render, shown

ROOT = Path(__file__).parent.parent.parent
MAX_FILLERS = 40
"""Requests without a claim that may be needed until the log is set aside."""


class Seen:
    """What the server printed while it ran, and what it left."""

    def __init__(self, folder: Path) -> None:
        self.server = LiveServer(folder)
        self.printed: dict[str, str] = {}
        self.exit_codes: list[int] = []
        self.after_restart: dict[str, str] = {}
        self.fillers: list[str] = []
        self.rotated = False

    def run(self) -> None:
        try:
            self.printed = record(self.server.start())
            self.printed["left_open"] = self.server.shell(complete("A", f'"resident_claim":{{{CLAIM}}}'))
            self.exit_codes.append(self.server.stop())
            self.server.start()
            show = 'curl -isS $URL/residentkv/claims/system -H "Authorization: Bearer $A"'
            self.after_restart["show"] = self.server.shell(show)
            self.after_restart["claim"] = self.server.shell(complete("A", f'"resident_claim":{{{CLAIM}}}'))
            while not (aside := Path(f"{self.server.trace}.000001")).exists() and len(self.fillers) < MAX_FILLERS:
                self.fillers.append(self.server.shell(complete("A", "")))
            self.rotated = aside.exists()
            self.exit_codes.append(self.server.stop())
        finally:
            self.server.kill()

    def status(self, name: str) -> int:
        return int(self.printed[name].split()[1])

    def header(self, name: str, key: str) -> str | None:
        head = self.printed[name].replace("\r", "").split("\n\n")[0]
        return dict(line.split(": ", 1) for line in head.splitlines()[1:]).get(key)

    def body(self, name: str) -> Any:
        return json.loads(self.printed[name].replace("\r", "").split("\n\n", 1)[1])

    def about(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.body(name)["error"]["residentkv"]
        return found


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    seen = Seen(tmp_path_factory.mktemp("server"))
    seen.run()
    return seen


@pytest.mark.parametrize(
    ("name", "decision", "reason"),
    [
        ("accepted", "accepted", "fits"),
        ("joined", "joined", None),
        ("clipped", "clipped", "tier_capacity"),
        ("first_of_b", "accepted", "fits"),
        ("rejected", "rejected", "owner_quota_claims"),
        ("other_salt", "rejected", "claim_id_in_use"),
    ],
)
def test_a_decision_comes_back_and_the_request_is_served(
    seen: Seen, name: str, decision: str, reason: str | None
) -> None:
    """In headers, and in the body's kv_transfer_params where vLLM carries them."""
    assert seen.status(name) == 200
    assert (seen.header(name, "x-residentkv-decision"), seen.header(name, "x-residentkv-reason")) == (decision, reason)
    if name != "joined":
        answer = seen.body(name)["kv_transfer_params"]["resident_claim"]
        assert (answer["decision"], answer["reason"]) == (decision, reason)
        assert seen.body(name)["choices"][0]["finish_reason"] == "length"


def test_a_failed_restoration_is_424_streamed_or_not(seen: Seen) -> None:
    """After one that went well; the claim is named, and it is still there for its owner to renew."""
    assert seen.status("restored") == 200
    for name in ("failed", "failed_stream"):
        assert seen.status(name) == 424
        assert seen.about(name)["claim_ids"] == ["system"]
        assert seen.header(name, "x-residentkv-refusal") == "restoration_failed"
    assert seen.status("renewed") == 200 and seen.body("renewed")["claim"]["revision"] == 1


def test_a_request_that_does_not_fit_beside_claims_is_503(seen: Seen) -> None:
    """At once, streamed or not, with the shortfall and when to come back; each owner reads names of its own only."""
    assert (seen.status("held"), seen.header("held", "x-residentkv-decision")) == (200, "accepted")
    for name, claim_ids in (("refused", None), ("refused_own", ["held"])):
        about = seen.about(name)
        assert (seen.status(name), about["outcome"], about["blocking_claims"]) == (503, "refused", 1)
        assert (about["claim_ids"] or None) == claim_ids
        assert about["shortfall_blocks"] > 0
        assert 0 < int(seen.header(name, "retry-after") or 0) <= 600
    assert "held" not in seen.printed["refused"]


def test_a_bad_claim_is_400_and_no_token_is_401(seen: Seen) -> None:
    """The field is named."""
    assert (seen.status("bad_claim"), seen.body("bad_claim")["error"]["param"]) == (
        400,
        "kv_transfer_params.resident_claim.ttl_s",
    )
    assert seen.status("no_token") == 401


def test_a_foreign_claim_is_404_in_the_words_for_none(seen: Seen) -> None:
    """Its owner releases it, once."""
    assert seen.status("foreign_show") == seen.status("foreign_release") == 404
    assert seen.body("foreign_show") == seen.body("foreign_release") == seen.body("released_twice")
    assert (seen.status("released"), seen.status("released_twice")) == (200, 404)
    assert "tenant-a  system" in seen.printed["listed"]


def test_metrics_count_what_happened_and_name_nobody(seen: Seen) -> None:
    """Read through the API server, counted in the engine process."""
    text = seen.printed["metrics"]
    assert 'residentkv_refusals_total{reason="resident_claim_restoration_failed"} 2.0' in text
    assert 'residentkv_failed_restores_total{reason="injected"} 2.0' in text
    assert "residentkv_event_log_lag_events 0.0" in text
    assert "tenant" not in text and "system" not in text


def test_the_page_shows_what_the_server_says(seen: Seen) -> None:
    """docs/server.md has this run's transcript, masked; 'make transcript' writes it again."""
    assert render(seen.printed) == shown((ROOT / PAGE).read_text())


def test_a_stopped_server_lets_all_claims_go_and_its_log_conforms(seen: Seen) -> None:
    """SIGTERM twice: both epochs end with releases and trace_closed, over the parts of a rotated log."""
    assert seen.exit_codes == [0, 0]
    assert not seen.server.socket.exists()
    report = audit_file(seen.server.trace)
    assert report.verdict is Verdict.CONFORMING, [f.story for f in report.all_findings()]
    events = [e for chunk in read_trace(seen.server.trace) for e in chunk]
    assert [(e.epoch, e.reason) for e in events if isinstance(e, TraceClosed)] == [(0, "shutdown"), (1, "shutdown")]
    released = [(e.epoch, e.claim_id) for e in events if isinstance(e, ClaimReleased) and e.reason == "shutdown"]
    assert (0, "system") in released and (1, "system") in released
    assert seen.rotated


def test_a_restart_accepts_only_what_is_submitted_again(seen: Seen) -> None:
    """The new epoch knows no claim of the old one until its owner comes."""
    assert seen.after_restart["show"].startswith("HTTP/1.1 404")
    assert "x-residentkv-decision: accepted" in seen.after_restart["claim"]
    events = [e for chunk in read_trace(seen.server.trace) for e in chunk if e.epoch == 1]
    assert [e.claim_id for e in events if isinstance(e, ClaimAccepted)] == ["system"]
