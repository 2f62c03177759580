"""What users reported in public threads, as small traces made from the description; no text or code of a thread.

Each of these was a silent or false answer somewhere. The audit has to say the right one of its three words.
"""

from __future__ import annotations

from residentkv.audit import AuditReport, Verdict, audit_events
from tests.audit.notation import trace
from tests.audit.stories import EXPIRING, FAILURE, HARD, RECOMPUTE, REQUIRED, STORED, SUCCESS


def audit(text: str) -> AuditReport:
    return audit_events([trace(text)])


def codes(report: AuditReport, verdict: Verdict) -> set[str]:
    return {f.code for f in report.all_findings() if f.verdict is verdict}


def test_failed_load_answered_from_nothing_is_a_violation():
    """vllm-project/vllm#49250: a rejected load under policy recompute gives a wrong answer.

    The load fails; the claim is demoted; the request ends well.
    No token was computed again for the positions that were lost.
    """
    report = audit(RECOMPUTE.replace("    recompute r2 c\n", ""))
    assert report.verdict is Verdict.VIOLATING
    assert codes(report, Verdict.VIOLATING) == {"RKV270"}


def test_request_that_never_finishes_after_a_failed_load_is_a_violation():
    """vllm-project/vllm#45138: all blocks of a load are reported failed; the request never finishes.

    The load fails for every position, and then the log of an engine that was shut down in order ends.
    """
    report = audit(STORED + REQUIRED + "fail 1\nrelease c\nclose")
    assert report.verdict is Verdict.VIOLATING
    assert "RKV264" in codes(report, Verdict.VIOLATING)


def test_worker_killed_by_a_load_error_leaves_an_inconclusive_trace():
    """vllm-project/vllm#39732: an offload load error asserts and kills the worker.

    The last line is the failed transfer; nothing closed the trace.
    """
    report = audit(STORED + REQUIRED + "fail 1")
    assert report.verdict is Verdict.INCONCLUSIVE
    assert {"RKV203", "RKV264", "RKV232"} <= codes(report, Verdict.INCONCLUSIVE)


def test_rescheduled_load_that_never_wakes_is_not_a_pass():
    """local-inference-lab/vllm#191: a failed load is rescheduled, and the idle engine never wakes.

    The failure is told with policy retry; no second load is made and the request has no end.
    """
    report = audit(STORED + REQUIRED + "fail 1\nfailed c r2 policy=retry\nrelease c\nclose")
    assert report.verdict is Verdict.INCONCLUSIVE
    assert "RKV215" in codes(report, Verdict.INCONCLUSIVE)


def test_promised_blocks_that_are_never_found_are_a_violation():
    """vllm-project/vllm#53498: stored blocks can never be found again.

    The tier says that it can give all positions back; the lookup finds none; the request is served in silence.
    """
    report = audit(STORED + "init r2 c\nlookup r2 c none\nend r2\nrelease c\nclose")
    assert report.verdict is Verdict.VIOLATING
    assert codes(report, Verdict.VIOLATING) == {"RKV262"}


def test_chunk_of_which_only_the_last_block_can_be_retrieved_is_not_materialized():
    """vllm-project/vllm#57159: the event advertises blocks h1 to h4 of a chunk; only h4 can be retrieved.

    Four blocks are advertised as stored, and one position, the last, is retrievable.
    """
    report = audit(
        """
        open
        init r1 c
        accept c r1 mode=hard_protected predicate=leading_prefix_at_least(4) footprint=4 blocks=4
        stored gpu h1,h2,h3,h4 1,2,3,4
        materialize c r1 3-4 block_hashes=h1,h2,h3,h4
        end r1
        release c
        close
        """
    )
    assert report.verdict is Verdict.VIOLATING
    assert codes(report, Verdict.VIOLATING) == {"RKV244"}


def test_removal_of_a_duplicate_copy_is_no_loss():
    """vllm-project/vllm#55092: BlockRemoved fires while a duplicate copy survives.

    Block a0 lies twice in the primary tier; one copy goes; the claim is reused and released.
    """
    story = HARD.replace("    init r2\n", "    stored gpu a0 40\n    removed gpu a0 40\n    init r2\n", 1)
    assert audit(story).verdict is Verdict.CONFORMING
    other = HARD.replace("    init r2\n", "    stored gpu a0 40\n    removed gpu a0 0\n    init r2\n", 1)
    other = other.replace("a0,a1,a2,a3,a4,a5,a6,a7 0,1", "a0,a1,a2,a3,a4,a5,a6,a7 40,1")
    other = other.replace("stored gpu a0,a1,a2,a3,a4,a5,a6,a7 40,1", "stored gpu a0,a1,a2,a3,a4,a5,a6,a7 0,1", 1)
    assert audit(other).verdict is Verdict.CONFORMING


def test_removal_of_an_anonymous_duplicate_is_inconclusive():
    """vllm-project/vllm#55092 without block ids: whether the other copy lives cannot be known."""
    story = HARD.replace("    init r2\n", "    removed gpu a0\n    init r2\n", 1)
    story = story.replace("stored gpu a0,a1,a2,a3,a4,a5,a6,a7 0,1,2,3,4,5,6,7", "stored gpu a0,a1,a2,a3,a4,a5,a6,a7")
    story = story.replace("removed gpu a0,a1,a2,a3,a4,a5,a6,a7 0,1,2,3,4,5,6,7", "removed gpu a1,a2,a3,a4,a5,a6,a7")
    report = audit(story)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert not codes(report, Verdict.VIOLATING)


