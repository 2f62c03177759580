"""Claims said to be restored, offloaded, routed or let go while the other events of the trace say otherwise."""

from __future__ import annotations

import pytest

from residentkv.audit import audit_events
from tests.attacks.test_counted_copies import edit, living, said
from tests.audit.notation import Scribe
from tests.audit.stories import EXPIRING, FAILURE, HARD, ROUTED, STORED, SUCCESS

BLOCKS = "a0,a1,a2,a3,a4,a5,a6,a7"
IDS = "0,1,2,3,4,5,6,7"
BACK = f"    stored gpu {BLOCKS} 10,11,12,13,14,15,16,17\n"

RESTORED = f"""
    open
    init r1 c
    accept c r1 mode=offloadable
    stored gpu {BLOCKS} {IDS}
    store 0 r1 c
    done 0
    stored host {BLOCKS} {IDS}
    materialize c r1 block_hashes={BLOCKS}
    offload c r1 jobs=0
    end r1
    removed gpu {BLOCKS} {IDS}
    init r2 c
    lookup r2 c
    require c r2
    load 1 r2 c
    done 1
{BACK}    restore c r2 job=1
    reuse c r2
    end r2
    release c
    close
"""


# --- restored


def test_what_was_restored_lies_in_the_primary_tier_when_its_request_ends() -> None:
    """With block events a restoration is more than a word: the copies came, before or after it was told."""
    assert said(RESTORED) == ("conforming", set())
    late = edit(edit(RESTORED, BACK, ""), "    end r2\n", BACK + "    end r2\n")
    assert said(late) == ("conforming", set())
    assert said(edit(RESTORED, BACK, "")) == ("inconclusive", {"RKV257"})
    assert said(edit(RESTORED, BACK, BACK.replace("gpu", "disk")))[0] == "inconclusive"
    assert said(edit(RESTORED, BACK, BACK.replace("a7", "x7"))) == ("inconclusive", {"RKV257"})


@pytest.mark.parametrize("first", [1, 7])
def test_positions_that_left_the_primary_tier_do_not_count_as_still_there(first: int) -> None:
    """Only a part is loaded; the rest had been evicted, so the predicate does not hold over what is available."""
    loaded = ",".join(f"a{p}" for p in range(first, 8))
    story = edit(RESTORED, BACK, f"    stored gpu {loaded} {','.join(f'1{p}' for p in range(first, 8))}\n")
    for word in ("lookup r2 c", "require c r2", "load 1 r2 c"):
        story = edit(story, word + "\n", f"{word} {first}-8\n")
    story = edit(story, "restore c r2 job=1", f"restore c r2 {first}-8 job=1")
    verdict, codes = said(story)
    assert verdict == "violating" and codes >= {"RKV259"}
    went = f"removed gpu {loaded} {','.join(f'{p}' for p in range(first, 8))}"
    assert said(edit(story, f"removed gpu {BLOCKS} {IDS}", went)) == ("conforming", set())


def test_leaving_out_the_copies_of_a_restoration_is_no_equivalent_mutant() -> None:
    """The block event after a load is what tells that bytes came: without it the trace does not conform."""
    assert living(RESTORED, "delete: seq 16 block_stored") == (None, set())


# --- offloaded


def test_a_tier_that_its_own_block_events_emptied_promises_nothing() -> None:
    """The copies in the second tier are removed, and the claim is called offloaded there all the same."""
    story = edit(
        STORED,
        "    materialize c r1\n    offload c r1 jobs=0\n",
        f"    stored gpu {BLOCKS} {IDS}\n    materialize c r1 block_hashes={BLOCKS}\n    stored host {BLOCKS} {IDS}\n"
        f"    removed host {BLOCKS} {IDS}\n    offload c r1 jobs=0\n",
    )
    story += "    release c\n    close\n"
    assert said(story) == ("inconclusive", {"RKV253"})
    assert said(edit(story, f"    removed host {BLOCKS} {IDS}\n", "")) == ("conforming", set())


def test_a_claim_lost_after_its_failed_restoration_is_not_promised_again() -> None:
    """While a failed restoration owes its outcome a loss is not told twice; a new promise over nothing is a lie."""
    gone = f"    removed gpu {BLOCKS} {IDS}\n    removed host {BLOCKS} {IDS}\n"
    story = edit(FAILURE, "    release c\n", f"{gone}    offload c jobs=0\n    init r9\n    end r9\n    release c\n")
    story = edit(
        story,
        "    materialize c r1\n",
        f"    stored gpu {BLOCKS} {IDS}\n    stored host {BLOCKS} {IDS}\n    materialize c r1 block_hashes={BLOCKS}\n",
    )
    verdict, codes = said(story)
    assert verdict == "violating" and "RKV289" in codes
    again = edit(story, "    offload c jobs=0\n", f"{BACK}    stored host {BLOCKS} {IDS}\n    offload c jobs=0\n")
    assert said(again) == ("conforming", set())


# --- routed


