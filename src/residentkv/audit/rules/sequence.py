"""Whether the file can be read as a complete, ordered trace at all (spec section 6). All of these are inconclusive."""

from __future__ import annotations

from residentkv.audit.model import Rule, Verdict

_UNKNOWN = Verdict.INCONCLUSIVE

NO_EVENTS = Rule(
    code="RKV200",
    slug="no-events",
    title="The trace holds no event",
    checks="that at least one event was read",
    why="an empty file proves nothing, and a log that was never written looks the same",
    inconclusive_when="always when it is found",
    source="spec section 6",
    verdict=_UNKNOWN,
)
UNREADABLE_TRACE = Rule(
    code="RKV201",
    slug="unreadable-trace",
    title="A line could not be decoded",
    checks="that every line decodes: known schema and event, no unknown, missing or duplicate key, no torn last line",
    why="what the unreadable line said might have been the broken promise",
    inconclusive_when="always when it is found; violations shown by the lines before stay violations",
    source="spec section 6",
    verdict=_UNKNOWN,
)
TRACE_NOT_OPENED = Rule(
    code="RKV202",
    slug="trace-not-opened",
    title="A (source, epoch) does not begin with trace_opened",
    checks="that the first event of every (source, epoch) is trace_opened with seq 0",
    why="without it nobody knows which runtime wrote the events, at which depth, and what stands in for what",
    required_order=("trace_opened", "every other event"),
    inconclusive_when="always when it is found",
    source="spec section 6",
    verdict=_UNKNOWN,
)
TRACE_TRUNCATED = Rule(
    code="RKV203",
    slug="trace-truncated",
    title="A (source, epoch) has no trace_closed",
    checks="that the last event of every (source, epoch) is trace_closed",
    why="the events that are missing at the end might be the failure",
    required_order=("every other event", "trace_closed"),
    inconclusive_when="always when it is found; what did not happen before the end is then not proven",
    source="spec section 6",
    verdict=_UNKNOWN,
)
SEQUENCE_GAP = Rule(
    code="RKV204",
    slug="sequence-gap",
    title="Numbers are missing in seq",
    checks="that seq grows by exactly one within a (source, epoch)",
    why="an outcome, a release or a failure may lie in the gap",
    inconclusive_when="always when it is found; claims open across the gap, and all that is found after it, become "
    "inconclusive; violations before the gap stay violations",
    source="spec section 6",
    verdict=_UNKNOWN,
)
SEQUENCE_REGRESSION = Rule(
    code="RKV205",
    slug="sequence-regression",
    title="seq goes back or repeats",
    checks="that seq never returns to a number that was used in the same (source, epoch)",
    why="a restarted process that counts from 0 again promises nothing of what its predecessor promised",
    inconclusive_when="always when it is found, as for a gap",
    source="spec section 6; llm-d/llm-d-router#2853",
    verdict=_UNKNOWN,
)
CLOCK_BACKWARDS = Rule(
    code="RKV206",
    slug="clock-backwards",
    title="mono_ns goes back",
    checks="that the monotonic clock of a (source, epoch) never goes back",
    why="deadlines cannot be judged, and the lines were not written in the order of their numbers",
    inconclusive_when="always when it is found, as for a gap",
    source="spec section 6",
    verdict=_UNKNOWN,
)
DUPLICATE_EPOCH = Rule(
    code="RKV207",
    slug="duplicate-epoch",
    title="A (source, epoch) was opened twice",
    checks="that trace_opened appears once a (source, epoch)",
    why="two incarnations under one name cannot be told apart, so no promise can be followed through them",
    inconclusive_when="always when it is found, as for a gap",
    source="spec section 6",
    verdict=_UNKNOWN,
)
EVENT_AFTER_CLOSE = Rule(
    code="RKV208",
    slug="event-after-close",
    title="An event follows trace_closed",
    checks="that nothing of a (source, epoch) follows its trace_closed",
    why="the writer said that it was done; what comes later was not part of what it vouched for",
    required_order=("every other event", "trace_closed"),
    inconclusive_when="always when it is found, as for a gap",
    source="spec section 6",
    verdict=_UNKNOWN,
)
MIXED_RUNS = Rule(
    code="RKV209",
    slug="mixed-runs",
    title="Events of more than one run lie in one trace",
    checks="that run_id is the same on every event",
    why="events of another run can complete a story that never happened in this one",
    inconclusive_when="always when it is found, as for a gap",
    source="spec section 6",
    verdict=_UNKNOWN,
)

RULES = (
    NO_EVENTS,
    UNREADABLE_TRACE,
    TRACE_NOT_OPENED,
    TRACE_TRUNCATED,
    SEQUENCE_GAP,
    SEQUENCE_REGRESSION,
    CLOCK_BACKWARDS,
    DUPLICATE_EPOCH,
    EVENT_AFTER_CLOSE,
    MIXED_RUNS,
)
