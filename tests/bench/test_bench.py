from __future__ import annotations

from pathlib import Path

import pytest
from bench.__main__ import main
from bench.audit import NotConforming, audited, measure_small
from bench.corpus import record_runs, record_small, write_long_trace
from bench.report import table, write_part

from bench import admission
from residentkv.audit import Verdict, audit_file
from residentkv.errors import InputError
from residentkv.trace.events import TraceClosed
from residentkv.trace.reader import read_trace


def test_long_trace_is_valid_and_has_the_asked_length(tmp_path: Path) -> None:
    """Renaming and renumbering recorded runs gives one trace that conforms, gapless in each source, all runs in it."""
    traces = record_runs(tmp_path)
    assert len(traces) > 5
    counts = write_long_trace(tmp_path / "long", traces, 8000)
    report = audit_file(tmp_path / "long")
    assert report.verdict is Verdict.CONFORMING
    assert 8000 <= report.events < 8400
    assert {s.source for s in report.sources} == {t.stem for t in traces} == set(counts)
    assert all(s.closed for s in report.sources)
    assert len({(c.source, c.claim_id) for c in report.claims}) == len(report.claims) > 100
    closed = [e for chunk in read_trace(tmp_path / "long") for e in chunk if isinstance(e, TraceClosed)]
    assert {e.source: e.seq + 1 for e in closed} == {s.source: s.events for s in report.sources}


def test_small_traces_are_what_their_row_says(tmp_path: Path) -> None:
    """The refusal has as many events as the published small trace; both are whole runs and conform."""
    refusal, failed_load = record_small(tmp_path)
    assert audited(refusal).events == 21
    assert audited(failed_load).events == 24
    names = {type(e).__name__ for chunk in read_trace(failed_load) for e in chunk}
    assert {"SchedulerRestorationFailed", "SchedulerRequestRefused"} <= names


def test_nothing_is_measured_on_a_trace_that_does_not_conform(tmp_path: Path) -> None:
    """A trace without its close would make the audit cheaper or dearer for the wrong reason."""
    trace = record_small(tmp_path)[0]
    lines = trace.read_bytes().splitlines(keepends=True)
    trace.write_bytes(b"".join(lines[:-1]))
    with pytest.raises(NotConforming, match="inconclusive, expected conforming"):
        measure_small([trace])
    with pytest.raises(InputError, match="expected one source from trace_opened to trace_closed"):
        write_long_trace(tmp_path / "long", [trace], 100)


def test_what_is_printed_is_what_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One text goes to both; it replaces that of an earlier run; parts of other measurements stay."""
    out = tmp_path / "BENCHMARKS.md"
    write_part(out, "other", "kept")
    write_part(out, "audit", "## Audit (`make bench`)\n\nof an earlier run")
    recorded = record_small(tmp_path)[1]
    arguments = ["--events", "1000", "--repeat", "1", "--out", str(out), "--trace", str(recorded)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "| refusal | 21 |" in printed
    assert "| events | audit s | audit us an event | MB above imports |\n|---|---:|---:|---:|\n| 1,0" in printed
    text = out.read_text(encoding="utf-8")
    assert text.count("## Audit (`make bench`)") == 1 and "of an earlier run" not in text
    assert f"<!-- part: audit -->\n{printed}<!-- end of part: audit -->\n" in text
    assert "<!-- part: other -->\nkept\n<!-- end of part: other -->\n" in text
    assert text.startswith("# Benchmarks\n")


def test_table_is_markdown() -> None:
    """Numbers stand to the right."""
    assert table(("a", "b"), [("x", "1")]) == "| a | b |\n|---|---:|\n| x | 1 |"


def test_admission_decisions_are_checked_while_they_are_timed(capsys: pytest.CaptureFixture[str]) -> None:
    """Each kind of decision has its row, and a decision that is not the expected one ends the measurement."""
    assert admission.main(["--claims", "100", "--repeat", "5", "--print-only"]) == 0
    printed = capsys.readouterr().out
    ledger, records = admission.fill(20)
    kinds = [name for name, _, _ in admission.decisions(ledger, records)]
    assert all(f"| {name} |" in printed for name in kinds) and len(kinds) == 6
    with pytest.raises(NotConforming, match="expected admit"):
        admission.measure(5, 1)
