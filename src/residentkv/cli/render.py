"""From a JSON document to the text of a machine format."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence

from residentkv.cli.options import Format
from residentkv.errors import UsageError
from residentkv.report.documents import json_text
from residentkv.report.github import github_lines
from residentkv.report.intoto import audit_statement, check_statement
from residentkv.report.junit import junit_text
from residentkv.report.results import Result, audit_results, check_results, suite_results
from residentkv.report.sarif import sarif_document
from residentkv.report.shapes import AuditDocument, CheckDocument, SuiteDocument

SUITE_CAVEAT = "The suite says that known bad lowerings are refused. It does not say that every bad one is."


def render_check_as(form: Format, document: CheckDocument) -> str:
    """Return a check in a machine format."""
    if form is Format.JSON:
        return json_text(document)
    if form is Format.IN_TOTO:
        return json_text(check_statement(document))
    return _render(form, check_results(document), document["exit_code"], document["notes"], document["caveat"])


def render_audit_as(form: Format, document: AuditDocument) -> str:
    """Return an audit in a machine format.

    Raises:
        UsageError: a statement was asked for about something that has no digest.
    """
    if form is Format.JSON:
        return json_text(document)
    if form is Format.IN_TOTO:
        return json_text(audit_statement(document))
    return _render(form, audit_results(document), document["exit_code"], (), document["caveat"])


def render_suite_as(form: Format, document: SuiteDocument) -> str:
    """Return the suite in a machine format."""
    if form is Format.JSON:
        return json_text(document)
    return _render(form, suite_results(document), document["exit_code"], (), SUITE_CAVEAT)


def _render(form: Format, results: Iterable[Result], code: int, notes: Sequence[str], caveat: str) -> str:
    if form is Format.SARIF:
        return json_text(sarif_document(results, code, notes, caveat))
    if form is Format.JUNIT:
        return junit_text(results, datetime.datetime.now(datetime.UTC), notes, caveat)
    if form is Format.GITHUB:
        return "\n".join(github_lines(results, caveat))
    raise UsageError(f"found --format {form}, expected another one for this report")
