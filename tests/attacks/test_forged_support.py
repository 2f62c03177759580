"""Runs that look like a kept promise and show nothing of it, and breaches that no row would have heard of."""

from __future__ import annotations

import pytest

from residentkv.audit import AuditReport, Verdict, audit_events
from residentkv.audit.evidence import EvidenceItem, evidence_of
from residentkv.audit.rules import RULES
from residentkv.claims.modes import Mode
from residentkv.lowering.obligations import BUNDLES
from tests.audit.notation import trace
from tests.audit.stories import DEMOTABLE, EXPIRING, FAILURE, HARD, ROUTED, SOFT, SUCCESS

OPEN = "open runtime=somertime runtime_version=1.4.2 primitive=lru adapter=plug adapter_version=v1 depth=plugin"


def audit(story: str) -> AuditReport:
    return audit_events([trace(story.replace("open", OPEN, 1))])


def said(story: str) -> tuple[Verdict, set[str]]:
    report = audit(story)
    return report.verdict, {f.code for f in report.all_findings()}


def supported(story: str) -> set[str]:
    report = audit(story)
    assert report.verdict is Verdict.CONFORMING, report.all_findings()
    return {i.obligation for i in evidence_of(report) if i.polarity == "supports"}


def edit(story: str, old: str, new: str) -> str:
    assert story.count(old) == 1, old
    return story.replace(old, new)


# --- eviction preference: told late


def soft_claim(name: str, priority: int, base: int) -> str:
    hashes = ",".join(f"{name}h{i}" for i in range(8))
    ids = ",".join(str(base + i) for i in range(8))
    return f"""
    init r-{name} {name}
    accept {name} r-{name} mode=soft_priority priority={priority}
    stored gpu {hashes} {ids}
    materialize {name} r-{name} block_hashes={hashes}
    end r-{name}
"""


def loss(name: str, base: int) -> str:
    return f"    removed gpu {name}h0 {base}\n"


def right_rounds(first: int = 20) -> str:
    """Five rounds of either assignment in which the less important claim goes first."""
    story = ""
    for n in range(first, first + 10):
        low, high = (n * 1000, n * 1000 + 100) if n % 2 else (n * 1000 + 100, n * 1000)
        both = [soft_claim(f"lo{n}", 1, low), soft_claim(f"hi{n}", 9, high)]
        story += "".join(both if n % 2 else reversed(both)) + loss(f"lo{n}", low)
        story += f"    harm lo{n} lost_pos=0-1\n    release hi{n}\n"
    return story


def wrong_round(n: int, between: str) -> str:
    """The more important claim goes first, the less important one after it; the harm is told when both are gone."""
    base = n * 1000
    story = soft_claim(f"lo{n}", 1, base) + soft_claim(f"hi{n}", 9, base + 100) + loss(f"hi{n}", base + 100)
    if between == "lost":
        return story + loss(f"lo{n}", base) + f"    harm hi{n} lost_pos=0-1\n    harm lo{n} lost_pos=0-1\n"
    return story + f"    release lo{n}\n    harm hi{n} lost_pos=0-1\n"


def preference(story: str) -> EvidenceItem | None:
    report = audit(f"    open\n{story}    close\n")
    assert report.verdict is Verdict.CONFORMING
    items = [i for i in evidence_of(report) if i.obligation == "eviction_preference"]
    return items[0] if items else None


@pytest.mark.parametrize("between", ["lost", "released"])
def test_a_loss_in_the_wrong_order_counts_although_it_is_told_when_nothing_is_left_to_compare(between: str) -> None:
    """What was left is judged at the loss: a runtime that reports later does not hide whom it took first."""
    good = preference(right_rounds())
    assert good is not None and good.polarity == "supports" and good.claims == 10
    bad = preference(right_rounds() + "".join(wrong_round(n, between) for n in range(5)))
    assert bad is not None and bad.polarity == "contradicts" and bad.claims == 5


def test_claims_that_go_in_one_event_are_not_compared_with_each_other() -> None:
    """One event has no order within it."""
    story = soft_claim("lo", 1, 0) + soft_claim("hi", 9, 100)
    both = "    removed gpu hih0,loh0 100,0\n    harm hi lost_pos=0-1\n    harm lo lost_pos=0-1\n"
    item = preference(right_rounds() + story + both)
    assert item is not None and item.polarity == "supports" and item.claims == 10


