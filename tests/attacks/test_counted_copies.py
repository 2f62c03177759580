"""Copies that can only be counted, bindings, and kinds of equivalent mutants that would excuse a lie."""

from __future__ import annotations

import pytest

from residentkv.audit import audit_events
from residentkv.audit.state import SourceState
from residentkv.audit.steps.blocks import on_removed, on_stored
from residentkv.suite.context import Context
from residentkv.suite.equivalent import equivalence_of
from residentkv.suite.mutate import mutate_trace
from residentkv.suite.tally import Tally, support_of, tally_trace
from residentkv.trace.events import BlockStored
from tests.audit.notation import trace
from tests.audit.stories import HARD, ROUTED, SOFT

LOSS = "    removed gpu a7 7\n    harm c lost_pos=7-8\n"
COUNTED = SOFT.replace(" 0,1,2,3,4,5,6,7\n", "\n").replace("removed gpu a7 7", "removed gpu a7")


def edit(story: str, old: str, new: str) -> str:
    assert story.count(old) == 1, old
    return story.replace(old, new)


def said(story: str) -> tuple[str, set[str]]:
    r = audit_events([trace(story)])
    codes = {f.code for c in r.claims for f in c.findings} | {f.code for s in r.sources for f in s.findings}
    return r.verdict.value, codes


def living(story: str, sentence: str) -> tuple[str | None, set[str]]:
    """Kind of equivalence of a mutant that lives ('' is none), None when it is killed; and what support it gained."""
    t = tuple(trace(story))
    report = audit_events([t])
    assert report.verdict.value == "conforming", said(story)
    base = support_of(report)
    (m,) = [m for m in mutate_trace(t) if m.sentence() == sentence]
    after = audit_events([m.events])
    gained = {x[-1] for x in support_of(after) - base}
    if after.verdict.value != "conforming" or not base <= support_of(after):
        return None, set()
    kind = equivalence_of(m, Context(t))
    return (kind.name if kind else ""), gained


# --- lawful losses


def test_counted_blocks_that_were_lost_and_stored_again_before_the_harm() -> None:
    """The bound worker restarts; the request of the claim computes the prefix anew there; then the harm is told."""
    story = """
        open
        init r1 c
        accept c r1 mode=routed_reuse
        stored gpu a0,a1,a2,a3,a4,a5,a6,a7
        materialize c r1 block_hashes=a0,a1,a2,a3,a4,a5,a6,a7
        bind c w0
        end r1
        init r2 c
        removed gpu a0,a1,a2,a3,a4,a5,a6,a7
        stored gpu a0,a1,a2,a3,a4,a5,a6,a7
        route c r2 worker_epoch=1 outcome=lost reused_blocks=0
        harm c request_id=r2 reason=worker_restarted lost_pos=0-8
        end r2
        close
    """
    assert said(story) == ("conforming", set())


# --- doubt about one content hides lies about the others


@pytest.mark.parametrize("soft", [SOFT, COUNTED])
def test_doubt_about_one_position_excuses_no_other(soft: str) -> None:
    """a0 is doubtful; a7 is gone and 3 is not: the owner is told that 3 is lost."""
    gone = "removed gpu a7 7" if soft is SOFT else "removed gpu a7"
    twice = "stored gpu a0\n    removed gpu a0\n    "
    if soft is SOFT:
        twice = "stored gpu a0\n    " + twice
    lie = soft.replace(gone, twice + gone).replace("lost_pos=7-8", "lost_pos=3-4")
    assert "RKV291" in said(lie)[1]


def test_a_removal_left_out_is_seen_beside_a_doubt() -> None:
    story = edit(
        COUNTED,
        "    removed gpu a7\n    harm c lost_pos=7-8\n",
        "    stored gpu a0\n    removed gpu a0\n    removed gpu a6\n    removed gpu a7\n    harm c lost_pos=6-8\n",
    )
    assert living(story, "delete: seq 9 block_removed") == (None, set())


def test_doubt_ends_when_every_counted_copy_is_gone() -> None:
    """Stored twice and removed twice in gpu, once in host: nothing is doubtful; 'as often as it was stored'."""
    more = "    stored host a0\n    stored gpu a0\n    stored gpu a0\n    removed gpu a0\n    removed gpu a0\n"
    lie = edit(SOFT, LOSS, more + LOSS.replace("lost_pos=7-8", "lost_pos=3-4"))
    assert "RKV291" in said(lie)[1]


# --- memory


def test_doubtful_follows_what_is_live() -> None:
    s = SourceState("scheduler", 0, "run")
    lines = [
        f"stored gpu x{i}\nstored gpu x{i}\nstored gpu x{i} 1\nremoved gpu x{i}\nremoved gpu x{i}\nremoved gpu x{i} 1"
        for i in range(100)
    ]
    for e in trace("\n".join(lines)):
        (on_stored if isinstance(e, BlockStored) else on_removed)(s, e)  # type: ignore[arg-type]
    assert not s.findings and not s.blocks.where and not s.blocks.anonymous
    assert len(s.blocks.doubtful) == 0


def test_since_follows_what_is_live() -> None:
    """A source that never uses a number twice would leave one entry for each block that ever was."""
    s = SourceState("scheduler", 0, "run")
    for e in trace("\n".join(f"stored gpu x{i} {i}\nremoved gpu x{i} {i}" for i in range(100))):
        (on_stored if isinstance(e, BlockStored) else on_removed)(s, e)  # type: ignore[arg-type]
    assert len(s.blocks.since["gpu"]) <= 1


