"""Cases at the edges of the rules: what has to pass, and what must not be told as something else."""

from __future__ import annotations

import pytest

from residentkv.audit import AuditReport, Verdict, audit_events
from tests.audit.notation import trace
from tests.audit.stories import DEMOTABLE, FAILURE, HARD, RECOMPUTE, REQUIRED, RETRY, STORED, SUCCESS, TWO_WORKERS


def audit(text: str) -> AuditReport:
    return audit_events([trace(text)])


def codes(report: AuditReport, verdict: Verdict = Verdict.VIOLATING) -> set[str]:
    return {f.code for f in report.all_findings() if f.verdict is verdict}


def test_a_name_can_be_used_again_by_a_new_submission():
    """After its outcome the same owner submits the same claim id with another request: two results, two verdicts."""
    report = audit(
        """
        open
        init r1 c
        accept c r1 mode=soft_priority
        materialize c r1
        end r1
        release c
        init r2 c
        accept c r2 mode=soft_priority
        materialize c r2
        end r2
        release c
        close
        """
    )
    assert report.verdict is Verdict.CONFORMING
    assert [c.instance for c in report.claims] == [0, 1]


ANEW = """
    open
    init r1 c
    accept c r1 mode=soft_priority
    materialize c r1
    end r1
    init r2 c
    release c
    accept c r2 mode=soft_priority
    materialize c r2
    end r2
    release c
    close
"""


def test_a_request_may_let_its_claim_go_and_claim_anew():
    """One request of the owner releases the claim that it names, and the same name is accepted for it again."""
    report = audit(ANEW)
    assert report.verdict is Verdict.CONFORMING, report.all_findings()
    assert [(c.instance, c.state) for c in report.claims] == [(0, "released"), (1, "released")]


def test_a_request_that_did_not_name_the_claim_does_not_claim_it_anew():
    """The negative: the acceptance of a name that the request did not bring is claimed afterwards."""
    assert "RKV224" in codes(audit(ANEW.replace("init r2 c", "init r2 -").replace("init r2 -", "init r2")))


@pytest.mark.parametrize("late", ["    end r0\n", ""])
def test_a_claim_has_one_result_although_its_requests_end_after_the_next_submission(late: str):
    """A request that joined the first submission ends, or does not, while the second one is open: counted once."""
    text = ANEW.replace("    init r2 c\n", "    init r0 c\n    reuse_here c r0\n    init r2 c\n", 1)
    report = audit(text.replace("    end r2\n", f"    end r2\n{late}"))
    assert [(c.instance, c.state) for c in report.claims] == [(0, "released"), (1, "released")]
    if late:
        assert report.verdict is Verdict.CONFORMING, report.all_findings()
    else:
        (unfinished,) = report.claims[0].findings
        assert (unfinished.code, report.claims[1].findings) == ("RKV215", ())


def test_an_acceptance_told_again_for_the_same_request_is_no_new_submission():
    """The same acceptance after the end: the claim is over, and one request decides once."""
    report = audit(SUCCESS.replace("    release c\n", "    release c\n    accept c r1\n"))
    assert codes(report) == {"RKV231"}


def test_two_owners_may_use_one_claim_id():
    """A name is unique per owner: both are accepted, kept and released, and neither is the other."""
    story = """
        init {r} {c}
        accept {c} {r} mode=soft_priority owner={o} claim_id=same
        materialize {c} {r} claim_id=same
        end {r}
        release {c} claim_id=same outcome_claim_id=same
    """
    first = story.format(r="r1", c="a", o="tenant-a").replace(
        "init r1 a", "init r1 a claim_id=same owner_scope=tenant-a"
    )
    second = story.format(r="r2", c="b", o="tenant-b").replace(
        "init r2 b", "init r2 b claim_id=same owner_scope=tenant-b"
    )
    report = audit("open\n" + first + second + "close")
    assert report.verdict is Verdict.CONFORMING
    assert [(c.owner_scope, c.claim_id) for c in report.claims] == [("tenant-a", "same"), ("tenant-b", "same")]