def test_one_loss_in_the_wrong_order_is_a_counterexample_however_short_the_trace() -> None:
    """Cut into short traces, the wrong losses of a run would otherwise say nothing, and the right ones support."""
    item = preference(wrong_round(0, "lost"))
    assert item is not None and item.polarity == "contradicts" and item.claims == 1


def test_claims_that_a_request_holds_are_not_compared() -> None:
    """They could not have gone instead: that they were kept shows no preference, and no breach of it."""
    held = "    init q-{0} {0}\n    reuse-here {0} q-{0}\n"
    kept = soft_claim("hi", 9, 100) + held.format("hi") + soft_claim("lo", 1, 0) + loss("lo", 0)
    story = kept + "    harm lo lost_pos=0-1\n    end q-hi\n    release hi\n"
    assert len(audit(f"    open\n{story}    close\n").claims) == 2 and preference(story) is None
    item = preference(right_rounds() + story)
    assert item is not None and item.claims == 10
    taken = soft_claim("lo", 1, 0) + held.format("lo") + soft_claim("hi", 9, 100) + loss("hi", 100)
    assert preference(taken + "    harm hi lost_pos=0-1\n    end q-lo\n    release lo\n") is None


WITHDRAWN = "    init w-{0} {0}\n    end w-{0} aborted output_tokens=0\n"
READ = "    init w-{0} {0}\n    reuse-here {0} w-{0}\n    end w-{0}\n"


def agreeing_rounds() -> str:
    """Five rounds in which recency and priority choose the same claim."""
    return "".join(lost_round(n, "") for n in range(40, 45))


def lost_round(n: int, between: str) -> str:
    """The less important claim is used first, the more important one next; then what is told of both, and a loss."""
    low, high = f"lo{n}", f"hi{n}"
    story = soft_claim(low, 1, n * 1000) + soft_claim(high, 9, n * 1000 + 100) + between.format(low)
    return story + loss(low, n * 1000) + f"    harm {low} lost_pos=0-1\n    release {high}\n"


@pytest.mark.parametrize(
    ("between", "is_swapped"),
    [
        (WITHDRAWN, False),
        (WITHDRAWN.replace("output_tokens=0", "output_tokens=9"), False),
        (READ.replace("reuse-here {0} w-{0}", "reuse-here {0} w-{0} 0-1").replace("w-{0}\n", "w-{0} aborted\n"), False),
        (READ, True),
        (READ.replace("end w-{0}", "end w-{0} aborted"), True),
    ],
    ids=["withdrawn", "withdrawn-late", "read-in-part", "read", "read-and-withdrawn"],
)
def test_only_a_claim_that_was_read_was_used_more_recently(between: str, is_swapped: bool) -> None:
    """A request that is withdrawn need not have touched anything: a cache that knows only recency takes the same."""
    item = preference(agreeing_rounds() + "".join(lost_round(n, between) for n in range(50, 55)))
    assert (item is not None) is is_swapped
    assert item is None or (item.polarity == "supports" and item.claims == 10)


def test_a_claim_materialized_without_a_served_request_was_not_used_by_that() -> None:
    """Blocks that lay there can be claimed at any time; that moves nothing in a cache that knows only recency."""

    def claimed_late(n: int) -> str:
        claim = soft_claim(f"lo{n}", 1, n * 1000)
        stored = next(line for line in claim.splitlines() if "stored" in line) + "\n"
        claim = "".join(f"{x}\n" for x in claim.splitlines() if "stored" not in x)
        claim = claim.replace(f"    end r-lo{n}\n", f"    end r-lo{n} aborted output_tokens=0\n")
        story = stored + soft_claim(f"hi{n}", 9, n * 1000 + 100) + claim + loss(f"lo{n}", n * 1000)
        return story + f"    harm lo{n} lost_pos=0-1\n    release hi{n}\n"

    assert preference(agreeing_rounds() + "".join(claimed_late(n) for n in range(50, 55))) is None


def alike(names: list[str], priority: int, content: str, base: int, needs: list[int]) -> str:
    """Claims of one content, stored once; each needs so many of its first blocks."""
    hashes = ",".join(f"{content}h{i}" for i in range(8))
    story = f"    stored gpu {hashes} {','.join(str(base + i) for i in range(8))}\n"
    for name, count in zip(names, needs, strict=True):
        story += f"    init r-{name} {name}\n    accept {name} r-{name} mode=soft_priority priority={priority} "
        story += f"predicate=leading_prefix_at_least({count})\n    materialize {name} r-{name} block_hashes={hashes}\n"
        story += f"    end r-{name}\n"
    return story


