"""What one admission decision costs beside many open claims. `python -m bench.admission` prints it and writes it down.

Measured is the arbiter that decides in the reference runtime and in vLLM, over the ledger that both keep; no runtime is
started. Each decision is timed alone, between two claims that change, because a change is what a cache would hide.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from bench.audit import NotConforming
from bench.measure import one_core
from bench.report import table, taken_on, write_part
from residentkv.claims.arbiter import Action, Answer, Arbiter, ArbiterPolicy, RequestDecision
from residentkv.claims.ledger import ClaimLedger, ClaimRecord
from residentkv.claims.lifecycle import Step
from residentkv.claims.model import ResidentClaim
from residentkv.claims.modes import Mode
from residentkv.claims.predicates import parse_predicate

GOAL_US: Final = 50.0
BLOCKS: Final = 4
"""Blocks of every claim."""
MODES: Final = (Mode.HARD_PROTECTED, Mode.OFFLOADABLE, Mode.DEMOTABLE, Mode.SOFT_PRIORITY, Mode.BEST_EFFORT)


def make_claim(number: int, mode: Mode) -> ResidentClaim:
    """Return a claim of one of two owners."""
    return ResidentClaim(
        claim_id=f"claim-{number}",
        owner_scope=f"owner-{number % 2}",
        cache_identity="cache:bench",
        object_id=f"kv:{number}",
        token_map_id=f"tokens:{number}",
        predicate=parse_predicate(f"leading_prefix_at_least({BLOCKS})"),
        footprint_blocks=BLOCKS,
        mode=mode,
        priority=number % 7,
        ttl_s=3600.0 if number % 3 == 0 else None,
    )


def fill(claims: int) -> tuple[ClaimLedger, list[ClaimRecord]]:
    """Return a ledger with so many open claims, a fifth of each mode, all of them materialized."""
    ledger = ClaimLedger()
    records = []
    for number in range(claims):
        record = ledger.submit(make_claim(number, MODES[number % len(MODES)]))
        ledger.step(record, Step.ACCEPT, now_ns=number)
        ledger.step(record, Step.MATERIALIZE)
        records.append(record)
    return ledger, records


class Churn:
    """Lets one hard-protected claim go and takes another one in, over and over: nothing may be cached for good."""

    def __init__(self, ledger: ClaimLedger, records: list[ClaimRecord]) -> None:
        self._ledger = ledger
        self._hard = [r for r in records if r.mode is Mode.HARD_PROTECTED]
        self._next = len(records)

    def turn(self) -> None:
        """Make one change."""
        old = self._hard.pop(0)
        self._ledger.step(old, Step.RELEASE)
        self._ledger.forget(old.claim.key)
        record = self._ledger.submit(make_claim(self._next, Mode.HARD_PROTECTED))
        self._ledger.step(record, Step.ACCEPT, now_ns=self._next)
        self._ledger.step(record, Step.MATERIALIZE)
        self._hard.append(record)
        self._next += 1


Decide = Callable[[], RequestDecision | Answer]


def decisions(ledger: ClaimLedger, records: list[ClaimRecord]) -> Iterator[tuple[str, Decide, object]]:
    """Return what is measured: its name, the decision and what it has to answer."""
    protected = ledger.protected_blocks
    roomy = Arbiter(ledger, usable_blocks=protected + 1000, policy=ArbiterPolicy())
    tight = Arbiter(ledger, usable_blocks=protected + 100, policy=ArbiterPolicy(reliefs=()))
    relieving = Arbiter(ledger, usable_blocks=protected + 100, policy=ArbiterPolicy())
    new = make_claim(10**9, Mode.HARD_PROTECTED)
    own = frozenset({records[0].claim.key})
    now = len(records)

    def ask(arbiter: Arbiter, need: int, **more: frozenset[tuple[str, str]]) -> RequestDecision:
        return arbiter.decide_request(need, active_blocks=60, now_ns=now, **more)

    yield "request, fits", lambda: ask(roomy, 70), Action.ADMIT
    yield "request, fits after relief of 8 claims", lambda: ask(relieving, 70), Action.ADMIT
    yield "request, refused (names all that hold)", lambda: ask(tight, 70), Action.PRESERVE_AND_REFUSE
    yield "request of a claim, refused", lambda: ask(tight, 70, own=own), Action.PRESERVE_AND_REFUSE
    yield "claim, accepted", lambda: roomy.decide_claim(new, object_blocks=BLOCKS).verdict, Answer.ACCEPTED
    yield "claim, rejected", lambda: tight.decide_claim(new, object_blocks=BLOCKS, active_blocks=99).verdict, "rejected"


def measure(claims: int, repeat: int) -> list[tuple[str, float, float]]:
    """Return (decision, median, 99th percentile) in microseconds, each of `repeat` single decisions."""
    rows = []
    ledger, records = fill(claims)
    churn = Churn(ledger, records)
    for name, decide, expected in decisions(ledger, records):
        times = []
        gc.collect()
        for _ in range(repeat):
            churn.turn()
            start = time.perf_counter_ns()
            answer = decide()
            times.append(time.perf_counter_ns() - start)
            found = answer.action if isinstance(answer, RequestDecision) else answer
            if found != expected:
                raise NotConforming(f"{name}: found {found}, expected {expected}")
        times.sort()
        rows.append((name, statistics.median(times) / 1e3, times[len(times) * 99 // 100] / 1e3))
    return rows


def main(arguments: list[str]) -> int:
    """Measure, print and write down."""
    parser = argparse.ArgumentParser(prog="python -m bench.admission", description=__doc__)
    parser.add_argument("--claims", type=int, default=10_000, help="open claims (default 10,000)")
    parser.add_argument("--repeat", type=int, default=2000, help="decisions of each kind (default 2000)")
    parser.add_argument("--out", type=Path, default=Path("BENCHMARKS.md"), help="file to write (default BENCHMARKS.md)")
    parser.add_argument("--print-only", action="store_true", help="write no file")
    options = parser.parse_args(arguments)
    with one_core():
        rows = measure(options.claims, options.repeat)
    above = [name for name, median, _ in rows if median > GOAL_US]
    text = "\n".join(
        [
            "## Admission decisions (`make bench`)",
            "",
            taken_on(),
            "",
            f"{options.claims:,} open claims of five modes, {options.repeat:,} single decisions of each kind, a claim "
            f"released and another one accepted before each. Goal: median at most {GOAL_US:.0f} us. "
            + (f"Not reached: {'; '.join(above)}." if above else "Reached by all."),
            "",
            table(
                ("decision", "median us", "99 % us"),
                [(name, f"{median:.1f}", f"{high:.1f}") for name, median, high in rows],
            ),
        ]
    )
    print(text)
    if not options.print_only:
        write_part(options.out, "admission", text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
