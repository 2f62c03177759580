"""Whether the trace says enough to judge claims: something was claimed, and nothing was left without its end."""

from __future__ import annotations

from residentkv.audit.model import Rule, Verdict

_UNKNOWN = Verdict.INCONCLUSIVE

NO_CLAIM = Rule(
    code="RKV210",
    slug="no-claim",
    title="No claim was decided in the trace",
    checks="that at least one claim was accepted, clipped or rejected",
    why="without a claim there is no promise, so nothing was kept and nothing was broken",
    inconclusive_when="always when it is found",
    source="spec section 2: no accepted claim, no harm",
    verdict=_UNKNOWN,
)
GENERIC_COUNTER_ONLY = Rule(
    code="RKV211",
    slug="generic-counter-only",
    title="The trace holds only process-wide counters",
    checks="that there is more than counters, which name no claim, request or block",
    why="a counter that grew does not say whose promise was broken",
    inconclusive_when="always when it is found",
    source="spec section 7",
    verdict=_UNKNOWN,
)
UNCLAIMED_FAILURE = Rule(
    code="RKV212",
    slug="unclaimed-failure",
    title="A load failed and no claim was decided in the trace",
    checks="that a failed load belongs to a claim when the trace is to be evidence about claims",
    why="a failure without a claim is an ordinary error; it shows nothing about how claims fail",
    inconclusive_when="always when it is found",
    source="spec section 7",
    verdict=_UNKNOWN,
)
OFFLOAD_WITHOUT_CLAIM = Rule(
    code="RKV213",
    slug="offload-without-claim",
    title="Blocks were offloaded or loaded and no claim was decided in the trace",
    checks="that transfers belong to a claim when the trace is to be evidence about claims",
    why="ordinary offload promises nothing to anybody",
    inconclusive_when="always when it is found",
    source="spec section 7",
    verdict=_UNKNOWN,
)
CLAIM_UNDECIDED = Rule(
    code="RKV214",
    slug="claim-undecided",
    title="A request named a claim and nobody decided on it",
    checks="that every claim named by a request is accepted, clipped or rejected in the same (source, epoch), and that "
    "a deferred decision is closed",
    why="a request that carries a claim and is served without a word leaves its owner to guess",
    required_order=("request_initialized", "resident_claim_accepted or resident_claim_rejected"),
    inconclusive_when="always when it is found",
    source="spec section 2",
    verdict=_UNKNOWN,
)
REQUEST_UNFINISHED = Rule(
    code="RKV215",
    slug="request-unfinished",
    title="A request has no end",
    checks="that every request that was initialized is terminated before trace_closed",
    why="a request that hangs is neither served nor refused; deadlocks and lost wake-ups look like this",
    required_order=("request_initialized", "active_request_terminated", "trace_closed"),
    inconclusive_when="always when it is found; a request that owed an end after a refusal breaks termination-missing",
    source="spec section 6; vllm-project/vllm#45138, sgl-project/sglang#27024, local-inference-lab/vllm#191",
    verdict=_UNKNOWN,
)
JOB_UNFINISHED = Rule(
    code="RKV216",
    slug="job-unfinished",
    title="A transfer job has no end on some worker",
    checks="that every job that was created is finished on all its workers before trace_closed",
    why="whether the bytes moved is unknown",
    required_order=("offload_job_created", "offload_worker_transfer_finished", "trace_closed"),
    inconclusive_when="always when it is found",
    source="spec section 6",
    verdict=_UNKNOWN,
)
UNKNOWN_REQUEST = Rule(
    code="RKV217",
    slug="unknown-request",
    title="An event names a request that is not known",
    checks="that a request is initialized before, and not terminated before, events that name it",
    why="an event that cannot be joined to a request cannot be told apart from one of another run",
    required_order=("request_initialized", "events of the request", "active_request_terminated"),
    inconclusive_when="always when it is found",
    source="spec section 4 (joinability)",
    verdict=_UNKNOWN,
)
REQUEST_ORDER = Rule(
    code="RKV218",
    slug="request-order",
    title="The events of a request contradict each other",
    checks="that a request is initialized once, admitted at most once, deferred at most once before it is decided",
    why="which of the two events counts is unknown",
    required_order=(
        "request_initialized",
        "active_request_deferred",
        "active_request_admitted or active_request_refused",
        "active_request_terminated",
    ),
    inconclusive_when="always when it is found",
    source="spec section 2",
    verdict=_UNKNOWN,
)
SERVICE_UNEXPLAINED = Rule(
    code="RKV219",
    slug="service-unexplained",
    title="A request of a materialized claim was served and nothing says from what",
    checks="that a request that came after materialization ends with a reuse, a restoration, a recompute with its "
    "outcome, a route outcome or a refusal",
    why="silence is neither a kept promise nor a reported loss",
    required_order=(
        "request_initialized",
        "resident_claim_reused or resident_claim_reuse_after_restore",
        "active_request_terminated",
    ),
    inconclusive_when="always when it is found",
    source="spec section 2 (on_restore_failure)",
    verdict=_UNKNOWN,
)

RULES = (
    NO_CLAIM,
    GENERIC_COUNTER_ONLY,
    UNCLAIMED_FAILURE,
    OFFLOAD_WITHOUT_CLAIM,
    CLAIM_UNDECIDED,
    REQUEST_UNFINISHED,
    JOB_UNFINISHED,
    UNKNOWN_REQUEST,
    REQUEST_ORDER,
    SERVICE_UNEXPLAINED,
)
