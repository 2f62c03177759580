"""Where a routed claim is bound and where its requests were really served (spec sections 4 and 7)."""

from __future__ import annotations

from residentkv.audit.model import Rule

_AFTER_GAP = "after a gap in the same (source, epoch), because a binding may lie in the gap"
_ORDER = ("resident_claim_accepted", "resident_claim_route_bound", "resident_claim_route_outcome")

ROUTE_UNBOUND = Rule(
    code="RKV294",
    slug="route-unbound",
    title="A route outcome of a claim that was bound to no worker",
    checks="that resident_claim_route_bound comes before every route outcome, and that a binding is said once",
    why="a routing score that happened to pick the right worker is not a promise",
    required_order=_ORDER,
    contradicts=("route_binding",),
    inconclusive_when=_AFTER_GAP,
    source="spec section 7 (routing score as binding)",
)
STALE_WORKER = Rule(
    code="RKV295",
    slug="stale-worker",
    title="A request counts as served by a binding to another worker or to an earlier incarnation of it",
    checks="worker_id and worker_epoch of `served_by_binding` against the binding, and that a binding does not go back "
    "to an earlier epoch of the same worker",
    why="a worker that restarted under the same name has none of the blocks",
    required_order=_ORDER,
    contradicts=("route_binding", "route_outcome"),
    inconclusive_when=_AFTER_GAP,
    source="spec section 7 (stale worker id as route outcome); llm-d/llm-d-router#2853",
)
ROUTE_OUTCOME_CONTRADICTS_ITSELF = Rule(
    code="RKV296",
    slug="route-outcome-contradicts-itself",
    title="A route outcome does not fit its own numbers",
    checks="that `served_by_binding` reused as many blocks as the predicate needs, `lost` and `refused` reused none, "
    "`refused` names the worker that the claim is bound to by then, and `moved` another one",
    why="the response says that the binding held, or that it did not, and its numbers say the opposite",
    required_order=_ORDER,
    contradicts=("route_outcome", "scoped_outcome"),
    inconclusive_when="some blocks were reused and too few, or after a gap in the same (source, epoch), because a "
    "binding may lie in the gap",
    source="spec section 4",
)

RULES = (ROUTE_UNBOUND, STALE_WORKER, ROUTE_OUTCOME_CONTRADICTS_ITSELF)
