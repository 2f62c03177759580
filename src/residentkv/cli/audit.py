"""`residentkv audit`: judge event traces against the contract, fail-closed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from residentkv.audit.api import audit_file
from residentkv.audit.confirm import write_evidence
from residentkv.audit.model import AuditReport, Profile, Verdict
from residentkv.cli.options import Format, check_output, format_options, write_report
from residentkv.cli.render import render_audit_as
from residentkv.errors import EXIT_NO_INPUT, EXIT_PASS, EXIT_UNKNOWN, EXIT_VIOLATED, NoInputError, UsageError
from residentkv.report.audits import audit_document
from residentkv.report.plain import escape_controls
from residentkv.report.text import render_audit, render_caveat
from residentkv.trace.segments import parts_of


@click.command()
@click.argument("traces", nargs=-1, metavar="TRACE...")
@click.option(
    "--profile",
    default=Profile.SPEC.value,
    show_default=True,
    metavar="spec|published",
    help="`published` only applies the published gates, to compare with published figures.",
)
@click.option("--evidence-out", metavar="FILE", help="Write what the traces are evidence for; check audits them again.")
@format_options()
def audit(traces: tuple[str, ...], profile: str, evidence_out: str | None, form: Format, output: str | None) -> int:
    """Judge traces: does what these events show keep the claims that they name?

    Every file is a trace of its own; `-` is standard input. Exit code: 0 when all are conforming, 10 when any is
    violating, 3 when a file is missing, else 11.

    \b
    Example:
      residentkv audit trace.jsonl --evidence-out evidence.json
    """
    chosen = _profile(profile)
    if not traces:
        raise UsageError("audit: found no trace, expected at least one file; `residentkv witness` writes some")
    if evidence_out is not None and chosen is Profile.PUBLISHED:
        raise UsageError(
            "audit: found --evidence-out with --profile published, expected --profile spec; the published gates ask "
            "for less than the contract and are never evidence"
        )
    if evidence_out is not None and "-" in traces:
        raise UsageError("audit: found --evidence-out with standard input, expected files that can be read again")
    read = [part for trace in traces for part in parts_of(trace)]
    check_output(output, read)
    check_output(evidence_out, read)
    if output is not None and evidence_out is not None and Path(output).absolute() == Path(evidence_out).absolute():
        raise UsageError(f"audit: found {output} as report and as evidence, expected two files")
    reports: list[AuditReport] = []
    missing: list[NoInputError] = []
    for trace in traces:
        try:
            reports.append(audit_file(trace, chosen))
        except NoInputError as e:
            missing.append(e)
    code = exit_code_of(reports, missing=bool(missing))
    if form is Format.TEXT:
        lines = [line for report in reports for line in render_audit(report)]
        if chosen is Profile.SPEC and any(r.events for r in reports):
            lines.extend(render_caveat())
        write_report("\n".join(lines), output)
    elif reports or form is not Format.IN_TOTO:  # a statement has to be about something
        write_report(render_audit_as(form, audit_document(reports, code)), output)
    for error in missing:
        click.echo(f"residentkv: error: {escape_controls(str(error))}", err=True)
    if evidence_out is not None and reports and not missing:
        evidence = write_evidence(Path(evidence_out), reports)
        if form is Format.TEXT:
            supports = sum(item.polarity == "supports" for item in evidence.items)
            click.echo(
                f"{escape_controls(evidence_out)}: {supports} supports, {len(evidence.items) - supports} contradictions"
            )
    return code


def _profile(text: str) -> Profile:
    for member in Profile:
        if member.value == text:
            return member
    raise UsageError(f"unknown profile {text[:60]!r}, expected spec or published")


def exit_code_of(reports: Iterable[AuditReport], *, missing: bool = False) -> int:
    """Return the exit code of some reports; a missing file outranks every verdict but a violation."""
    verdicts = [r.verdict for r in reports]
    if Verdict.VIOLATING in verdicts:
        return EXIT_VIOLATED
    if missing or not verdicts:
        return EXIT_NO_INPUT
    return EXIT_PASS if all(v is Verdict.CONFORMING for v in verdicts) else EXIT_UNKNOWN