BEFORE, AFTER = [f"older{n}" for n in range(5)], [f"newer{n}" for n in range(5)]


def test_one_eviction_is_one_trial_however_many_claims_lose_by_it() -> None:
    """Two events that take two contents are two trials, not ten."""
    story = alike(BEFORE, 1, "a", 0, [8] * 5) + soft_claim("hi", 9, 100) + alike(AFTER, 1, "b", 200, [8] * 5)
    for names, content, base in ((BEFORE, "a", 0), (AFTER, "b", 200)):
        story += f"    removed gpu {content}h0 {base}\n" + "".join(f"    harm {n} lost_pos=0-1\n" for n in names)
    assert preference(story + "    release hi\n") is None


def test_claims_on_one_content_that_is_taken_block_by_block_are_one_trial() -> None:
    """Five claims on longer and longer beginnings of one prompt lose one after the other; it is one victim."""
    needs = [8, 7, 6, 5, 4]
    story = alike(BEFORE, 1, "a", 0, needs) + soft_claim("hi", 9, 100) + alike(AFTER, 1, "b", 200, needs)
    for names, content, base in ((BEFORE, "a", 0), (AFTER, "b", 200)):
        for name, count in zip(names, needs, strict=True):
            at = count - 1
            story += f"    removed gpu {content}h{at} {base + at}\n    harm {name} lost_pos={at}-{count}\n"
    assert preference(story + "    release hi\n") is None


def test_contents_that_go_in_one_event_are_one_trial() -> None:
    """They may be one decision, such as a flush of what is least important; in events of their own they are ten."""

    def story(apart: bool) -> str:
        names = [*BEFORE, *AFTER]
        base = {name: 1000 + 10 * n for n, name in enumerate(names)}
        text = "".join(soft_claim(n, 1, base[n]) for n in BEFORE) + soft_claim("hi", 9, 0)
        text += "".join(soft_claim(n, 1, base[n]) for n in AFTER)
        for group in [[n] for n in names] if apart else [BEFORE, AFTER]:
            text += f"    removed gpu {','.join(f'{n}h0' for n in group)} {','.join(str(base[n]) for n in group)}\n"
            text += "".join(f"    harm {n} lost_pos=0-1\n" for n in group)
        return text + "    release hi\n"

    assert preference(story(apart=False)) is None
    item = preference(story(apart=True))
    assert item is not None and item.polarity == "supports" and item.claims == 10


@pytest.mark.parametrize("important", ["long", "short"])
def test_the_end_of_an_object_goes_before_its_beginning_whatever_the_priority(important: str) -> None:
    """A claim that needs only blocks of the lost one could not have gone instead: neither a trial nor a breach."""
    priority = {"long": 1, "short": 1, important: 9}
    story = alike(["long"], priority["long"], "a", 0, [8])
    story += alike(["short"], priority["short"], "a", 0, [4]).split("\n", 1)[1]
    story += "    removed gpu ah7 7\n    harm long lost_pos=7-8\n    release short\n"
    assert preference(story) is None


def test_a_claim_that_left_its_tier_could_not_have_gone_instead() -> None:
    """It has another copy elsewhere, so it is not lost, and it is no victim where the important claim was."""
    moved = "    stored host loh0 0\n    removed gpu loh0 0\n"
    story = soft_claim("lo", 1, 0) + soft_claim("hi", 9, 100) + "{}" + loss("hi", 100)
    story += "    harm hi lost_pos=0-1\n    release lo\n"
    assert preference(story.format(moved)) is None
    item = preference(story.format(""))
    assert item is not None and item.polarity == "contradicts"


# --- joinability: a name that is told when it is over


