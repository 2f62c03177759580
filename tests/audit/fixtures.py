"""For every rule a trace that keeps it, one that breaks it, and one where it cannot be decided.

A case is a conforming story with one edit. The line `!` stands before the event that breaks the rule: it is nothing in
the broken trace, and a gap in seq in the undecidable one. Rules that only ever are inconclusive have no trace that
violates them; there the "violating" trace shows that they do not hide a violation in another source of the same file.
"""

from __future__ import annotations

from typing import NamedTuple

from tests.audit import stories as st


class Case(NamedTuple):
    """Texts in the notation of notation.py."""

    conforming: str
    broken: str
    undecided: str | None = None


def edit(story: str, *changes: tuple[str, str]) -> str:
    """Replace lines of a story; each must be there exactly once (or say so with more of its surroundings)."""
    for old, new in changes:
        assert story.count(old) == 1, (story.count(old), old)
        story = story.replace(old, new)
    return story


VIOLATED_ELSEWHERE = """
    @elsewhere
    open
    init x1 v
    accept v x1 mode=soft_priority
    materialize v x1 1-8
    end x1
    release v
    close
"""

SHORT = """
    open
    init r1 c
    accept c r1 mode=hard_protected
    materialize c r1
    end r1
"""

RESTART = (
    st.STORED
    + """
    release c
    close
    @scheduler/1
    open
    init r2 c
    !
    reuse-here c r2
    end r2
    close
"""
)

SEQUENCE = {
    "RKV200": Case(st.SUCCESS, ""),
    "RKV201": Case(st.SUCCESS, edit(st.SUCCESS, ("    close\n", "    torn\n"))),
    "RKV202": Case(st.SUCCESS, edit(st.SUCCESS, ("    open\n", ""))),
    "RKV203": Case(st.SUCCESS, edit(st.SUCCESS, ("    close\n", ""))),
    "RKV204": Case(st.SUCCESS, edit(st.SUCCESS, ("    end r1\n", "    end r1\n    skip\n"))),
    "RKV205": Case(st.SUCCESS, edit(st.SUCCESS, ("    end r1\n", "    end r1\n    back 3\n"))),
    "RKV206": Case(st.SUCCESS, edit(st.SUCCESS, ("    end r1\n", "    end r1\n    wait -9000\n"))),
    "RKV207": Case(st.SUCCESS, edit(st.SUCCESS, ("    end r1\n", "    end r1\n    open\n"))),
    "RKV208": Case(st.SUCCESS, edit(st.SUCCESS, ("    close\n", "    close\n    note\n"))),
    "RKV209": Case(st.SUCCESS, edit(st.SUCCESS, ("    end r1\n", "    end r1\n    note tick run_id=other\n"))),
}

COVERAGE = {
    "RKV210": Case(st.REJECTED, "open\ninit r1\nend r1\nclose"),
    "RKV211": Case(st.SUCCESS, "open\ncounter\ncounter\nclose"),
    "RKV212": Case(st.FAILURE, "open\ninit r1\nload 1 r1\nfail 1\nend r1 error\nclose"),
    "RKV213": Case(st.SUCCESS, "open\ninit r1\nstore 0 r1\ndone 0\nend r1\nclose"),
    "RKV214": Case(st.REJECTED, edit(st.REJECTED, ("    close\n", "    init r2 d\n    end r2\n    close\n"))),
    "RKV215": Case(st.SUCCESS, edit(st.SUCCESS, ("    close\n", "    init r9\n    close\n"))),
    "RKV216": Case(st.SUCCESS, edit(st.SUCCESS, ("    done 0\n", "    done 0\n    store 5 r1 c\n"))),
    "RKV217": Case(st.SUCCESS, edit(st.SUCCESS, ("    done 0\n", "    done 0\n    admit r9\n"))),
    "RKV218": Case(st.SUCCESS, edit(st.SUCCESS, ("    done 0\n", "    done 0\n    init r1 c\n"))),
    "RKV219": Case(st.SUCCESS, st.STORED + "init r2 c\nend r2\nrelease c\nclose"),
}