def test_a_binding_serves_nothing_after_the_term_or_the_loss() -> None:
    """Served by the binding is a read like any other: in its term, and not after a loss that nobody told."""
    served = edit(ROUTED, "    route c r2\n", "    wait 100000\n    route c r2\n")
    late = served.replace("mode=routed_reuse", "mode=routed_reuse ttl_s=0.00002 deadline_ns=+20000")
    assert "RKV238" in said(late)[1]
    story = f"""
        open
        init r1 c
        accept c r1 mode=routed_reuse
        bind c w0
        stored gpu {BLOCKS} {IDS}
        materialize c r1 block_hashes={BLOCKS}
        end r1
        init r2 c
        route c r2
        end r2
        removed gpu a0 0
        harm c lost_pos=0-1
        close
    """
    assert said(story) == ("conforming", set())
    moved = edit(
        edit(story, "        removed gpu a0 0\n", ""),
        "        route c r2\n",
        "        removed gpu a0 0\n        route c r2\n",
    )
    assert said(moved) == ("violating", {"RKV289"})
    lost = edit(
        story,
        "        init r2 c\n",
        "        init r3 c\n        route c r3 outcome=lost reused_blocks=0\n        end r3\n        init r2 c\n",
    )
    assert "RKV289" in said(lost)[1]


# --- let go


@pytest.mark.parametrize(
    "goes_on",
    [
        "    admit r6 need_blocks=16 protected_blocks=0 active_blocks=0 usable_blocks=16\n    end r6 aborted\n",
        "    store 9 r6\n    done 9\n    end r6 aborted\n",
        "    end r6\n",
    ],
)
def test_an_engine_that_lets_go_as_at_its_end_and_works_on_has_given_the_claim_up(goes_on: str) -> None:
    """A waiting request is let in, blocks move, or a request is answered: that is no end of the engine."""
    story = HARD[: HARD.index("    init r5 c\n")] + (
        "    init r6\n    release c released_by=engine:pressure reason=shutdown\n" + goes_on + "    close\n"
    )
    assert "RKV242" in said(story)[1]
    quiet = edit(story, goes_on, "    end r6 aborted\n")
    assert "RKV242" not in said(quiet)[1]


# --- smaller ones


def test_positions_that_were_reused_and_then_computed_again_are_unclear_in_every_mode() -> None:
    """The other order is a violation; this one may be a preempted request, and is no proof of reuse."""
    best = SUCCESS.replace("mode=offloadable", "mode=best_effort")
    assert said(best)[0] == "conforming"
    again = edit(best, "    end r2\n", "    recompute r2 c\n    end r2\n")
    assert said(again) == ("inconclusive", {"RKV258"})


def test_a_claim_is_not_materialized_after_its_term() -> None:
    """A claim that begins to be kept after its deadline is one whose term nobody enforces."""
    story = f"""
        open
        init r1 c
        accept c r1 mode=expiring ttl_s=0.00002 deadline_ns=+20000 protected_blocks=0 usable_blocks=16
        stored gpu {BLOCKS} {IDS}
        materialize c r1 block_hashes={BLOCKS}
        end r1
        wait 20000
        expire c deadline_ns=1023000
        removed gpu a0,a1 0,1
        close
    """
    assert said(story)[0] == said(EXPIRING)[0] == "conforming"
    late = edit(edit(story, "        wait 20000\n", ""), "        stored gpu", "        wait 60000\n        stored gpu")
    assert said(late) == ("inconclusive", {"RKV243"})


def test_two_cache_identities_do_not_share_blocks() -> None:
    """Blocks of one model, salt or adapter are nobody else's: a trace that says so names the wrong blocks."""
    story = f"""
        open
        init r1 c
        accept c r1 mode=soft_priority
        stored gpu {BLOCKS} {IDS}
        materialize c r1 block_hashes={BLOCKS}
        end r1
        init q1 d
        accept d q1 mode=soft_priority tokens=tokens:2
        materialize d q1 block_hashes={BLOCKS}
        end q1
        release c
        release d
        close
    """
    assert said(story) == ("conforming", set())
    assert said(edit(story, "tokens=tokens:2", "tokens=tokens:2 cache=cache:other")) == ("inconclusive", {"RKV253"})


def test_a_block_stored_again_in_its_own_place_is_no_loss() -> None:
    """The events do not add up, and nothing was removed."""
    assert said(edit(HARD, "    init r2\n", "    stored gpu a0 0\n    init r2\n")) == ("inconclusive", {"RKV253"})


@pytest.mark.parametrize("mine", ["c", "c2"])
def test_relief_by_a_claim_whose_name_two_owners_use(mine: str) -> None:
    """An action names no owner: either claim of that name may be the one that made room."""
    other = {"c": "c2", "c2": "c"}[mine]
    scribe = Scribe()
    scribe.claims = {"c": {"claim_id": "c", "owner": "alice"}, "c2": {"claim_id": "c", "owner": "bob"}}
    story = f"""
        open
        init r1 c
        accept c r1 mode=demotable protected_blocks=0 usable_blocks=24
        admit r1 need_blocks=0 protected_blocks=8 usable_blocks=24
        materialize c r1
        end r1
        init q1 c2
        accept c2 q1 mode=demotable protected_blocks=8 usable_blocks=24
        admit q1 need_blocks=0 protected_blocks=16 usable_blocks=24
        materialize c2 q1
        end q1
        init r2
        demote {mine}
        admit r2 need_blocks=12 protected_blocks=8 active_blocks=0 usable_blocks=24 actions=demote:c
        end r2
        release {other}
        close
    """
    report = audit_events([scribe.write(story).events])
    assert report.verdict.value == "conforming", [f.story for f in report.all_findings()]
