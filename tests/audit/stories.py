"""The conforming stories that tests start from; each is a whole trace in the notation of notation.py."""

from __future__ import annotations

STORED = """
    open
    init r1 c
    accept c r1 mode=offloadable
    store 0 r1 c
    done 0
    materialize c r1
    offload c r1 jobs=0
    end r1
"""

REQUIRED = """
    init r2 c
    lookup r2 c
    require c r2
    load 1 r2 c
"""

SUCCESS = (
    STORED
    + REQUIRED
    + """
    done 1
    restore c r2 job=1
    reuse c r2
    end r2
    release c
    close
"""
)

FAILURE = (
    STORED
    + REQUIRED
    + """
    fail 1
    failed c r2 job=1
    refused r2 c
    end r2 error
    release c
    close
"""
)

RECOMPUTE = (
    STORED.replace("mode=offloadable", "mode=offloadable policy=recompute")
    + REQUIRED
    + """
    fail 1
    failed c r2 job=1 policy=recompute
    demote c
    recompute r2 c
    end r2
    close
"""
)

RETRY = (
    STORED
    + REQUIRED
    + """
    fail 1
    failed c r2 job=1 policy=retry
    offload c r2 jobs=0
    require c r2
    load 2 r2 c
    done 2
    restore c r2 job=2
    reuse c r2
    end r2
    release c
    close
"""
)

SUCCESS_THEN_FAILURE = (
    STORED
    + REQUIRED
    + """
    done 1
    restore c r2 job=1
    reuse c r2
    end r2
    offload c jobs=0
    init r3 c
    lookup r3 c
    require c r3
    load 2 r3 c
    fail 2
    failed c r3 job=2
    refused r3 c
    end r3 error
    release c
    close
"""
)

HARD = """
    open
    init r1 c
    accept c r1 mode=hard_protected footprint=8 protected_blocks=0 usable_blocks=16
    admit r1 need_blocks=0 protected_blocks=8 active_blocks=0 usable_blocks=16
    stored gpu a0,a1,a2,a3,a4,a5,a6,a7 0,1,2,3,4,5,6,7
    materialize c r1 block_hashes=a0,a1,a2,a3,a4,a5,a6,a7
    end r1
    init r2
    admit r2 need_blocks=8 protected_blocks=8 active_blocks=0 usable_blocks=16
    stored gpu b0,b1 8,9
    end r2
    init r3
    refuse-request r3 need_blocks=9 protected_blocks=8 usable_blocks=16 shortfall_blocks=1 blocking_claim_ids=c
    end r3 error
    init r4
    admit r4 need_blocks=8 protected_blocks=8 active_blocks=0 usable_blocks=16
    removed gpu b0,b1 8,9
    stored gpu d0,d1 8,9
    end r4
    init r5 c
    admit r5 need_blocks=0 protected_blocks=8 active_blocks=0 usable_blocks=16
    reuse-here c r5
    end r5
    release c released_by=tenant reason=owner
    init r6
    admit r6 need_blocks=16 protected_blocks=0 active_blocks=0 usable_blocks=16
    removed gpu a0,a1,a2,a3,a4,a5,a6,a7 0,1,2,3,4,5,6,7
    end r6
    close
"""

EXPIRING = """
    open
    init r1 c
    accept c r1 mode=expiring ttl_s=0.00002 deadline_ns=+20000 protected_blocks=0 usable_blocks=16
    stored gpu a0,a1,a2,a3,a4,a5,a6,a7 0,1,2,3,4,5,6,7
    materialize c r1 block_hashes=a0,a1,a2,a3,a4,a5,a6,a7
    end r1
    init r2 c
    reuse-here c r2
    end r2
    renew c deadline_ns=+30000
    wait 40000
    expire c deadline_ns=1040000
    removed gpu a0,a1 0,1
    close
"""

DEMOTABLE = """
    open
    init r1 c
    accept c r1 mode=demotable protected_blocks=0 usable_blocks=16
    admit r1 need_blocks=0 protected_blocks=8 usable_blocks=16
    stored gpu a0,a1,a2,a3,a4,a5,a6,a7 0,1,2,3,4,5,6,7
    materialize c r1 block_hashes=a0,a1,a2,a3,a4,a5,a6,a7
    end r1
    init r2
    demote c
    admit r2 need_blocks=12 protected_blocks=8 active_blocks=0 usable_blocks=16 actions=demote:c
    removed gpu a0,a1,a2,a3 0,1,2,3
    end r2
    close
"""

SOFT = """
    open
    init r1 c
    accept c r1 mode=soft_priority
    stored gpu a0,a1,a2,a3,a4,a5,a6,a7 0,1,2,3,4,5,6,7
    materialize c r1 block_hashes=a0,a1,a2,a3,a4,a5,a6,a7
    end r1
    init r2
    removed gpu a7 7
    harm c lost_pos=7-8
    end r2
    close
"""

ROUTED = """
    open
    init r1 c
    accept c r1 mode=routed_reuse
    bind c w0
    materialize c r1
    end r1
    init r2 c
    route c r2
    end r2
    bind c w1
    init r3 c
    route c r3 worker_id=w1
    end r3
    init r4 c
    route c r4 worker_id=w2 outcome=moved reused_blocks=0
    end r4
    release c
    close
"""

REJECTED = """
    open
    init r1 c
    reject c r1
    end r1
    close
"""

TWO_CLAIMS = """
    open
    init r1 c
    accept c r1
    store 0 r1 c
    done 0
    materialize c r1
    offload c r1 jobs=0
    end r1
    init q1 d
    accept d q1
    store 1 q1 d
    done 1
    materialize d q1
    offload d q1 jobs=1
    end q1
    init r2 c
    lookup r2 c
    init q2 d
    lookup q2 d
    require c r2
    load 2 r2 c
    require d q2
    load 3 q2 d
    fail 2
    done 3
    failed c r2 job=2
    refused r2 c
    end r2 error
    restore d q2 job=3
    reuse d q2
    end q2
    release c
    release d
    close
"""

TWO_WORKERS = (
    STORED.replace("done 0", "done 0 worker=0 workers_total=2\n    done 0 worker=1 workers_total=2")
    + REQUIRED
    + """
    done 1 worker=1 workers_total=2
    done 1 worker=0 workers_total=2
    restore c r2 job=1
    reuse c r2
    end r2
    release c
    close
"""
)

CONFORMING = {
    "success": SUCCESS,
    "failure": FAILURE,
    "recompute": RECOMPUTE,
    "retry": RETRY,
    "success_then_failure": SUCCESS_THEN_FAILURE,
    "hard": HARD,
    "expiring": EXPIRING,
    "demotable": DEMOTABLE,
    "soft": SOFT,
    "routed": ROUTED,
    "rejected": REJECTED,
    "two_claims": TWO_CLAIMS,
    "two_workers": TWO_WORKERS,
}

WORKER_LOG = (
    SUCCESS
    + """
    @worker0
    open
    done 0
    done 1
    close
"""
)

CONFORMING["worker_log"] = WORKER_LOG