ACCEPTANCE = {
    "RKV220": Case(
        st.SUCCESS, edit(st.SUCCESS, ("    open\n", "    open\n    !\n"), ("    accept c r1 mode=offloadable\n", ""))
    ),
    "RKV221": Case(
        RESTART.replace("!\n", "accept c r2 mode=hard_protected\n    materialize c r2\n").replace(
            "    end r2\n", "    end r2\n    release c\n"
        ),
        RESTART,
    ),
    "RKV222": Case(st.SUCCESS, edit(st.SUCCESS, ("    release c\n", "    !\n    release c owner_scope=stranger\n"))),
    "RKV223": Case(
        st.SUCCESS, edit(st.SUCCESS, ("    reuse c r2\n", "    !\n    reuse c r2 cache_identity=cache:2\n"))
    ),
    "RKV224": Case(
        st.SUCCESS,
        edit(st.SUCCESS, ("    init r2 c\n    lookup r2 c\n", "    init r2\n    lookup r2\n    !\n")),
    ),
    "RKV225": Case(
        edit(st.SUCCESS, ("mode=offloadable", "mode=offloadable decision=clipped clipped_from=hard_protected")),
        edit(
            st.SUCCESS, ("    accept c r1 mode=offloadable", "    !\n    accept c r1 mode=offloadable decision=clipped")
        ),
    ),
    "RKV226": Case(
        st.HARD,
        edit(
            SHORT + "release c\nclose",
            ("    accept c r1 mode=hard_protected", "    !\n    accept c r1 mode=hard_protected usable_blocks=4"),
        ),
    ),
    "RKV227": Case(
        st.SUCCESS,
        edit(SHORT + "release c\nclose", ("mode=hard_protected", "mode=hard_protected predicate=half_of_it")),
    ),
    "RKV228": Case(st.SUCCESS, edit(SHORT + "release c\nclose", ("mode=hard_protected", "mode=pinned"))),
}

LIFECYCLE = {
    "RKV230": Case(st.SUCCESS, edit(st.SUCCESS, ("    materialize c r1\n", "    !\n"))),
    "RKV231": Case(st.SUCCESS, edit(st.SUCCESS, ("    release c\n", "    release c\n    !\n    release c\n"))),
    "RKV232": Case(st.SUCCESS, edit(st.SUCCESS, ("    release c\n", ""))),
    "RKV233": Case(st.SUCCESS, st.STORED + st.REQUIRED + "done 1\nend r2 aborted\nclose"),
    "RKV234": Case(
        st.SUCCESS,
        edit(st.SUCCESS, ("    restore c r2 job=1\n", "    !\n    restore c r2 job=1 generation=7\n")),
    ),
    "RKV235": Case(st.SUCCESS, edit(st.SUCCESS, ("    release c\n", "    !\n    release c outcome_claim_id=other\n"))),
}

TERMS = {
    "RKV237": Case(
        st.EXPIRING,
        edit(
            SHORT + "release c\nclose", ("    accept c r1 mode=hard_protected", "    !\n    accept c r1 mode=expiring")
        ),
    ),
    "RKV238": Case(
        st.EXPIRING,
        edit(SHORT, ("mode=hard_protected", "mode=expiring deadline_ns=+9000"))
        + "wait 20000\ninit r2 c\n!\nreuse-here c r2\nend r2\nrelease c\nclose",
    ),
    "RKV239": Case(
        st.EXPIRING,
        edit(SHORT, ("mode=hard_protected", "mode=expiring deadline_ns=1900000"))
        + "!\nexpire c deadline_ns=1900000\nclose",
    ),
    "RKV240": Case(
        st.EXPIRING,
        edit(SHORT, ("mode=hard_protected", "mode=expiring deadline_ns=1900000"))
        + "!\nrenew c revision=0 deadline_ns=1950000\nrelease c\nclose",
    ),
    "RKV241": Case(
        st.EXPIRING,
        edit(SHORT, ("mode=hard_protected", "mode=expiring deadline_ns=+9000"))
        + "wait 20000\n!\nrenew c deadline_ns=1950000\nrelease c\nclose",
    ),
    "RKV242": Case(st.HARD, edit(st.SUCCESS, ("    release c\n", "    !\n    release c released_by=stranger\n"))),
    "RKV243": Case(
        st.EXPIRING,
        edit(SHORT, ("mode=hard_protected", "mode=expiring deadline_ns=+9000"))
        + "wait 20000\ninit r2\n!\n"
        + "refuse-request r2 protected_blocks=8 need_blocks=10 usable_blocks=16 shortfall_blocks=2 "
        + "blocking_claim_ids=c\nend r2 error\nrelease c\nclose",
    ),
}