def test_sequence_that_starts_again_is_inconclusive():
    """llm-d/llm-d-router#2853: a restart resets the sequence to 0 and the index keeps dead blocks.

    The same source and epoch counts from 0 again and goes on as if nothing had happened.
    """
    report = audit(STORED + "back 8\ninit r2 c\nreuse-here c r2\nend r2\nrelease c\nclose")
    assert report.verdict is Verdict.INCONCLUSIVE
    assert "RKV205" in codes(report, Verdict.INCONCLUSIVE)


def test_restart_that_uses_what_its_predecessor_promised_is_a_violation():
    """llm-d/llm-d-router#2853, with the epoch counted properly: the new epoch serves from a claim it never accepted."""
    report = audit(STORED + "@scheduler/1\nopen\ninit r2 c\nreuse-here c r2\nend r2\nclose")
    assert report.verdict is Verdict.VIOLATING
    assert codes(report, Verdict.VIOLATING) == {"RKV221"}


def test_read_after_the_lease_is_a_violation_whatever_the_status():
    """aws-samples/aws-do-eks PR 84: a 30 s lease expired; requests read freed KV and returned 200.

    The claim has a deadline; after it a request reuses the blocks and stops as if all were well.
    """
    report = audit(
        """
        open
        init r1 c
        accept c r1 mode=expiring ttl_s=30 deadline_ns=+30000000000
        materialize c r1
        end r1
        wait 31000000000
        init r2 c
        reuse-here c r2
        end r2 stopped
        expire c deadline_ns=30001002000
        close
        """
    )
    assert report.verdict is Verdict.VIOLATING
    assert "RKV238" in codes(report, Verdict.VIOLATING)
    assert audit(EXPIRING).verdict is Verdict.CONFORMING


def test_failed_store_that_stays_visible_is_a_violation():
    """LMCache/LMCache#4991: a failed store stays visible, and gibberish comes back.

    The store transfer fails; the tier names it all the same as what it can give back.
    """
    report = audit(SUCCESS.replace("    done 0\n", "    fail 0\n"))
    assert report.verdict is Verdict.VIOLATING
    assert codes(report, Verdict.VIOLATING) == {"RKV245"}


def test_pin_without_refusal_that_hangs_others_is_not_a_pass():
    """sgl-project/sglang#27024: pinned sessions deadlock the scheduler.

    A request waits for the claim that is in the way, and is neither admitted nor refused before the engine stops.
    """
    report = audit(
        """
        open
        init r1 c
        accept c r1 mode=hard_protected
        admit r1 need_blocks=0 protected_blocks=8 usable_blocks=16
        materialize c r1
        end r1
        init r2
        defer-request r2 need_blocks=10 protected_blocks=8 usable_blocks=16 shortfall_blocks=2 blocking_claim_ids=c
        release c
        close
        """
    )
    assert report.verdict is Verdict.INCONCLUSIVE
    assert codes(report, Verdict.INCONCLUSIVE) == {"RKV215"}


def test_request_priority_accepts_no_claim():
    """vllm-project/vllm#47802: request `priority` is taken for KV protection and is none.

    The request was scheduled with priority; the claim is said to be held, and nobody accepted it.
    """
    report = audit("open\ninit r1 c\nnote priority\nmaterialize c r1\nend r1\nrelease c\nclose")
    assert report.verdict is Verdict.VIOLATING
    assert codes(report, Verdict.VIOLATING) == {"RKV220"}


def test_retention_interval_promises_nothing():
    """vllm-project/vllm PR 43447: `prefix-cache-retention-interval` is a caching density, named like a promise.

    The runtime reports the setting and its block events; no claim was decided, so nothing was kept.
    """
    report = audit("open\nnote prefix_cache_retention_interval\ninit r1\nstored gpu a0,a1 0,1\nend r1\nclose")
    assert report.verdict is Verdict.INCONCLUSIVE
    assert codes(report, Verdict.INCONCLUSIVE) == {"RKV210"}


def test_hit_under_another_salt_is_a_violation():
    """sgl-project/sglang#37160, LMCache#4825: a dropped cache salt gives a cross-tenant hit.

    The reuse names a cache identity without the salt that the claim was accepted under.
    """
    report = audit(SUCCESS.replace("    reuse c r2\n", "    reuse c r2 cache_identity=cache:unsalted\n"))
    assert report.verdict is Verdict.VIOLATING
    assert codes(report, Verdict.VIOLATING) == {"RKV223"}


def test_reuse_by_another_tenant_is_a_violation():
    """sgl-project/sglang#37160: the hit of another tenant, under the claim id of the owner."""
    report = audit(STORED + "init r2\nlookup r2\nreuse-here c r2 owner_scope=stranger\nend r2\nrelease c\nclose")
    assert report.verdict is Verdict.VIOLATING
    assert "RKV222" in codes(report, Verdict.VIOLATING)


def test_kv_that_outlives_a_weight_update_is_a_violation():
    """vllm-project/vllm#42695: KV outlives a weight update.

    After the update the cache identity has another weights epoch; the old blocks are reused under it.
    """
    report = audit(FAILURE.replace("    require c r2\n", "    require c r2 cache_identity=cache:weights-2\n"))
    assert report.verdict is Verdict.VIOLATING
    assert codes(report, Verdict.VIOLATING) == {"RKV223"}