def test_a_deferred_claim_is_decided_later():
    """Deferred, then accepted for the same request, then kept: conforming; left open it is undecided."""
    text = """
        open
        init r1 c
        defer c r1
        accept c r1 mode=hard_protected
        materialize c r1
        end r1
        release c
        close
    """
    assert audit(text).verdict is Verdict.CONFORMING
    report = audit("open\ninit r1 c\ndefer c r1\nend r1\nclose")
    assert codes(report, Verdict.INCONCLUSIVE) == {"RKV214"}


def test_blocks_moved_in_the_name_of_a_rejected_claim_are_a_violation():
    """The answer was no; a transfer that names the claim all the same would make it look kept."""
    report = audit("open\ninit r1 c\nreject c r1\nstore 0 r1 c\ndone 0\nend r1\nclose")
    assert codes(report) == {"RKV220"}


def test_a_claim_named_first_by_a_transfer_is_post_hoc():
    """The job names the claim, and only then it is accepted."""
    text = SUCCESS.replace(
        "    accept c r1 mode=offloadable\n    store 0 r1 c\n", "    store 0 r1 c\n    accept c r1\n"
    )
    report = audit(text)
    assert "RKV220" in codes(report)
    assert any("named afterwards" in line for f in report.all_findings() for line in f.story)


def test_a_transfer_in_the_name_of_a_claim_that_never_comes_is_told():
    """No claim event at all: the name on the job is all there is."""
    report = audit("open\ninit r1 c\nstore 0 r1 c\ndone 0\nend r1\nclose")
    assert codes(report) == {"RKV220"}


def test_release_during_a_restoration_excuses_what_follows():
    """The owner lets go while the load runs; the load fails, and nobody is owed anything any more."""
    text = STORED + REQUIRED + "release c released_by=tenant\nfail 1\nend r2\nclose"
    assert audit(text).verdict is Verdict.CONFORMING


def test_a_request_withdrawn_during_its_restoration_owes_nothing():
    """The client leaves before the load is done; the claim is released later."""
    text = STORED + REQUIRED + "end r2 aborted\ndone 1\nrelease c\nclose"
    assert audit(text).verdict is Verdict.CONFORMING


def test_a_load_fails_when_one_of_two_workers_fails():
    """Positions are good only when every worker has them: one failure is a failure of the job."""
    text = TWO_WORKERS.replace("    done 1 worker=0 workers_total=2\n", "    fail 1 worker=0 workers_total=2\n")
    assert "RKV255" in codes(audit(text))


def test_a_load_that_one_of_two_workers_never_finished_restores_nothing():
    """The second worker's part is missing when the claim is called restored."""
    text = TWO_WORKERS.replace("    done 1 worker=0 workers_total=2\n", "")
    assert "RKV255" in codes(audit(text))


def test_a_failure_may_be_told_before_the_other_worker_is_done():
    """One worker failed; the scheduler acts at once; the other part arrives later."""
    text = (
        STORED.replace("done 0", "done 0 worker=0 workers_total=2\n    done 0 worker=1 workers_total=2")
        + REQUIRED
        + """
        fail 1 worker=0 workers_total=2
        failed c r2 job=1
        refused r2 c
        done 1 worker=1 workers_total=2
        end r2 error
        release c
        close
        """
    )
    assert audit(text).verdict is Verdict.CONFORMING


def test_a_retry_is_one_failure_and_one_restoration():
    """Both are reported, and the failure does not count as a broken restoration."""
    claim = audit(RETRY).claims[0]
    assert (claim.counts["restoration_failed"], claim.counts["restored"], claim.counts["retried"]) == (1, 1, 1)
    assert "restore_before_reuse" in claim.observed


def test_a_retry_is_not_a_recompute():
    """Recomputed tokens after a failure with policy retry, and no second load: not restored, and not told."""
    text = STORED + REQUIRED + "fail 1\nfailed c r2 policy=retry\nrecompute r2 c\nend r2\nrelease c\nclose"
    assert "RKV269" in codes(audit(text))