@pytest.mark.parametrize("first", ["r0", "late"])
def test_a_claim_that_is_first_joined_after_the_pressure_was_not_joinable_before(first: str) -> None:
    """Spec section 4: whoever names the claim once eviction is over shows nothing about the time before."""
    story = """
    open
    init r0 c
    accept c r0 mode=hard_protected footprint=8 protected_blocks=0 usable_blocks=16
    admit r0 need_blocks=8 protected_blocks=8 active_blocks=0 usable_blocks=16
    stored gpu a0,a1,a2,a3,a4,a5,a6,a7 0,1,2,3,4,5,6,7
    materialize c block_hashes=a0,a1,a2,a3,a4,a5,a6,a7
    end r0
    init r2
    admit r2 need_blocks=8 protected_blocks=8 active_blocks=0 usable_blocks=16
    stored gpu b0,b1 8,9
    end r2
    init r4
    admit r4 need_blocks=8 protected_blocks=8 active_blocks=0 usable_blocks=16
    removed gpu b0,b1 8,9
    end r4
    init r5 c
    admit r5 need_blocks=0 protected_blocks=8 active_blocks=0 usable_blocks=16
    end r5 aborted
    release c
    close
"""
    if first == "late":
        for line in ("    init r0 c\n", "    end r0\n"):
            story = edit(story, line, "")
        story = edit(story, "accept c r0 ", "accept c ")
        story = edit(story, "    admit r0 need_blocks=8 protected_blocks=8 active_blocks=0 usable_blocks=16\n", "")
    shown = supported(story)
    assert {"claim_identity", "acceptance"} <= shown and ("joinability" in shown) is (first == "r0")


# --- victim exclusion: what a cache does anyway

PRESSURE = edit(HARD, "    removed gpu b0,b1 8,9\n    stored gpu d0,d1 8,9\n", "")
OLDER = "    init r0\n    admit r0 need_blocks=2 protected_blocks=0 active_blocks=0 usable_blocks=16\n"
OLDER += "    stored gpu e0,e1 12,13\n    end r0\n"


@pytest.mark.parametrize(
    ("story", "is_shown"),
    [
        (HARD, True),
        (PRESSURE, False),
        (
            edit(
                PRESSURE.replace("    open\n", f"    open\n{OLDER}", 1),
                "    init r5 c\n",
                "    removed gpu e0,e1 12,13\n    init r5 c\n",
            ),
            False,
        ),
        (edit(PRESSURE, "    end r5\n", "    removed gpu b0,b1 8,9\n    end r5\n"), False),
        (edit(PRESSURE, "    end r5\n", "    end r5\n    removed gpu b0,b1 8,9\n"), False),
        (edit(PRESSURE, "    reuse-here c r5\n", "    removed gpu b0,b1 8,9\n    reuse-here c r5\n"), True),
    ],
    ids=["newer", "nothing-went", "older", "older-while-it-runs", "older-than-its-use", "newer-until-its-use"],
)
def test_that_older_blocks_went_does_not_show_that_the_claim_is_no_victim(story: str, is_shown: bool) -> None:
    """A cache that looks at recency alone would do the same; only what was stored after the claim's last use counts."""
    assert ("victim_exclusion" in supported(story)) is is_shown


# --- routes: a binding that binds nothing


def test_a_binding_by_which_no_request_was_served_is_not_shown() -> None:
    """Where every request went elsewhere the binding is a wish; the outcomes were told all the same."""
    story = edit(ROUTED, "    route c r2\n", "    route c r2 worker_id=w9 outcome=moved reused_blocks=0\n")
    story = edit(story, "    route c r3 worker_id=w1\n", "    route c r3 worker_id=w9 outcome=moved reused_blocks=0\n")
    assert "route_binding" in supported(ROUTED)
    assert supported(ROUTED) - supported(story) == {"route_binding"}


# --- refusals that are not carried out


@pytest.mark.parametrize(
    ("old", "new", "codes"),
    [
        ("    end r3 error\n", "    reuse-here c r3\n    end r3 error\n", {"RKV278"}),
        ("    end r3 error\n", "    recompute r3\n    end r3 error\n", {"RKV278"}),
        ("    end r3 error\n", "    end r3 error output_tokens=57\n", {"RKV278"}),
        ("    refuse-request r3", "    reuse-here c r3\n    refuse-request r3", {"RKV218"}),
        ("    refuse-request r3", "    defer-request r3 DEFER\n    refuse-request r3", set()),
        ("    refuse-request r3", "    reuse-here c r3\n    defer-request r3 DEFER\n    refuse-request r3", {"RKV218"}),
    ],
)
def test_a_refused_request_is_not_served_before_or_after(old: str, new: str, codes: set[str]) -> None:
    """What was turned away for lack of room has neither read the claim nor been computed, nor has it an answer."""
    new = new.replace(
        "DEFER",
        "need_blocks=9 protected_blocks=8 usable_blocks=16 shortfall_blocks=1 blocking_claim_ids=c deadline_ns=+9000",
    )
    story = edit(edit(HARD, "    init r3\n", "    init r3 c\n"), old, new)
    if "recompute" in new:
        story = story.replace("    init r3 c\n", "    init r3\n")
    verdict, found = said(story)
    assert found == codes
    assert (verdict is Verdict.CONFORMING) is (not codes)


