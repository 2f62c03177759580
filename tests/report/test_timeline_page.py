"""The timeline: every event on its lane, bands and attempts as the events say, findings at the events they name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from residentkv.cli.main import main
from tests.report import hostile
from tests.report.test_matrix_page import Page

TRACES = Path(__file__).parent.parent / "traces"
CASES = Path(__file__).parents[2] / "src" / "residentkv" / "suite" / "cases"


def write_page(folder: Path, trace: Path) -> tuple[int, str, dict[str, Any]]:
    """Run `residentkv report timeline`; return its exit code, the page and the data in it."""
    code = main(["report", "timeline", str(trace), "-o", str(folder / "page.html")])
    text = (folder / "page.html").read_text()
    return code, text, json.loads(text.split('id="data">')[1].split("</script>")[0])


def test_every_event_is_on_one_lane(tmp_path: Path) -> None:
    """As many events as the file has lines, each with its number, and each on a lane that exists."""
    trace = TRACES / "vllm" / "multi_claim_targeted_failure.jsonl"
    code, _, data = write_page(tmp_path, trace)
    lines = [json.loads(line) for line in trace.read_text().splitlines()]
    events = data["events"]
    assert code == 0
    assert events["q"] == [line["seq"] for line in lines]
    assert [data["kinds"][k]["name"] for k in events["k"]] == [line["event"] for line in lines]
    assert len(data["claims"]) == 3
    for lane, number in {"c": "claims", "r": "requests", "s": "sources"}.items():
        assert all(0 <= at < len(data[number]) for at, on in zip(events[lane], events["l"], strict=True) if on == lane)


def test_a_retried_restoration_is_two_attempts_and_bands_follow_the_tier(tmp_path: Path) -> None:
    """The failed attempt and the one that restored are intervals of their own; the band names the tier in between."""
    _, _, data = write_page(tmp_path, TRACES / "reference" / "offloadable_retry.jsonl")
    claim = data["claims"][0]
    assert [attempt[2] for attempt in claim["restores"]] == ["failed", "restored"]
    for first, last, *_ in claim["restores"]:
        assert first < last
    names = [name for _, _, _, name in claim["bands"]]
    assert names[0] == "accepted"
    assert names.count("restoring") == 2
    assert {"not restored", "offload", "primary"} <= set(names)
    ends = [last for _, last, _, _ in claim["bands"]]
    assert None not in ends


def test_a_violation_has_its_story_order_and_event(tmp_path: Path) -> None:
    """The story, the order that was required and a link to the event stand in the page, before any script runs."""
    code, text, data = write_page(tmp_path, CASES / "failure-smeared-over-two-claims" / "trace.jsonl")
    page = Page(text)
    assert code == 10
    assert data["findings"][0]["events"] == [20]
    assert data["claims"][data["findings"][0]["claim"]]["verdict"] == "violating"
    for words in ("RKV266", "is the failure of claim a and also names b.", "scheduler_active_request_refused"):
        assert words in page.text
    assert ("href", "#event-20") in page.attributes


def test_a_torn_trace_shows_what_was_read_and_is_inconclusive(tmp_path: Path) -> None:
    """Events before the torn line are drawn, the finding says where it tears, and the exit code is that of audit."""
    whole = (TRACES / "vllm" / "success_path.jsonl").read_text()
    trace = tmp_path / "torn.jsonl"
    trace.write_text(whole[:-40])
    code, text, data = write_page(tmp_path, trace)
    assert code == main(["audit", str(trace)]) == 11
    assert len(data["events"]["q"]) == len(whole.splitlines()) - 1
    assert "inconclusive" in Page(text).text


def test_hostile_names_in_a_trace_are_text(tmp_path: Path) -> None:
    """Names cannot end the data element, no control or direction character survives, and the audit is as before."""
    code, text, data = write_page(tmp_path, hostile.write_trace(tmp_path / "hostile.jsonl"))
    page = Page(text)
    assert code == 0
    assert page.tags.count("script") == 2
    assert "img" not in page.tags
    found = (
        {c["id"] for c in data["claims"]} | {c["owner"] for c in data["claims"]} | {r["id"] for r in data["requests"]}
    )
    for name in hostile.NAMES:
        assert hostile.SHOWN.get(name, name) in found, name[:20]
    assert not [c for c in text if not c.isprintable() and c not in "\n"]