def test_the_connectors_word_may_come_before_or_after_the_schedulers():
    """It repeats the failure, for the same job and claim, and replaces nothing."""
    before = FAILURE.replace("    failed c r2 job=1\n", "    connector-failed c r2 job=1\n    failed c r2 job=1\n")
    after = FAILURE.replace("    refused r2 c\n", "    refused r2 c\n    connector-failed c r2 job=1\n")
    alone = FAILURE.replace("    failed c r2 job=1\n    refused r2 c\n", "    connector-failed c r2 job=1\n")
    assert audit(before).verdict is audit(after).verdict is Verdict.CONFORMING
    assert "RKV264" in codes(audit(alone))


def test_a_lost_copy_can_fail_without_any_load():
    """The copy is gone before a load was made: the failure names no job."""
    text = (
        STORED
        + """
        init r2 c
        lookup r2 c
        require c r2
        failed c r2 job=null
        refused r2 c
        end r2 error
        release c
        close
        """
    )
    assert audit(text).verdict is Verdict.CONFORMING


def test_harm_after_a_failed_restoration_is_its_named_outcome():
    """Under policy recompute the claim may be harmed instead of demoted; that is told, and no broken protection."""
    assert audit(RECOMPUTE.replace("    demote c\n", "    harm c\n")).verdict is Verdict.CONFORMING


def test_a_refusal_may_follow_the_harm_that_explains_it():
    """The loss of block 0 is told as harm; the request is refused in its name; the harm stays a broken promise."""
    text = STORED + "init r2 c\nlookup r2 c 1-8\nharm c request_id=r2\nconnector-refused r2 c\nend r2 error\nclose"
    assert codes(audit(text)) == {"RKV290"}


def test_59_of_60_blocks_are_worth_nothing_when_block_0_is_lost():
    """A count of blocks is no predicate: positions 1 to 59 do not make a leading prefix of 59."""
    text = """
        open
        init r1 c
        accept c r1 mode=hard_protected predicate=leading_prefix_at_least(59) footprint=60 blocks=60
        materialize c r1 1-60
        end r1
        release c
        close
    """
    assert codes(audit(text)) == {"RKV244"}
    assert audit(text.replace("1-60", "0-59")).verdict is Verdict.CONFORMING


def test_1104_tokens_in_three_spans_are_worth_nothing():
    """Spec section 8: scattered blocks satisfy no leading prefix, however many there are."""
    text = """
        open
        init r1 c
        accept c r1 mode=hard_protected predicate=leading_prefix_at_least(8) footprint=100 blocks=100
        materialize c r1 8-31+40-63+70-93
        end r1
        release c
        close
    """
    assert codes(audit(text)) == {"RKV244"}


def test_a_loss_in_the_primary_tier_is_none_while_the_tier_has_a_copy():
    """An offloaded claim whose primary blocks go, and whose copies in the host lie: nothing is lost."""
    blocks = ",".join(f"h{i}" for i in range(8))
    ids = "0,1,2,3,4,5,6,7"
    text = SUCCESS.replace(
        "    materialize c r1\n", f"    stored gpu {blocks} {ids}\n    materialize c r1 block_hashes={blocks}\n"
    ).replace(
        "    offload c r1 jobs=0\n",
        f"    stored host {blocks} {ids}\n    offload c r1 jobs=0\n    removed gpu {blocks} {ids}\n",
    )
    text = text.replace("    done 1\n", f"    done 1\n    stored gpu {blocks} {ids}\n")
    assert audit(text).verdict is Verdict.CONFORMING
    lost = text.replace("    init r2 c\n", f"    removed host {blocks} {ids}\n    init r2 c\n")
    assert "RKV289" in codes(audit(lost))


def test_reuse_in_place_needs_copies_there():
    """A request says that it read in the primary tier; the block events say that the blocks had gone."""
    text = HARD.replace("    init r5 c\n", "    stored host a7 7\n    removed gpu a7 7\n    init r5 c\n")
    assert "RKV257" in codes(audit(text))


def test_relief_that_frees_too_little_is_infeasible():
    """One claim is demoted by name, and the request still does not fit beside nothing."""
    text = DEMOTABLE.replace("need_blocks=12", "need_blocks=17")
    assert "RKV280" in codes(audit(text))