def test_a_request_refused_after_a_failed_load_does_not_read_the_claim_later() -> None:
    """The scheduler's refusal stands, too."""
    verdict, found = said(edit(FAILURE, "    refused r2 c\n", "    refused r2 c\n    reuse-here c r2\n"))
    assert verdict is Verdict.VIOLATING and "RKV278" in found


# --- numbers that were made to fit


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            "admit r4 need_blocks=8 protected_blocks=8 active_blocks=0 usable_blocks=16",
            "admit r4 need_blocks=18 protected_blocks=8 active_blocks=0 usable_blocks=96",
        ),
        (
            "refuse-request r3 need_blocks=9 protected_blocks=8 usable_blocks=16 shortfall_blocks=1",
            "refuse-request r3 need_blocks=1 protected_blocks=8 usable_blocks=8 shortfall_blocks=1",
        ),
        ("protected_blocks=0 usable_blocks=16\n    admit r1", "protected_blocks=0 usable_blocks=17\n    admit r1"),
    ],
)
def test_one_source_does_not_weigh_against_two_capacities(old: str, new: str) -> None:
    """An admission that does not fit fits when it states a larger cache; which of the numbers is true is unknown."""
    assert said(edit(HARD, old, new)) == (Verdict.INCONCLUSIVE, {"RKV285"})


def test_a_worker_that_is_not_among_those_that_there_are_is_refused() -> None:
    """Worker 3 of 1."""
    assert said(edit(SUCCESS, "    done 0\n", "    done 0 worker=3\n")) == (Verdict.VIOLATING, {"RKV250"})


# --- copies that lie somewhere else

HASHES = "a0,a1,a2,a3,a4,a5,a6,a7"
PLACES = "0,1,2,3,4,5,6,7"


def with_blocks(tier: str, offload_tier: str, *, others: bool = False) -> str:
    """The success story, told with block events."""
    stored = f"    stored {tier} {HASHES} {PLACES}\n"
    copied = f"    stored {offload_tier} {HASHES} {PLACES}\n" + ("    stored host z0 9\n" if others else "")
    story = edit(SUCCESS, "    materialize c r1\n", f"{stored}    materialize c r1 block_hashes={HASHES}\n")
    story = edit(story, "    offload c r1 jobs=0\n", f"{copied}    offload c r1 jobs=0\n")
    story = edit(story, "    init r2 c\n", f"    removed {tier} {HASHES} {PLACES}\n    init r2 c\n")
    return edit(story, "    restore c r2 job=1\n", f"{stored}    restore c r2 job=1\n")


def test_a_claim_is_materialized_where_its_blocks_are() -> None:
    """They lie in another tier, by the block events; the tier that was named never had them."""
    assert said(with_blocks("gpu", "host")) == (Verdict.CONFORMING, set())
    assert said(with_blocks("nvme", "host")) == (Verdict.INCONCLUSIVE, {"RKV253"})


def test_a_claim_is_brought_back_from_where_its_copy_is() -> None:
    """The tier tells of its blocks, and of none of the claim's."""
    assert said(with_blocks("gpu", "host", others=True)) == (Verdict.CONFORMING, set())
    assert said(with_blocks("gpu", "nvme", others=True)) == (Verdict.INCONCLUSIVE, {"RKV253"})


def test_a_claim_is_offloaded_from_where_it_is() -> None:
    """Nothing leaves a tier in which it was not."""
    story = edit(SUCCESS, "    offload c r1 jobs=0\n", "    offload c r1 jobs=0 tier_from=nvme\n")
    assert said(story) == (Verdict.VIOLATING, {"RKV263"})


# --- breaches that contradict nothing

RESTORATION = {"RKV245", "RKV251", "RKV252", "RKV254", "RKV263", "RKV267", "RKV268", "RKV270", "RKV273", "RKV274"}
RESTORATION |= {"RKV277", "RKV279"}
"""How a tier and a restoration are told; only offloadable promises one."""
CAPACITY = {"RKV275", "RKV276", "RKV278", "RKV280", "RKV281", "RKV282", "RKV283", "RKV284", "RKV286"}
"""How requests are weighed and turned away; soft claims turn nobody away, and only hard ones promise it."""
ROUTES = {"RKV294", "RKV295", "RKV296"}
ACCEPTANCE = {"RKV225", "RKV226", "RKV237"}
"""Terms of an acceptance, which soft_priority does not ask for."""


