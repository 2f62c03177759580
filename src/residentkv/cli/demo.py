"""`residentkv demo`: everything once on the reference runtime, from descriptors to verdicts, in seconds."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec

from residentkv.audit.api import audit_file
from residentkv.audit.confirm import write_evidence
from residentkv.audit.model import AuditReport, Verdict
from residentkv.cli.audit import exit_code_of as audit_exit_code
from residentkv.cli.check import check_rows
from residentkv.cli.evidence import read_evidence
from residentkv.cli.litmus import litmus_document, render_litmus
from residentkv.errors import EXIT_PASS, EXIT_UNKNOWN, EXIT_VIOLATED, NoInputError, UsageError
from residentkv.files import is_there
from residentkv.lowering import relation
from residentkv.lowering.checking import CheckedRow, Selection, exit_code_of
from residentkv.lowering.exhibits import TraceItem
from residentkv.report.audits import audit_document
from residentkv.report.documents import check_document, json_text, name_of
from residentkv.report.plain import escape_controls
from residentkv.report.text import CAVEAT, render_audit
from residentkv.report.verdicts import render_check
from residentkv.runtimes.litmus import differences, run_litmus
from residentkv.runtimes.reference.config import Mechanism
from residentkv.runtimes.reference.litmus import ReferenceLitmus
from residentkv.runtimes.reference.workloads import WORKLOADS, play_workload
from residentkv.sources.library import load_library
from residentkv.sources.machine import machine_sources

COLUMNS = 79
_MARK = ".residentkv-demo"
_BROKEN = ("hard_protected", Mechanism.VICTIM_EXCLUSION)


@click.command()
@click.option("--out", default="out/demo", show_default=True, metavar="DIR", help="Where the report goes.")
def demo(out: str) -> int:
    """Check all descriptors, measure the litmus, audit traces of the reference runtime, and judge it by them.

    The folder is written whole or not at all; an earlier report in it is replaced. Exit code: 0 when everything came
    out as it should, 10 when something that should hold is violated, 11 when something is unknown.
    """
    with staged_folder(Path(out)) as folder:
        sections = list(_sections(folder))
        codes = {c for _, _, c in sections}
        code = next(c for c in (EXIT_VIOLATED, EXIT_UNKNOWN, EXIT_PASS) if c in codes)
        text = "\n".join(f"{title}\n{'=' * len(title)}\n{body}" for title, body, _ in sections)
        (folder / "report.txt").write_text(text)
    click.echo(text)
    state = "Everything is as it should be" if code == EXIT_PASS else "NOT as it should be"
    click.echo(f"{state}. Report: {escape_controls(out)}")
    return code


def _sections(folder: Path) -> Iterator[tuple[str, str, int]]:
    """Yield the parts of the report: title, text, exit code; files of a part lie in `folder` when it is yielded."""
    rows = _check(())
    _write(folder / "check.json", check_document(rows, exit_code_of(r.verdict.verdict for r in rows), ()))
    (folder / "check.txt").write_text(_table(rows, explain=True))
    yield "1. Descriptors, each row against what is on this machine", _summary(rows), EXIT_PASS

    litmus = ReferenceLitmus()
    measured = run_litmus(litmus)
    wrong = differences(measured)
    code = EXIT_VIOLATED if wrong else EXIT_PASS
    _write(folder / "litmus.json", litmus_document(litmus.name, measured, wrong, code))
    yield "2. Litmus", render_litmus(litmus.name, measured, wrong), code

    traces = folder / "traces"
    traces.mkdir()
    for workload in WORKLOADS:
        play_workload(workload, traces / f"{workload.name}.jsonl")
    on_disk = {w.name: audit_file(traces / f"{w.name}.jsonl") for w in WORKLOADS}
    name, mechanism = _BROKEN
    broken_trace = folder / "violating" / f"{name}-without-{mechanism.value}.jsonl"
    broken_trace.parent.mkdir()
    play_workload(next(w for w in WORKLOADS if w.name == name), broken_trace, off=frozenset({mechanism}))
    broken_on_disk = audit_file(broken_trace)
    reports = {name: _named_within(folder, report) for name, report in on_disk.items()}
    broken = _named_within(folder, broken_on_disk)
    everything = [*reports.values(), broken]
    _write(folder / "audit.json", audit_document(everything, audit_exit_code(everything)))
    (folder / "audit.txt").write_text("".join(f"{line}\n" for report in everything for line in render_audit(report)))
    as_expected = all(r.verdict is Verdict.CONFORMING for r in reports.values()) and broken.verdict is Verdict.VIOLATING
    told = (
        _audit("A claim is offloaded and restored, twice:", reports["offloadable"]),
        _audit("A load fails; the request is refused in the name of its claim:", reports["offloadable_failure"]),
        _audit(f"The same engine without {mechanism.value}, under pressure:", broken),
        _verdicts(reports),
    )
    yield (
        "3. Audits",
        "\n".join((*told, textwrap.fill(CAVEAT, COLUMNS), "")),
        EXIT_PASS if as_expected else EXIT_VIOLATED,
    )

    write_evidence(folder / "evidence.json", on_disk.values())
    items, notes = read_evidence([str(folder / "evidence.json")])
    with_evidence = [r for r in _check(items, "reference") if r.row.primitive.id == "resident_claims"]
    _write(folder / "reference.json", check_document(with_evidence, _row_code(with_evidence), notes))
    yield (
        "4. The reference runtime, judged by these traces",
        _table(with_evidence, notes=notes),
        _row_code(with_evidence),
    )

    write_evidence(folder / "evidence-violating.json", [broken_on_disk])
    more, _ = read_evidence([str(folder / "evidence-violating.json")])
    both = [r for r in _check((*items, *more), "reference") if r.row.mode.value == name]
    both = [r for r in both if r.row.primitive.id == "resident_claims"]
    lost = both[0].verdict.first_open
    text = (
        f"{name} with all these traces, and the one without {mechanism.value} beside them: "
        f"{both[0].verdict.verdict.value}, because {lost.obligation.value if lost else 'nothing'} is contradicted. "
        "Good traces do not outweigh it."
    )
    rejected = both[0].verdict.verdict is relation.Verdict.REJECTED
    yield (
        "5. And with the violating trace",
        textwrap.fill(text, COLUMNS) + "\n",
        EXIT_PASS if rejected else EXIT_VIOLATED,
    )


def _check(items: Sequence[TraceItem], runtime: str | None = None) -> list[CheckedRow]:
    return check_rows(load_library(runtime), Selection(), machine_sources(), tuple(items), False)


def _row_code(rows: Sequence[CheckedRow]) -> int:
    """Return 0 only when there are rows and all are native_sound."""
    verdicts = {r.verdict.verdict for r in rows}
    if verdicts == {relation.Verdict.NATIVE_SOUND}:
        return EXIT_PASS
    return EXIT_VIOLATED if relation.Verdict.REJECTED in verdicts else EXIT_UNKNOWN


def _summary(rows: Sequence[CheckedRow]) -> str:
    """Count the verdicts of each descriptor; the rows themselves are in check.txt."""
    lines: list[str] = []
    for name in dict.fromkeys(name_of(r) for r in rows):
        counts = Counter(r.verdict.verdict for r in rows if name_of(r) == name)
        told = ", ".join(f"{counts[v]} {v.value}" for v in relation.Verdict if counts[v])
        lines.append(f"{name:<18}{counts.total():>4} rows: {told}")
    lines.append("")
    lines.append(
        textwrap.fill(
            "No traces were given here, so no behaviour is shown. A row whose anchors cannot be read on this machine "
            "is unknown; 'residentkv anchors fetch' gets a package to read. Rows and reasons: check.txt.",
            COLUMNS,
        )
    )
    return "\n".join(lines) + "\n"


def _table(rows: Sequence[CheckedRow], *, explain: bool = False, notes: Sequence[str] = ()) -> str:
    out = io.StringIO()
    render_check(rows, out, explain=explain, notes=notes)
    return out.getvalue()


def _named_within(folder: Path, report: AuditReport) -> AuditReport:
    """Name a trace as the reader of the finished folder finds it."""
    return msgspec.structs.replace(report, path=Path(report.path).relative_to(folder).as_posix())


def _audit(title: str, report: AuditReport) -> str:
    lines = [part for line in render_audit(report) for part in _fit(line)]
    return "\n".join((title, *lines)) + "\n"


def _fit(line: str) -> list[str]:
    return [line] if len(line) <= COLUMNS else textwrap.wrap(line, COLUMNS, subsequent_indent="  ")


def _verdicts(reports: dict[str, AuditReport]) -> str:
    lines = ["All traces of the reference runtime (every claim: audit.txt):"]
    for name, report in reports.items():
        lines.append(f"  {name:<24}{report.events:>5} events {len(report.claims):>3} claims  {report.verdict.value}")
    return "\n".join(lines) + "\n"


def _write(path: Path, document: object) -> None:
    path.write_text(json_text(document) + "\n")


@contextmanager
def staged_folder(named: Path) -> Iterator[Path]:
    """Give a folder to write to that takes the place of the one that is named only when everything in it was written.

    Raises:
        UsageError: it exists and is not an earlier report.
        NoInputError: the folder cannot be made.
    """
    target = Path(os.path.realpath(named))
    is_free = is_there(target) and target.is_dir() and not any(target.iterdir())
    if os.path.lexists(target) and not is_free and not (target / _MARK).exists():
        raise UsageError(f"--out: {named} exists and is no report of 'residentkv demo'; choose another folder")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as e:
        raise NoInputError(f"{named}: cannot be made ({e.strerror or e}), expected a folder to write to") from None
    old = staging.with_name(f"{staging.name}.old")
    try:
        staging.chmod(0o755)
        yield staging
        (staging / _MARK).write_text("written by 'residentkv demo'; replaced by the next one\n")
        if is_there(target):
            target.rename(old)
        staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
