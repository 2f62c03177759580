"""The litmus on the reference engine: prompts are served, and what is left is found by serving them again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from residentkv import __version__
from residentkv.claims.arbiter import Answer
from residentkv.errors import ResidentKVError
from residentkv.runtimes.litmus import CapacityCase, CapacityCell, LitmusPolicy, Materialization
from residentkv.runtimes.reference.config import EngineConfig, Mechanism
from residentkv.runtimes.reference.engine import ReferenceEngine, Request, Result

SIZE_TOKENS = 16
SPANS = ((10, 33), (40, 63), (70, 93))
"""Logical block positions of the materialization case: 3 x 23 blocks of 16 tokens are 1,104 tokens."""

_OBJECT_BLOCKS = 96


class ReferenceLitmus:
    """Measures the reference engine.

    Args:
        off: mechanisms that are turned off, to see the litmus fail.
    """

    def __init__(self, off: frozenset[Mechanism] = frozenset()) -> None:
        self._off = off

    @property
    def name(self) -> str:
        """Runtime and version."""
        return f"reference {__version__}"

    def measure_capacity(self, cases: Sequence[CapacityCase]) -> list[CapacityCell]:
        """Serve the resident prompt, the active one, and the resident one again with one token more."""
        return [self._measure(case) for case in cases]

    def _measure(self, case: CapacityCase) -> CapacityCell:
        policy, usable_blocks = case.policy, case.usable_blocks
        resident_blocks, active_blocks = case.resident_blocks, case.active_blocks
        engine = self._engine(usable_blocks)
        resident = make_prompt(resident_blocks, first=0)
        protected = policy is LitmusPolicy.HARD_PROTECTED
        claim = make_claim("resident", f"leading_prefix_at_least({resident_blocks})") if protected else None
        first = engine.serve(Request(request_id="resident", prompt=resident, owner_scope="owner", claim=claim))
        if protected:
            _must_be_accepted(first)
        active = engine.serve(
            Request(
                request_id="active",
                prompt=make_prompt(active_blocks, first=resident_blocks),
                keep_kv=policy is not LitmusPolicy.WRITE_NO_ADMIT,
            )
        )
        left_anywhere, left_leading = engine.count_resident(resident)
        again = engine.serve(Request(request_id="again", prompt=(*resident, 0), owner_scope="owner"))
        if not again.hit_blocks == left_leading <= left_anywhere:
            raise ResidentKVError(
                f"the prompt found {again.hit_blocks} blocks again, the pool has {left_leading} leading ones of "
                f"{left_anywhere}; this is a bug of the engine"
            )
        engine.shutdown()
        return CapacityCell(
            policy=policy,
            usable_blocks=usable_blocks,
            served=active.status == "finished",
            lost_blocks=resident_blocks - again.hit_blocks,
            shortfall_blocks=active.shortfall_blocks,
        )

    def measure_materialization(self) -> Materialization:
        """Protect three spans of an object, let pressure take the rest, and ask what the spans are worth."""
        engine = self._engine(110)
        prompt = make_prompt(_OBJECT_BLOCKS, first=0)
        for n, (start, end) in enumerate(SPANS):
            _must_be_accepted(
                engine.serve(
                    Request(
                        request_id=f"span-{n}",
                        prompt=prompt,
                        owner_scope="owner",
                        max_tokens=1 if n == 0 else 0,
                        claim=make_claim(f"span-{n}", f"contiguous_range({start}, {end - start})"),
                    )
                )
            )
        room = 110 - sum(end - start for start, end in SPANS)
        engine.serve(Request(request_id="pressure", prompt=make_prompt(room, first=_OBJECT_BLOCKS)))
        cached, leading = engine.count_resident(prompt)
        spans = engine.resident_spans(prompt)
        claim = make_claim("leading", "leading_prefix_at_least(1)", mode="best_effort")
        asked = engine.serve(Request(request_id="ask", prompt=prompt, owner_scope="owner", max_tokens=0, claim=claim))
        for record in engine.claims("owner"):
            engine.release("owner", record.claim.claim_id)
        again = engine.serve(Request(request_id="again", prompt=prompt))
        engine.shutdown()
        return Materialization(
            cached_tokens=cached * SIZE_TOKENS,
            spans=len(spans),
            leading_tokens=leading * SIZE_TOKENS,
            holds=asked.decision is not None and asked.decision.verdict is Answer.ACCEPTED,
            reused_tokens=again.hit_blocks * SIZE_TOKENS,
        )

    def _engine(self, usable_blocks: int) -> ReferenceEngine:
        return ReferenceEngine(
            EngineConfig(usable_blocks=usable_blocks, block_size_tokens=SIZE_TOKENS, block_bytes=64, off=self._off)
        )


def make_prompt(blocks: int, *, first: int, size_tokens: int = SIZE_TOKENS) -> tuple[int, ...]:
    """Return a prompt of exactly `blocks` blocks; prompts with disjoint `first` ranges share none."""
    return tuple(range(first * size_tokens, (first + blocks) * size_tokens))


def make_claim(claim_id: str, predicate: str, *, mode: str = "hard_protected", owner: str = "owner") -> dict[str, Any]:
    """Return the wire form of a claim."""
    return {"claim_id": claim_id, "owner_scope": owner, "predicate": predicate, "mode": mode}


def _must_be_accepted(result: Result) -> None:
    decision = result.decision
    if decision is None or decision.verdict is not Answer.ACCEPTED:
        raise ResidentKVError(f"the claim of {result.request_id!r} was not accepted: {decision}")