def test_every_breach_of_a_claim_contradicts_an_obligation_of_its_mode() -> None:
    """A violation that no row hears of would leave the row positive by other traces."""
    deaf: dict[str, set[Mode]] = {}
    for rule in RULES:
        if rule.verdict is Verdict.VIOLATING:
            names = set(rule.contradicts)
            deaf[rule.code] = {m for m in Mode if not names & {o.value for o in BUNDLES[m]}} - {Mode.BEST_EFFORT}
    for code in sorted(RESTORATION):
        assert Mode.OFFLOADABLE not in deaf.pop(code), code
    for code in sorted(CAPACITY):
        assert Mode.HARD_PROTECTED not in deaf.pop(code), code
    for code in sorted(ROUTES):
        assert Mode.ROUTED_REUSE not in deaf.pop(code), code
    for code in sorted(ACCEPTANCE):
        assert deaf.pop(code) == {Mode.SOFT_PRIORITY}, code
    assert deaf.pop("RKV262") == {Mode.ROUTED_REUSE}  # no tier promised anything
    assert deaf.pop("RKV290") == {Mode.SOFT_PRIORITY, Mode.ROUTED_REUSE}  # modes in which harm is no violation
    assert {code: modes for code, modes in deaf.items() if modes} == {}


def test_a_loss_that_a_soft_claim_was_not_told_of_contradicts_its_reporting() -> None:
    """The blocks went, and then the claim was let go as if they were there."""
    report = audit(edit(SOFT, "harm c lost_pos=7-8", "release c"))
    assert report.verdict is Verdict.VIOLATING
    against = {i.obligation for i in evidence_of(report) if i.polarity == "contradicts" and i.mode == "soft_priority"}
    assert against & {o.value for o in BUNDLES[Mode.SOFT_PRIORITY]} == {"loss_reporting"}


# --- protection that ends when it is needed


@pytest.mark.parametrize(
    ("ending", "codes"),
    [
        ("release c released_by=tenant reason=owner", set()),
        ("release c released_by=engine:pressure reason=room", {"RKV242"}),
        ("release c released_by=engine:shutdown reason=end", {"RKV242"}),
        ("demote c", {"RKV290"}),
    ],
)
def test_a_hard_claim_does_not_end_because_the_engine_needs_the_room(ending: str, codes: set[str]) -> None:
    """Neither as withdrawn nor as released by the engine, which releases at its end and not before it goes on."""
    story = edit(HARD, "    release c released_by=tenant reason=owner\n", f"    {ending}\n")
    verdict, found = said(story)
    assert found == codes
    assert verdict is (Verdict.VIOLATING if codes else Verdict.CONFORMING)


def test_an_engine_may_release_what_it_holds_at_its_end() -> None:
    """Requests that are under way may still end; none comes in, and no claim is accepted."""
    story = (
        HARD[: HARD.index("    release c")]
        + "    init r6\n    admit r6 need_blocks=1 protected_blocks=8 usable_blocks=16\n"
    )
    story += "    release c released_by=engine:shutdown reason=end\n    end r6 aborted\n    close\n"
    assert said(story) == (Verdict.CONFORMING, set())


def test_an_engine_may_release_a_claim_that_never_came_to_be() -> None:
    """It was accepted and never materialized: nothing was kept, and nothing is taken away."""
    story = """
    open
    init r1 c
    accept c r1 mode=hard_protected
    release c released_by=engine:request reason=request_error
    end r1 aborted
    init r2
    end r2
    close
    """
    assert said(story) == (Verdict.CONFORMING, set())


def test_expiring_claims_are_not_withdrawn_before_their_term() -> None:
    """Their deadline is what was promised; a demotable claim may be withdrawn with notice."""
    expiring = EXPIRING[: EXPIRING.index("    wait")] + "    demote c\n    removed gpu a0,a1 0,1\n    close\n"
    assert said(expiring) == (Verdict.VIOLATING, {"RKV290"})
    assert said(DEMOTABLE) == (Verdict.CONFORMING, set())


def test_a_source_that_only_tells_refusals_shows_no_feasibility_check() -> None:
    """Who was let in without being weighed may have taken any block."""
    story = "\n".join(line for line in HARD.splitlines() if not line.strip().startswith("admit "))
    assert said(story) == (Verdict.INCONCLUSIVE, {"RKV287"})