OFFLOAD = {
    "RKV244": Case(st.SUCCESS, edit(st.SUCCESS, ("    materialize c r1\n", "    !\n    materialize c r1 1-8\n"))),
    "RKV245": Case(
        st.SUCCESS, edit(st.SUCCESS, ("    done 0\n", "    fail 0\n"), ("    offload c", "    !\n    offload c"))
    ),
    "RKV246": Case(
        st.SUCCESS,
        edit(st.SUCCESS, ("    store 0 r1 c\n", "    store 0 r1\n"), ("    offload c", "    !\n    offload c")),
    ),
    "RKV247": Case(
        st.SUCCESS,
        edit(st.SUCCESS, ("    store 0 r1 c\n", "    store 0 r1 c 0-7\n"), ("    offload c", "    !\n    offload c")),
    ),
    "RKV248": Case(st.SUCCESS, edit(st.SUCCESS, ("    done 0\n", "    done 0\n    !\n    done 9\n"))),
    "RKV249": Case(st.TWO_WORKERS, edit(st.SUCCESS, ("    done 0\n", "    done 0\n    !\n    done 0\n"))),
    "RKV250": Case(st.SUCCESS, edit(st.SUCCESS, ("    done 1\n", "    !\n    done 1 owner_scope=stranger\n"))),
    "RKV251": Case(st.SUCCESS, edit(st.SUCCESS, ("    done 1\n", "    !\n    done 1 bytes=0\n"))),
    "RKV252": Case(
        st.WORKER_LOG,
        st.SUCCESS + "@worker0\nopen\ndone 0\ndone 1 bytes=1\nclose",
        st.SUCCESS + "@worker0\nopen\ndone 0\ndone 1\ndone 7\nclose",
    ),
    "RKV253": Case(st.HARD, edit(st.HARD, ("    stored gpu b0,b1 8,9\n", "    stored gpu b0,b1 8,9\n" * 2))),
}

RESTORE = {
    "RKV254": Case(
        st.SUCCESS,
        edit(st.SUCCESS, ("    lookup r2 c\n    require", "    lookup r2 c 0-4\n    !\n    require")),
    ),
    "RKV255": Case(
        st.SUCCESS,
        edit(st.SUCCESS, ("    done 1\n    restore", "    !\n    restore"), ("    reuse c", "    done 1\n    reuse c")),
    ),
    "RKV256": Case(
        st.SUCCESS,
        edit(
            st.SUCCESS,
            ("    restore c r2 job=1\n    reuse c r2\n", "    !\n    reuse c r2\n    restore c r2 job=1\n"),
        ),
    ),
    "RKV257": Case(st.SUCCESS, edit(st.SUCCESS, ("    restore c r2 job=1\n", "    !\n"))),
    "RKV258": Case(
        st.RECOMPUTE,
        edit(st.SUCCESS, ("    restore c r2 job=1\n", "    !\n    recompute r2 c\n    restore c r2 job=1\n")),
    ),
    "RKV259": Case(st.SUCCESS, edit(st.SUCCESS, ("    restore c r2 job=1\n", "    !\n    restore c r2 0-7 job=1\n"))),
    "RKV260": Case(
        st.SUCCESS,
        edit(st.SUCCESS, ("    require c r2\n    load 1 r2 c\n", "    !\n    load 1 r2 c\n    require c r2\n")),
    ),
    "RKV261": Case(st.SUCCESS, edit(st.SUCCESS, ("    reuse c r2\n", ""))),
    "RKV262": Case(st.SUCCESS, st.STORED + st.REQUIRED + "done 1\n!\nend r2\nrelease c\nclose"),
    "RKV263": Case(st.SUCCESS, edit(st.SUCCESS, ("    require c r2\n", "    !\n    require c r2 tier_from=disk\n"))),
}

