"""The published gates: what they ask for, and that they never become evidence."""

from __future__ import annotations

from residentkv.audit import AuditReport, Profile, Verdict
from residentkv.audit.gates import judge_gates
from residentkv.errors import InputError
from tests.audit.notation import trace
from tests.audit.stories import FAILURE, REQUIRED, RETRY, STORED, SUCCESS, SUCCESS_THEN_FAILURE, TWO_CLAIMS


def gates(text: str) -> AuditReport:
    return judge_gates([trace(text)], path="t.jsonl")


def passed(report: AuditReport) -> set[str]:
    return {g.name for g in report.gates if g.passed}


def missing(report: AuditReport, name: str) -> str | None:
    return next(g.missing_event for g in report.gates if g.name == name)


def test_success_passes_the_observation_gate_only():
    """Offloaded, required, loaded, restored, reused; nothing failed."""
    report = gates(SUCCESS)
    assert passed(report) == {"observation", "sequence"}
    assert report.profile is Profile.PUBLISHED
    assert missing(report, "failure_outcome") == "offload_worker_transfer_finished (load, failure)"


def test_claimed_failure_passes_the_failure_gate_only():
    """Required, failed, told by the scheduler, refused by name."""
    assert passed(gates(FAILURE)) == {"failure_outcome", "sequence"}


def test_the_gates_ask_for_no_acceptance():
    """The published failure runs never accept or materialize their claim by an event, and pass all the same."""
    text = FAILURE.replace("    accept c r1 mode=offloadable\n", "").replace("    materialize c r1\n", "")
    assert passed(gates(text)) == {"failure_outcome", "sequence"}


def test_a_retry_that_succeeds_passes_the_observation_gate():
    """The published fallback_recompute control is such a run: 10 of 10 observed, 0 of 10 failure outcomes."""
    assert passed(gates(RETRY)) == {"observation", "sequence"}


def test_a_failure_that_names_another_claim_passes_nothing():
    """wrong-claim and unnamed refusals do not count."""
    for change in (
        ("failed c r2 job=1", "failed c r2 job=1 outcome_claim_id=x"),
        ("refused r2 c", "refused r2 c blocking_claim_ids=x"),
    ):
        assert passed(gates(FAILURE.replace(*change))) == {"sequence"}


def test_an_unclaimed_failure_passes_nothing():
    """A failed load of no claim, as in the published unclaimed control."""
    report = gates("open\ninit r1\nlookup r1\nload 1 r1\nfail 1\nend r1 error\nclose")
    assert passed(report) == {"sequence"}
    assert report.verdict is Verdict.INCONCLUSIVE


def test_counters_pass_nothing():
    """Process-wide counters name no claim."""
    assert passed(gates("open\ncounter\ncounter\nclose")) == {"sequence"}


def test_only_the_target_of_several_claims_is_named():
    """Two live claims, one fails: the failure gate passes for that one, the observation gate for the other."""
    report = gates(TWO_CLAIMS)
    assert {g.name: g.claims for g in report.gates if g.name != "sequence"} == {
        "observation": ("d",),
        "failure_outcome": ("c",),
    }


def test_one_claim_can_pass_both_gates():
    """A success and a later failure of the same claim."""
    assert passed(gates(SUCCESS_THEN_FAILURE)) == {"observation", "failure_outcome", "sequence"}


def test_the_order_of_the_gates_counts():
    """A reuse before the restoration, or a refusal before the failure, does not pass."""
    swapped = SUCCESS.replace("    restore c r2 job=1\n    reuse c r2\n", "    reuse c r2\n    restore c r2 job=1\n")
    assert "observation" not in passed(gates(swapped))
    swapped = FAILURE.replace("    failed c r2 job=1\n    refused r2 c\n", "    refused r2 c\n    failed c r2 job=1\n")
    assert "failure_outcome" not in passed(gates(swapped))


def test_a_gap_is_told_beside_the_gates():
    """The published tables report valid sequences in a column of their own."""
    report = gates(STORED + "skip\n" + REQUIRED + "done 1\nrestore c r2\nreuse c r2\nend r2\nclose")
    assert passed(report) == {"observation"}
    assert missing(report, "sequence") == "seq 8 of scheduler/0"


def test_what_cannot_be_read_passes_nothing():
    """An unreadable line after everything a gate asks for: still no pass."""

    def chunks():
        yield trace(FAILURE)
        raise InputError("torn last line", code="RKV108")

    assert judge_gates(chunks(), path="t.jsonl").verdict is Verdict.INCONCLUSIVE