@pytest.mark.parametrize(("usable", "shortfall"), [(80, 50), (90, 40), (100, 30), (110, 20), (120, 10)])
def test_the_capacity_litmus_is_refused_by_name(usable, shortfall):
    """60 resident and 70 active blocks: infeasible sizes are refused with the claim named, and nothing is lost."""
    text = f"""
        open
        init r1 c
        accept c r1 mode=hard_protected footprint=60 protected_blocks=0 usable_blocks={usable} blocks=60
        admit r1 need_blocks=0 protected_blocks=60 usable_blocks={usable}
        materialize c r1
        end r1
        init r2
        refuse-request r2 protected_blocks=60 usable_blocks={usable} shortfall_blocks={shortfall} blocking_claim_ids=c
        end r2 error
        release c
        close
    """
    report = audit(text)
    assert report.verdict is Verdict.CONFORMING
    assert report.claims[0].counts == {"blocked_others": 1}
    served = text.replace("refuse-request r2", "admit r2 need_blocks=70").replace("end r2 error", "end r2")
    served = served.replace(f" shortfall_blocks={shortfall} blocking_claim_ids=c", "")
    assert codes(audit(served)) == {"RKV280"}


@pytest.mark.parametrize("usable", [130, 150])
def test_feasible_sizes_of_the_litmus_are_admitted(usable):
    """At 130 and 150 blocks both fit; a refusal would blame a claim that is not in the way."""
    text = f"""
        open
        init r1 c
        accept c r1 mode=hard_protected footprint=60 protected_blocks=0 usable_blocks={usable} blocks=60
        materialize c r1
        admit r1 need_blocks=0 protected_blocks=60 usable_blocks={usable}
        end r1
        init r2
        admit r2 need_blocks=70 protected_blocks=60 usable_blocks={usable}
        end r2
        release c
        close
    """
    assert audit(text).verdict is Verdict.CONFORMING


def test_a_request_larger_than_the_tier_needs_no_blocking_claim():
    """It could not be served without any claim either, so naming one would be wrong."""
    text = HARD.replace(
        "need_blocks=9 protected_blocks=8 usable_blocks=16 shortfall_blocks=1 blocking_claim_ids=c",
        "need_blocks=17 protected_blocks=8 usable_blocks=16 shortfall_blocks=9",
    )
    assert audit(text).verdict is Verdict.CONFORMING


def test_a_clean_restart_without_claims_is_no_break():
    """Two epochs, each opened and closed in order; the second accepts the claim again."""
    assert audit(SUCCESS + "@scheduler/1\n" + SUCCESS).verdict is Verdict.CONFORMING


def test_a_crash_leaves_the_old_epoch_inconclusive():
    """The first epoch ends in the middle; the second one is in order; the trace as a whole proves nothing."""
    report = audit(STORED + "@scheduler/1\n" + SUCCESS)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert {c.epoch: c.verdict for c in report.claims} == {0: Verdict.INCONCLUSIVE, 1: Verdict.CONFORMING}


def test_other_sources_may_be_interleaved():
    """Lines of two processes in any order: only the order within each counts."""
    first, second = trace(SUCCESS), trace("@router\nopen\ninit q1 k\nreject k q1\nend q1\nclose")
    mixed = [e for pair in zip(first, second * 3, strict=False) for e in pair][: 2 * len(second)]
    rest = first[len(second) :]
    assert audit_events([mixed, rest]).verdict is Verdict.CONFORMING


def test_a_claim_that_ended_before_a_gap_keeps_its_verdict():
    """The claim is conforming; the trace is not evidence all the same."""
    report = audit(SUCCESS.replace("    close\n", "    skip\n    close\n"))
    assert report.verdict is Verdict.INCONCLUSIVE
    assert [c.verdict for c in report.claims] == [Verdict.CONFORMING]


def test_a_deadline_is_the_term_after_the_decision():
    """ttl_s 20 microseconds: the deadline has to lie that long after the decision, or it is another promise."""
    text = """
        open
        init r1 c
        accept c r1 mode=expiring ttl_s=0.001 deadline_ns=+{later}
        materialize c r1
        end r1
        release c
        close
    """
    assert audit(text.format(later=1_000_500)).verdict is Verdict.CONFORMING
    for later in (900_000, 1_100_000):
        assert codes(audit(text.format(later=later)), Verdict.INCONCLUSIVE) == {"RKV237"}