FAILURE = {
    "RKV264": Case(
        st.FAILURE,
        edit(st.FAILURE, ("    failed c r2 job=1\n    refused r2 c\n", "    !\n")),
    ),
    "RKV265": Case(
        st.TWO_CLAIMS,
        edit(st.FAILURE, ("    failed c r2 job=1\n", "    !\n    failed c r2 job=1 outcome_claim_id=other\n")),
    ),
    "RKV266": Case(
        st.TWO_CLAIMS,
        edit(st.FAILURE, ("    failed c r2 job=1\n", "    !\n    failed c r2 job=1 blocking_claim_ids=c,d\n")),
    ),
    "RKV267": Case(st.FAILURE, edit(st.FAILURE, ("    fail 1\n", "    done 1\n    !\n"))),
    "RKV268": Case(
        st.RECOMPUTE,
        edit(
            st.FAILURE,
            ("mode=offloadable", "mode=offloadable policy=recompute"),
            ("    failed c", "    !\n    failed c"),
        ),
    ),
    "RKV269": Case(
        st.RECOMPUTE,
        edit(st.RECOMPUTE, ("    demote c\n    recompute r2 c\n", "    !\n    recompute r2 c\n    demote c\n")),
    ),
    "RKV270": Case(st.RECOMPUTE, edit(st.RECOMPUTE, ("    recompute r2 c\n", "    !\n"))),
    "RKV271": Case(
        st.FAILURE,
        """
        open
        init r1 c
        accept c r1
        materialize c r1
        end r1
        init r2 c
        offload c jobs=none
        lookup r2 c
        require c r2
        connector-failed c r2 job=null
        connector-refused r2 c
        end r2 error
        release c
        close
        """,
    ),
    "RKV272": Case(st.FAILURE, edit(st.SUCCESS, ("    end r1\n", "    end r1 error\n"))),
}

REFUSAL = {
    "RKV273": Case(st.FAILURE, edit(st.FAILURE, ("    refused r2 c\n", "    !\n"))),
    "RKV274": Case(
        st.FAILURE,
        edit(
            st.FAILURE,
            ("    failed c r2 job=1\n    refused r2 c\n", "    !\n    refused r2 c\n    failed c r2 job=1\n"),
        ),
    ),
    "RKV275": Case(
        st.FAILURE, edit(st.FAILURE, ("    refused r2 c\n", "    !\n    refused r2 c blocking_claim_ids=none\n"))
    ),
    "RKV276": Case(st.FAILURE, edit(st.FAILURE, ("    end r2 error\n", "    !\n"))),
    "RKV277": Case(
        st.FAILURE,
        edit(st.FAILURE, ("    refused r2 c\n    end r2 error\n", "    !\n    end r2 error\n    refused r2 c\n")),
    ),
    "RKV278": Case(st.FAILURE, edit(st.FAILURE, ("    end r2 error\n", "    !\n    end r2 stopped\n"))),
    "RKV279": Case(
        st.FAILURE, edit(st.FAILURE, ("    refused r2 c\n", "    !\n    refused r2 c finish_status=aborted\n"))
    ),
}

_REFUSE = (
    "    refuse-request r3 need_blocks=9 protected_blocks=8 usable_blocks=16 shortfall_blocks=1 blocking_claim_ids=c\n"
)

