"""`residentkv attest`: sign a statement, and verify one: signature, bytes of the subjects, and verdicts."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from residentkv.audit.api import audit_file
from residentkv.audit.confirm import digest_trace, trace_path
from residentkv.audit.model import Profile
from residentkv.cli.options import check_output, write_report
from residentkv.errors import EXIT_NO_INPUT, EXIT_PASS, EXIT_VIOLATED, InputError, NoInputError, UsageError
from residentkv.files import read_input
from residentkv.report.audits import audit_document
from residentkv.report.codes import NOT_A_STATEMENT, SUBJECT_CHANGED, VERDICT_DIFFERS
from residentkv.report.documents import json_text
from residentkv.report.dsse import open_envelope, sign_payload
from residentkv.report.intoto import PREDICATE_TYPE, STATEMENT_TYPE, Statement
from residentkv.report.places import shipped_path
from residentkv.report.plain import escape_controls
from residentkv.report.shapes import AuditDocument, CheckDocument, TraceDocument


@click.group()
def attest() -> None:
    """Statements about reports: `--format in-toto` writes one, and anybody can verify it."""


@attest.command()
@click.argument("statement", metavar="STATEMENT")
@click.option("--key", required=True, metavar="FILE", help="A private key, PEM without password.")
@click.option("-o", "--output", metavar="FILE", help="Write the envelope to a file, in one step.")
def sign(statement: str, key: str, output: str | None) -> int:
    """Sign a statement: write a DSSE envelope with it (needs the extra `sign`).

    \b
    Example:
      residentkv attest sign STATEMENT --key FILE -o ENVELOPE
    """
    check_output(output, [statement, key])
    raw = read_input(Path(statement))
    _decode_statement(_decode_json(raw, statement), statement)
    write_report(json_text(sign_payload(raw, read_input(Path(key)), key)), output)
    return EXIT_PASS


@attest.command()
@click.argument("file", metavar="FILE")
@click.option("--key", "keys", multiple=True, metavar="FILE", help="A public key, PEM; one of them has to have signed.")
@click.option("--unsigned", is_flag=True, help="Take a bare statement: nobody vouches for it, only bytes are compared.")
@click.option("--root", default=".", show_default=True, metavar="DIR", help="Folder that names of subjects start from.")
def verify(file: str, keys: tuple[str, ...], unsigned: bool, root: str) -> int:
    """Verify a statement: who signed it, that every subject has the bytes that were judged, and the verdicts.

    Traces of an audit are audited again; rows of a check depend on what is installed, so only their descriptors and
    traces are compared: judge them again with check.

    Exit code: 0 when all of it holds, 10 when a signature, a subject or a verdict differs, 3 when a subject is
    missing, 11 when the file is not understood.

    \b
    Examples:
      residentkv attest verify ENVELOPE --key FILE
      residentkv attest verify STATEMENT --unsigned
    """
    if bool(keys) == unsigned:
        raise UsageError("attest verify: give either --key for an envelope, or --unsigned for a bare statement")
    plain = _decode_json(read_input(Path(file)), file)
    lines: list[str] = []
    if "payloadType" in plain:
        if unsigned:
            raise UsageError(f"{file}: found an envelope with --unsigned, expected --key; a signature is there")
        payload, keyid = open_envelope(plain, [Path(k) for k in keys], file)
        plain = _decode_json(payload, file)
        lines.append(f"signed by {keyid}")
    elif not unsigned:
        _decode_statement(plain, file)
        raise UsageError(f"{file}: found a bare statement with --key, expected an envelope; 'residentkv attest sign'")
    else:
        lines.append("not signed: whoever can write this file can say anything in it")
    statement = _decode_statement(plain, file)
    problems, missing = _compare_subjects(statement, Path(root), lines)
    report = statement["predicate"]["report"]
    if report["schema"] == "residentkv.audit/1" and not problems and not missing:
        problems += _judge_again(msgspec.convert(report, AuditDocument), Path(root))
    for line in (*lines, *problems):
        click.echo(escape_controls(line))
    if problems:
        return EXIT_VIOLATED
    if missing:
        return EXIT_NO_INPUT
    click.echo(f"holds for {len(statement['subject'])} subjects; it says nothing about other versions and other runs")
    return EXIT_PASS


def _compare_subjects(statement: Statement, root: Path, lines: list[str]) -> tuple[list[str], int]:
    """Read every subject, tell each, and return what differs and how many are missing."""
    problems: list[str] = []
    missing = 0
    descriptors = _descriptors_of(statement["predicate"]["report"])
    for subject in statement["subject"]:
        name, expected = subject["name"], subject["digest"]["sha256"]
        path = str(shipped_path(name) or name)
        try:
            if expected in descriptors:
                found = hashlib.sha256(read_input(root / path)).hexdigest()
            else:
                found = digest_trace(root, path)
        except NoInputError as e:
            missing += 1
            lines.append(f"missing {name}: {e}; name the folder that it is in with --root")
            continue
        if found == expected:
            lines.append(f"same {name}: sha256 {found[:12]}..")
        else:
            problems.append(
                f"{SUBJECT_CHANGED.code} {name}: sha256 {found[:12]}.., the statement is about {expected[:12]}.."
            )
    return problems, missing


def _judge_again(report: AuditDocument, root: Path) -> list[str]:
    problems: list[str] = []
    for trace in report["traces"]:
        path = trace_path(root, str(shipped_path(trace["path"]) or trace["path"]))
        (again,) = audit_document([audit_file(path, Profile(trace["profile"]))], 0)["traces"]
        if again["sha256"] != trace["sha256"]:
            problems.append(
                f"{SUBJECT_CHANGED.code} {trace['path']}: sha256 {again['sha256'][:12]}.., the report in the statement "
                f"is about {trace['sha256'][:12]}.."
            )
        elif _judged(again) != _judged(trace):
            problems.append(
                f"{VERDICT_DIFFERS.code} {trace['path']}: {_summary(again)} in this run, the statement says "
                f"{_summary(trace)}"
            )
    return problems


def _judged(trace: TraceDocument) -> object:
    """Return what a statement says of a trace: what was read, whose claims, and how each was judged by which rules."""
    claims = [
        (c["owner_scope"], c["claim_id"], c["instance"], c["source"], c["epoch"], c["verdict"]) for c in trace["claims"]
    ]
    return trace["verdict"], trace["events"], sorted(claims), _codes(trace)


def _summary(trace: TraceDocument) -> str:
    counts = Counter(c["verdict"] for c in trace["claims"])
    claims = ", ".join(f"{n} {verdict}" for verdict, n in sorted(counts.items())) or "none"
    return " ".join([f"{trace['verdict']} in {trace['events']} events, claims: {claims}", *_codes(trace)])


def _codes(trace: TraceDocument) -> list[str]:
    groups = [trace["findings"], *(s["findings"] for s in trace["sources"]), *(c["findings"] for c in trace["claims"])]
    return sorted({finding["code"] for group in groups for finding in group})


def _decode_json(raw: bytes, path: str) -> dict[str, Any]:
    try:
        plain = json.loads(raw, object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as e:
        raise _not_a_statement(f"found no JSON object ({e})", path) from None
    if not isinstance(plain, dict):
        raise _not_a_statement("found no JSON object", path)
    return plain


def _decode_statement(plain: Mapping[str, Any], path: str) -> Statement:
    """Check that a statement is one of ours and is about what its report is about.

    Raises:
        InputError: RKV401.
    """
    kind = plain.get("_type"), plain.get("predicateType")
    if kind != (STATEMENT_TYPE, PREDICATE_TYPE):
        raise _not_a_statement(f"found type {kind[0]!r:.80} and predicate type {kind[1]!r:.80}", path)
    try:
        statement = msgspec.convert(plain, Statement)
        report = statement["predicate"]["report"]
        about = list(_digests(report))
    except msgspec.ValidationError as e:
        raise _not_a_statement(f"found another shape ({e})", path) from None
    subjects = {s["digest"]["sha256"] for s in statement["subject"]}
    if not subjects or not about or not set(about) <= subjects:
        raise _not_a_statement("found a report about other bytes than the subjects", path)
    return statement


def _digests(report: dict[str, Any]) -> Iterator[str]:
    """Yield the digests of what a report is about; of a report that is not known there are none."""
    if report.get("schema") == "residentkv.audit/1":
        yield from (trace["sha256"] for trace in msgspec.convert(report, AuditDocument)["traces"])
    elif report.get("schema") == "residentkv.check/1":
        check = msgspec.convert(report, CheckDocument)
        yield from (d["sha256"] for d in check["descriptors"])
        yield from (e["sha256"] for e in check["evidence"])


def _descriptors_of(report: dict[str, Any]) -> set[str]:
    """Return the digests of the descriptors that a report is about: one file each, as opposed to a rotated trace."""
    if report.get("schema") != "residentkv.check/1":
        return set()
    return {d["sha256"] for d in msgspec.convert(report, CheckDocument)["descriptors"]}


def _not_a_statement(found: str, path: str) -> InputError:
    message = f"{found}, expected an in-toto Statement v1 of residentkv; write it with --format in-toto"
    return InputError(message, path=path, code=NOT_A_STATEMENT.code)


def _distinct(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice in one object")
    return found