def test_a_failed_request_needs_a_decision_where_decisions_are_told():
    """A source that reports admissions: a request ended in an error, and was neither admitted nor refused."""
    text = HARD.replace("    end r3 error\n", "    end r3 error\n    init r7\n    end r7 error\n")
    assert codes(audit(text), Verdict.INCONCLUSIVE) == {"RKV287"}
    assert audit(text.replace("end r7 error", "end r7 aborted")).verdict is Verdict.CONFORMING


def test_a_removal_that_names_places_and_no_blocks_is_unclear():
    """Which copies went is unknown, so whether a claim lost anything is too."""
    text = HARD.replace("    removed gpu b0,b1 8,9\n", "    removed gpu none 8,9\n")
    assert "RKV253" in codes(audit(text), Verdict.INCONCLUSIVE)


def test_where_a_request_of_a_lost_routed_claim_went_has_to_be_told():
    """The worker dies, the claim is harmed, and the request that came for it is served without a route outcome."""
    text = """
        open
        init r1 c
        accept c r1 mode=routed_reuse
        bind c w0
        materialize c r1
        end r1
        init r2 c
        harm c lost_pos=0-8
        end r2
        close
    """
    assert codes(audit(text), Verdict.INCONCLUSIVE) == {"RKV219"}
    told = text.replace("    harm c", "    route c r2 worker_id=w1 outcome=lost reused_blocks=0\n        harm c")
    assert audit(told).verdict is Verdict.CONFORMING


@pytest.mark.parametrize("named", ["invalid_block_ids=none", "invalid_block_ids=10"])
def test_the_scheduler_names_the_invalid_blocks_of_a_load_that_failed(named):
    """Without them nobody knows which blocks of the request hold something else."""
    report = audit(FAILURE.replace("failed c r2 job=1", f"failed c r2 job=1 {named}"))
    unnamed = named.endswith("none")
    assert report.verdict is (Verdict.INCONCLUSIVE if unnamed else Verdict.CONFORMING)
    assert codes(report, Verdict.INCONCLUSIVE) == ({"RKV267"} if unnamed else set())


def test_a_claim_that_names_no_blocks_in_a_source_that_reports_blocks_is_inconclusive():
    """Its losses could not be followed; a source that reports no blocks at all may leave them unnamed."""
    unnamed = HARD.replace(" block_hashes=a0,a1,a2,a3,a4,a5,a6,a7", "")
    report = audit(unnamed)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert codes(report, Verdict.INCONCLUSIVE) == {"RKV253"}
    silent = "\n".join(line for line in unnamed.splitlines() if " stored " not in line and " removed " not in line)
    assert audit(silent).verdict is Verdict.CONFORMING


def test_a_failed_transfer_that_calls_positions_good_moved_bytes():
    """A partial failure says what came; positions that are good without bytes are not."""
    partial = FAILURE.replace("fail 1\n", "fail 1 4-8 bytes={}\n").replace("failed c r2 job=1", "failed c r2 4-8 job=1")
    assert audit(partial.format(4000)).verdict is Verdict.CONFORMING
    assert codes(audit(partial.format(0))) == {"RKV251"}


def test_a_claim_is_not_offloaded_on_behalf_of_a_request_of_another_claim():
    """Two claims in flight at once: each event names its own request, or none."""
    story = """
        open
        init r1 c
        accept c r1 mode=offloadable
        init r2 d
        accept d r2 mode=offloadable
        store 0 r1 c
        store 1 r2 d
        materialize c r1
        materialize d r2
        done 0
        done 1
        offload c {r} jobs=0
        offload d r2 jobs=1
        end r1
        end r2
        release c
        release d
        close
    """
    assert audit(story.format(r="r1")).verdict is Verdict.CONFORMING
    assert codes(audit(story.format(r="r2"))) == {"RKV224"}
