"""The pages on contract and modes say what the code does: names, reasons, examples and tables are compared."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from residentkv.claims import arbiter
from residentkv.claims.arbiter import Answer
from residentkv.claims.lifecycle import OUTCOMES, IllegalTransition
from residentkv.claims.model import ResidentClaim, decode_claim_request
from residentkv.claims.modes import HOLDS_PRIMARY, LOSS_IS_VIOLATION, Mode
from residentkv.claims.predicates import parse_predicate
from residentkv.lowering.obligations import BUNDLES, CORE
from residentkv.runtimes.reference.config import Mechanism

DOCS = Path(__file__).parents[2] / "docs"
CONTRACT = (DOCS / "contract.md").read_text()
MODES = (DOCS / "modes.md").read_text()


def section(text: str, title: str) -> str:
    return text.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def first_cells(text: str) -> list[str]:
    """The code words in the first column of the tables of a section."""
    rows = re.findall(r"^\| (.+?) \|", text, flags=re.MULTILINE)
    return [word for row in rows for word in re.findall(r"`([^`]+)`", row)]


def test_every_field_of_a_claim_is_in_its_table() -> None:
    """No field without a meaning, and none that does not exist."""
    assert set(first_cells(section(CONTRACT, "The claim"))) == set(ResidentClaim.__struct_fields__)


def test_example_claim_can_be_decoded() -> None:
    """The example is a claim that a runtime would take."""
    (example,) = re.findall(r"```json\n(.*?)```", CONTRACT, flags=re.DOTALL)
    assert decode_claim_request(json.loads(example)["resident_claim"]).mode == "hard_protected"


def test_every_predicate_form_is_shown_and_can_be_read() -> None:
    """The table shows all three kinds; with numbers for the letters each text is canonical."""
    texts = first_cells(section(CONTRACT, "The predicate"))
    read = [parse_predicate(t.replace("start", "3").replace("(n)", "(4)").replace(", n)", ", 4)")) for t in texts]
    assert {p.kind for p in read} == {"leading_prefix_at_least", "contiguous_range", "whole_object"}


def test_every_answer_and_reason_is_named() -> None:
    """The four verdicts, and every reason for which the arbiter rejects or defers."""
    answer = section(CONTRACT, "The answer")
    assert set(first_cells(answer)) == {v.value for v in Answer}
    source = Path(arbiter.__file__).read_text()
    decide = source[source.index("def decide_claim") : source.index("def decide_request")]
    reasons = set(re.findall(r'(?:REJECTED,|reason, detail =|reason =)\s+"([a-z_]+)"', decide))
    assert len(reasons) == 8 and all(f"`{reason}`" in answer for reason in reasons)


def test_every_illegal_transition_is_named() -> None:
    """One row for each error class, by its slug."""
    slugs = {c.slug for c in IllegalTransition.__subclasses__()}
    assert set(first_cells(section(CONTRACT, "The lifecycle"))) == slugs


def test_every_outcome_is_named() -> None:
    """The four outcomes."""
    assert set(first_cells(section(CONTRACT, "Outcomes"))) == {s.value for s in OUTCOMES}


@pytest.mark.parametrize("mode", list(Mode))
def test_mode_has_a_section_with_its_bundle(mode: Mode) -> None:
    """What a mode adds to the core is listed in the order of the bundle."""
    text = section(MODES, mode.value)
    adds = [o.value for o in BUNDLES[mode] if o not in CORE]
    listed = re.findall(r"`([a-z_]+)`", text.partition("Adds ")[2].partition(".\n")[0])
    assert listed == adds


@pytest.mark.parametrize("mode", list(Mode))
def test_table_of_modes_agrees_with_the_code(mode: Mode) -> None:
    """Who protects blocks, and whose unexcused loss breaks the promise."""
    row = next(line for line in MODES.splitlines() if line.startswith(f"| `{mode.value}` |"))
    _, _, protected, _, loss, _ = row.split("|")
    holds = mode in HOLDS_PRIMARY or mode is Mode.OFFLOADABLE
    assert ("its footprint" in protected) is holds
    assert ("breaks the promise" in loss) is (mode in LOSS_IS_VIOLATION)


def test_links_of_both_pages_lead_somewhere() -> None:
    """No page is named that does not exist."""
    for text in (CONTRACT, MODES):
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            assert (DOCS / target).exists(), target


def test_what_the_pages_call_an_obligation_is_one() -> None:
    """The switch of the reference runtime carries the same words."""
    assert {m.value for m in Mechanism} == {o.value for bundle in BUNDLES.values() for o in bundle}