CAPACITY = {
    "RKV280": Case(
        st.HARD,
        edit(
            st.HARD,
            (
                "    init r2\n    admit r2 need_blocks=8 protected_blocks=8",
                "    init r2\n    !\n    admit r2 need_blocks=9 protected_blocks=8",
            ),
        ),
    ),
    "RKV281": Case(
        st.HARD,
        edit(st.HARD, (_REFUSE, "    !\n" + _REFUSE.replace("need_blocks=9", "need_blocks=8").replace("=1 ", "=0 "))),
    ),
    "RKV282": Case(
        st.HARD, edit(st.HARD, (_REFUSE, "    !\n" + _REFUSE.replace("shortfall_blocks=1", "shortfall_blocks=5")))
    ),
    "RKV283": Case(st.HARD, edit(st.HARD, (_REFUSE, "    !\n" + _REFUSE.replace("claim_ids=c", "claim_ids=none")))),
    "RKV284": Case(st.HARD, edit(st.HARD, (_REFUSE, "    !\n" + _REFUSE.replace("claim_ids=c", "claim_ids=c,zombie")))),
    "RKV285": Case(
        st.HARD,
        edit(
            st.HARD,
            (
                "    init r2\n    admit r2 need_blocks=8 protected_blocks=8",
                "    init r2\n    admit r2 need_blocks=8 protected_blocks=7",
            ),
        ),
    ),
    "RKV286": Case(
        st.DEMOTABLE,
        edit(st.DEMOTABLE, ("    demote c\n", "    !\n"), ("    end r2\n", "    end r2\n    release c\n"))
        .replace("need_blocks=12", "need_blocks=8")
        .replace("    removed gpu a0,a1,a2,a3 0,1,2,3\n", ""),
    ),
    "RKV287": Case(
        st.HARD,
        edit(
            st.HARD,
            (
                "    init r4\n    admit r4 need_blocks=8 protected_blocks=8 active_blocks=0 usable_blocks=16\n",
                "    init r4\n",
            ),
        ),
    ),
}

_RELEASE = "    release c released_by=tenant reason=owner\n"

LOSS = {
    "RKV288": Case(
        st.SOFT,
        edit(st.SOFT, ("    harm c lost_pos=7-8\n", "    !\n")),
        edit(st.SOFT, ("    harm c lost_pos=7-8\n", ""))
        .replace("0,1,2,3,4,5,6,7", "none")
        .replace("removed gpu a7 7", "removed gpu a7"),
    ),
    "RKV289": Case(
        st.HARD,
        edit(
            st.HARD,
            (_RELEASE, "    removed gpu a0 0\n    !\n" + _RELEASE),
            ("    removed gpu a0,a1,a2,a3,a4,a5,a6,a7 0,1,2,3,4,5,6,7\n", ""),
        ),
    ),
    "RKV291": Case(st.SOFT, edit(st.SOFT, ("    harm c lost_pos=7-8\n", "    harm c lost_pos=6-8\n"))),
    "RKV290": Case(st.HARD, edit(st.HARD, (_RELEASE, "    !\n    harm c\n"))),
}

ROUTING = {
    "RKV294": Case(st.ROUTED, edit(st.ROUTED, ("    bind c w0\n", "    !\n"))),
    "RKV295": Case(st.ROUTED, edit(st.ROUTED, ("    route c r2\n", "    !\n    route c r2 worker_epoch=9\n"))),
    "RKV296": Case(st.ROUTED, edit(st.ROUTED, ("    route c r2\n", "    !\n    route c r2 reused_blocks=0\n"))),
}

CASES: dict[str, Case] = {
    **SEQUENCE,
    **COVERAGE,
    **ACCEPTANCE,
    **LIFECYCLE,
    **TERMS,
    **OFFLOAD,
    **RESTORE,
    **FAILURE,
    **REFUSAL,
    **CAPACITY,
    **LOSS,
    **ROUTING,
}


def broken_text(case: Case) -> str:
    """Return the trace that breaks the rule."""
    return "\n".join(line for line in case.broken.splitlines() if line.strip() != "!")


def undecided_text(case: Case) -> str:
    """Return the trace in which the rule cannot be decided: a gap where the broken trace has `!`."""
    if case.undecided is not None:
        return case.undecided
    return "\n".join(line.replace("!", "skip") if line.strip() == "!" else line for line in case.broken.splitlines())
