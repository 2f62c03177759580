"""A report as an in-toto Statement v1: who says what about which bytes.

The subjects are the descriptors and traces that were judged, by digest; the predicate is the JSON report, unchanged.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Literal, TypedDict

from residentkv import __version__
from residentkv.errors import UsageError
from residentkv.files import check_name
from residentkv.report.places import shipped_name
from residentkv.report.shapes import AuditDocument, CheckDocument, Sha256

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "urn:uuid:fd06caf8-41b8-4fb3-87e1-dac9ec74ff8c"
"""Drawn once for version 1 of the predicate and never used for anything else; version 2 gets another one.

A type URI has to be the author's to give. A name under https or `tag:` needs a domain, which the project does not own,
and `urn:residentkv:` a namespace that is not registered (RFC 8141); `urn:uuid:` is registered and free (RFC 9562).
"""
PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"


class DigestSet(TypedDict):
    """Digests of a subject."""

    sha256: Sha256


class Subject(TypedDict):
    """One file that the statement is about."""

    name: str
    digest: DigestSet


class Tool(TypedDict):
    """What made the report."""

    name: str
    version: str


class Predicate(TypedDict):
    """What is said about the subjects. Unknown keys are to be ignored; keys are only added within v1."""

    tool: Tool
    report: dict[str, Any]


class Statement(TypedDict):
    _type: Literal["https://in-toto.io/Statement/v1"]
    subject: list[Subject]
    predicateType: Literal["urn:uuid:fd06caf8-41b8-4fb3-87e1-dac9ec74ff8c"]
    predicate: Predicate


"""An in-toto Statement v1 with our predicate."""


def check_statement(document: CheckDocument) -> Statement:
    """Return a check as a statement about its descriptors, the traces beside them, and the traces that were given."""
    named = {d["path"]: d["sha256"] for d in document["descriptors"]}
    named |= {e["path"]: e["sha256"] for e in document["evidence"]}
    for row in document["rows"]:
        for anchor in row["anchors"]:
            if anchor["file"] and anchor["sha256"] and not (anchor["package"] or anchor["repository"]):
                descriptor = anchor["where"].rsplit(":", 2)[0]
                named[str(Path(descriptor).parent / anchor["file"])] = anchor["sha256"]
    return _statement(named.items(), dict(document))


def audit_statement(document: AuditDocument) -> Statement:
    """Return an audit as a statement about its traces.

    Raises:
        UsageError: a trace has no digest or no name, so that nobody could look it up again.
    """
    for trace in document["traces"]:
        if not trace["sha256"] or trace["path"] == "-":
            raise UsageError(
                f"{trace['path']}: found no digest of the whole file, expected a readable file; a statement is about "
                "bytes that anybody can look up again"
            )
    return _statement(((t["path"], t["sha256"]) for t in document["traces"]), dict(document))


def _statement(subjects: Iterable[tuple[str, str]], report: dict[str, Any]) -> Statement:
    named = {check_name(shipped_name(path) or path): digest for path, digest in sorted(subjects)}
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in named.items()],
        "predicateType": PREDICATE_TYPE,
        "predicate": {"tool": {"name": "residentkv", "version": __version__}, "report": report},
    }