# --- equivalences that excuse lies

MOVED = edit(
    edit(
        HARD, "    end r1\n", "    end r1\n    init q\n    stored gpu a7 17\n    removed gpu a7 7\n    end q aborted\n"
    ),
    "    init r5 c\n    admit r5 need_blocks=0 protected_blocks=8 active_blocks=0 usable_blocks=16\n"
    "    reuse-here c r5\n    end r5\n",
    "",
).replace("removed gpu a0,a1,a2,a3,a4,a5,a6,a7 0,1,2,3,4,5,6,7", "removed gpu a0,a1 0,1")


def test_the_tier_of_the_last_copy_of_a_hard_claim_is_not_any_tier() -> None:
    """The claim was materialized in gpu; its last copy of a7 is said to lie elsewhere. `place` looks only ahead."""
    sentence = "outcome tier: seq 8 block_stored tier 'gpu' -> 'another-tier'"
    assert living(MOVED, sentence)[0] in (None, "")


def test_an_eviction_from_a_hard_claim_left_out_gains_victim_exclusion() -> None:
    """The primary copy goes, one in host stays. What would prove more than the whole trace is called a survivor."""
    story = edit(HARD, "    materialize", "    stored host a7 7\n    materialize")
    story = edit(story, "    removed gpu b0,b1 8,9\n", "    removed gpu a7 7\n    removed gpu b0,b1 8,9\n")
    story = story.replace(
        "    init r5 c\n    admit r5 need_blocks=0 protected_blocks=8 active_blocks=0 usable_blocks=16\n"
        "    reuse-here c r5\n    end r5\n",
        "",
    ).replace("removed gpu a0,a1,a2,a3,a4,a5,a6,a7 0,1,2,3,4,5,6,7", "removed gpu a0,a1 0,1")
    tally = Tally()
    tally_trace("t", tuple(trace(story)), tally)
    at = next(
        e.seq for e in trace(story) if getattr(e, "block_hashes", ()) == ("a7",) and not isinstance(e, BlockStored)
    )
    assert f"t: delete: seq {at} block_removed" in tally.survivors


def test_a_name_that_is_submitted_again_does_not_lend_its_mode_to_the_first_claim() -> None:
    """The first `c` is soft; what its request computed again is no `own-word` because a later `c` is best_effort."""
    story = SOFT.replace("init r2\n", "init r2 c\n").replace(
        "harm c lost_pos=7-8", "harm c request_id=r2 lost_pos=7-8\n    recompute r2 c 7-8"
    )
    again = """    init r3 c
    accept c r3 mode=best_effort revision=1
    stored gpu b0,b1,b2,b3,b4,b5,b6,b7 20,21,22,23,24,25,26,27
    materialize c r3 block_hashes=b0,b1,b2,b3,b4,b5,b6,b7
    end r3
    release c
    close
"""
    sentence = "outcome recomputed_pos: seq 9 active_request_recomputed recomputed_pos ((7, 8),) -> ()"
    assert living(edit(story, "    close\n", again), sentence)[0] != "own-word"


def test_a_binding_under_which_the_claim_was_read_was_put_to_the_test() -> None:
    """`untested-term` says that nobody came for the claim where it was bound to; r2 did, and told no route outcome."""
    bound = ROUTED[: ROUTED.index("    init r2 c\n")]
    story = bound + "    init r2 c\n    reuse-here c r2\n    end r2\n    release c\n    close\n"
    sentence = "identity worker_id: seq 3 resident_claim_route_bound worker_id 'w0' -> 'nobody-known'"
    assert living(story, sentence)[0] != "untested-term"


# --- one copy with a place, one without; copies in doubt


@pytest.mark.parametrize("removed", ["removed gpu a7", "removed gpu a7 7"])
def test_one_copy_with_a_place_and_one_without_cannot_be_told_apart(removed: str) -> None:
    """Both without a place: RKV253. BlockLog writes a store told again just so, with a number and then without."""
    story = edit(SOFT, LOSS, f"    stored gpu a7\n    {removed}\n    release c\n")
    assert said(story)[0] == "inconclusive"


def test_a_best_effort_claim_that_came_back_in_part() -> None:
    """What the SGLang observer writes: a removal, a reuse of the head, the rest computed again; a false survivor."""
    story = """
        open
        init r1 c
        accept c r1 mode=best_effort
        stored gpu a0,a1,a2,a3,a4,a5,a6,a7 0,1,2,3,4,5,6,7
        materialize c r1 block_hashes=a0,a1,a2,a3,a4,a5,a6,a7
        end r1
        init r2 c
        removed gpu a4,a5,a6,a7 4,5,6,7
        reuse-here c r2 0-4
        recompute r2 c 4-8
        stored gpu a4,a5,a6,a7 14,15,16,17
        end r2
        release c
        close
    """
    assert living(story, "delete: seq 7 block_removed")[0] != ""


def test_a_claim_materialized_on_a_block_that_is_in_doubt_already() -> None:
    """The same removal after the materialization is RKV253; before it, nobody asks whether a copy is there at all."""
    story = edit(COUNTED, "    materialize", "    stored gpu a7\n    removed gpu a7\n    materialize")
    story = edit(story, "    removed gpu a7\n    harm c lost_pos=7-8\n", "    release c\n")
    assert said(story)[0] == "inconclusive"
