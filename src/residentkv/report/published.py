"""The verdicts of the published artifact, as data, and why ours are what they are beside them. Source: spec section 8.

An explanation belongs to a verdict of ours: when that changes, nothing is explained until somebody writes why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from residentkv.claims.modes import Mode
from residentkv.lowering.matrix import Cell, Matrix
from residentkv.lowering.relation import Verdict


@dataclass(frozen=True, slots=True)
class PublishedVerdict:
    """One published verdict.

    Args:
        runtime, mode: which of our rows it is compared with.
        subject: what was judged, in the artifact's terms.
        verdict: what it was called there.
        figures: what it leaned on.
        explanations: for each verdict that our best row may have (None: no row), why it is the same or differs.
    """

    runtime: str
    mode: Mode
    subject: str
    verdict: Verdict
    figures: str
    explanations: Mapping[Verdict | None, str]


PUBLISHED: tuple[PublishedVerdict, ...] = (
    PublishedVerdict(
        runtime="tensorrt_llm",
        mode=Mode.SOFT_PRIORITY,
        subject="TensorRT-LLM, retention priority",
        verdict=Verdict.SOUND_WITH_ADAPTER,
        figures="lower priority lost first in 5 of 5 runs, in both assignments; 13 of 13 claims joinable; 16 of 16 "
        "changes reconstructed from events",
        explanations={
            Verdict.APPROXIMATE: "Our row is read from source only. The order is in the code, but an order under "
            "pressure and a loss that names its claim are behavioural, and only audited runs show them; TensorRT-LLM "
            "needs a GPU, and nothing of it was run for this library. The published figures are no traces that could "
            "be audited again.",
        },
    ),
    PublishedVerdict(
        runtime="sglang",
        mode=Mode.BEST_EFFORT,
        subject="SGLang with HiCache, prefix reuse",
        verdict=Verdict.SOUND_WITH_ADAPTER,
        figures="35 cached tokens for a warm prompt, 0 for a cold one, 0 for a wrong prefix",
        explanations={
            None: "No row yet: there is no descriptor of SGLang in the library.",
            Verdict.UNKNOWN: "Our row lacks evidence that could be verified.",
            Verdict.APPROXIMATE: "The row is observational: identity and joining come from an adapter that reads "
            "events and usage fields, so without the audited traces of a study nothing is shown. With them, see the "
            "section on SGLang.",
            Verdict.SOUND_WITH_ADAPTER: "The same verdict, from our own runs.",
        },
    ),
    PublishedVerdict(
        runtime="vllm",
        mode=Mode.OFFLOADABLE,
        subject="vLLM 0.21 with a patch, offloading",
        verdict=Verdict.SOUND_WITH_ADAPTER,
        figures="30 of 30 successful restores observed, 30 of 30 claimed failures with an outcome, no false positive "
        "in 41 controls",
        explanations={
            Verdict.SOUND_WITH_ADAPTER: "The same verdict, with a plugin on unmodified vLLM 0.32 instead of a patch. "
            "Every obligation but the identity of the object comes from audited traces, of a load that came back and "
            "one that failed; `residentkv witness` writes such traces anew.",
        },
    ),
)

NO_NATIVE = "Nothing was called native_sound"
"""What the artifact says of every runtime."""

_BEST_FIRST = (
    Verdict.NATIVE_SOUND,
    Verdict.SOUND_WITH_ADAPTER,
    Verdict.APPROXIMATE,
    Verdict.UNKNOWN,
    Verdict.REJECTED,
)


def best_cell(matrix: Matrix, runtime: str, mode: Mode) -> Cell | None:
    """Return the row of a runtime and mode that says most, or None when there is none."""
    cells = [c for c in matrix.cells() if c.runtime == runtime and c.mode is mode]
    return min(cells, key=lambda c: (_BEST_FIRST.index(c.verdict), -c.depth.rank), default=None)


def explain(published: PublishedVerdict, matrix: Matrix) -> tuple[Cell | None, str]:
    """Return our row and why it is what it is beside the published one.

    Raises:
        KeyError: our verdict changed and nobody has written why.
    """
    cell = best_cell(matrix, published.runtime, published.mode)
    return cell, published.explanations[None if cell is None else cell.verdict]
