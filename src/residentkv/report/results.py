"""What a report says, one judged thing a result: the common ground of SARIF, JUnit XML and GitHub annotations.

Results are made from the JSON documents, so every format says what the JSON says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from residentkv import __version__
from residentkv.claims.modes import NamedChoice
from residentkv.lowering.codes import ANCHOR, CONTRADICTED, MISSING, NOT_SEEN, NOT_VERIFIED, RESEMBLANCE, WORSE
from residentkv.report.places import shipped_name
from residentkv.report.plain import escape_controls
from residentkv.report.shapes import (
    AuditDocument,
    BaselineDocument,
    CheckDocument,
    ClaimDocument,
    FindingDocument,
    RowAnchorDocument,
    RowDocument,
    SuiteDocument,
    TraceDocument,
)
from residentkv.suite.codes import NOT_REFUSED, SURVIVED

_PLACE = re.compile(r"(?P<path>.*):(?P<line>[0-9]+):(?P<column>[0-9]+)", re.DOTALL)
_REFUTED = ("changed", "absent")


class Outcome(NamedChoice):
    """Three values, never two: what is unknown is not a pass."""

    PASS = "pass"
    VIOLATED = "violated"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Site:
    """A place that a result points at.

    Args:
        path: a file, relative or absolute; inside `base` when that is given.
        line: 1-based, 0 when the whole file is meant.
        column: 1-based, 0 when unknown.
        last_line: 0 when it is the same line.
        base: what the path is relative to when it is no file of the user, such as `vllm 0.32.0`.
        event: `source/epoch seq n` in a trace.
        note: what is there.
    """

    path: str
    line: int = 0
    column: int = 0
    last_line: int = 0
    base: str = ""
    event: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """One judged thing: a row, a claim, a trace, a case.

    Args:
        group: the descriptor, trace or suite that it belongs to.
        name: what was judged, unique in its group.
        outcome: how it ended.
        rule: code of the rule that decided; empty for a pass.
        message: why, one line of plain text.
        sites: where, the first one first; empty when there is no file.
        related: where else to look: anchors, evidence.
        identity: what stays the same when lines move.
    """

    group: str
    name: str
    outcome: Outcome
    rule: str
    message: str
    sites: tuple[Site, ...] = ()
    related: tuple[Site, ...] = ()
    identity: tuple[str, ...] = ()


def check_results(document: CheckDocument) -> list[Result]:
    """Return the results of a check; against a baseline only what changed decides."""
    rows = document["rows"]
    if document["baseline"] is not None:
        return list(_baseline_results(document["baseline"], rows))
    return [*(_row_result(row) for row in rows), *_anchor_results(rows)]


def audit_results(document: AuditDocument) -> list[Result]:
    """Return the results of an audit: every finding of a file, a source and a claim, and every claim without one."""
    return [result for trace in document["traces"] for result in _trace_results(trace)]


def suite_results(document: SuiteDocument) -> list[Result]:
    """Return the results of the suite: every case, and the mutants when they were made."""
    results = [
        Result(
            group="suite",
            name=case["slug"],
            outcome=Outcome.PASS if case["passed"] else Outcome.VIOLATED,
            rule="" if case["passed"] else NOT_REFUSED.code,
            message=_line(
                case["title"],
                *(
                    f"{c['what']}: found {c['found']}; expected {c['expected']}"
                    for c in case["checks"]
                    if not c["passed"]
                ),
            ),
            identity=("suite", case["slug"]),
        )
        for case in document["cases"]
    ]
    mutants = document["mutants"]
    for name, operator in sorted(mutants["operators"].items()) if mutants else ():
        survived = operator["survived"]
        results.append(
            Result(
                group="mutants",
                name=name,
                outcome=Outcome.VIOLATED if survived else Outcome.PASS,
                rule=SURVIVED.code if survived else "",
                message=f"{survived} of {operator['made']} mutants survived",
                identity=("mutants", name),
            )
        )
    return results


def site_of(place: str) -> Site:
    """Return the site that `path:line:column` names."""
    match = _PLACE.fullmatch(place)
    path, line, column = (match["path"], int(match["line"]), int(match["column"])) if match else (place, 0, 0)
    if Path(path).is_absolute() and (name := shipped_name(path)):
        return Site(name, line, column, base=f"residentkv {__version__}")
    return Site(path, line, column)


# Rows


def _row_result(row: RowDocument) -> Result:
    rule = _row_rule(row)
    passed = row["verdict"] in ("native_sound", "sound_with_adapter")
    name = f"{row['primitive']} as {row['mode']} at depth {row['depth']}"
    runtime = f"{row['runtime']} {row['version']}"
    return Result(
        group=runtime,
        name=name,
        outcome=Outcome.PASS if passed else Outcome.VIOLATED if row["verdict"] == "rejected" else Outcome.UNKNOWN,
        rule="" if passed else rule,
        message=_line(f"{runtime}: {name}: {row['verdict']} ({row['evidence_class']})", row["sentence"]),
        sites=tuple(site_of(place) for place in row["where"]),
        related=tuple(_anchor_site(anchor) for anchor in row["anchors"] if anchor["anchor"] in _named_anchors(row)),
        identity=(row["runtime"], row["primitive"], row["mode"], row["depth"]),
    )


def _row_rule(row: RowDocument) -> str:
    """Return the rule that decided, in the order in which the relation decides."""
    statuses = {o["status"] for o in row["obligations"]}
    if row["verdict"] == "rejected":
        return CONTRADICTED.code
    if row["basis_problems"]:
        return NOT_SEEN.code
    if "unknown" in statuses:
        return NOT_VERIFIED.code
    if row["related_problems"]:
        return RESEMBLANCE.code
    return MISSING.code


def _named_anchors(row: RowDocument) -> set[str]:
    """Return the anchors that a reader of the verdict looks at: where it lives, and what speaks for or against."""
    names = {anchor["anchor"] for anchor in row["anchors"] if anchor["state"] in _REFUTED}
    for obligation in row["obligations"]:
        if obligation["used"] is not None:
            names.add(obligation["used"]["anchor"])
        names |= {e["anchor"] for e in obligation["contradicted_by"]}
        names |= {e["anchor"] for e in obligation["not_counted"]}
    return names | set(row["related"])


def _anchor_results(rows: Sequence[RowDocument]) -> Iterator[Result]:
    """Yield a result for each anchor that was read and says something else; once, however many rows lean on it."""
    told: set[str] = set()
    for row in rows:
        for anchor in row["anchors"]:
            if anchor["state"] not in _REFUTED or anchor["where"] in told:
                continue
            told.add(anchor["where"])
            yield Result(
                group=f"{row['runtime']} {row['version']}",
                name=f"anchor {anchor['anchor']}",
                outcome=Outcome.UNKNOWN,
                rule=ANCHOR.code,
                message=_line(f"anchor {anchor['anchor']} {anchor['state']}: {anchor['target']}", anchor["sentence"]),
                sites=(site_of(anchor["where"]),),
                related=(_anchor_site(anchor),),
                identity=(row["runtime"], "anchor", anchor["anchor"]),
            )


def _anchor_site(anchor: RowAnchorDocument) -> Site:
    note = f"anchor {anchor['anchor']} {anchor['state'].replace('_', ' ')}: {anchor['target']}"
    if anchor["url"] is not None:
        return Site(anchor["url"], note=note)
    first, _, last = (anchor["lines"] or "0-0").partition("-")
    base = ""
    if anchor["package"] is not None:
        base = f"{anchor['distribution'] or anchor['package']} {anchor['version'] or ''}".strip()
    elif anchor["repository"] is not None:
        base = f"{anchor['repository']} at {anchor['commit']}"
    return Site(anchor["file"] or anchor["anchor"], int(first), last_line=int(last), base=base, note=note)


def _baseline_results(baseline: BaselineDocument, rows: Sequence[RowDocument]) -> Iterator[Result]:
    by_key = {(*r.identity, row["version"]): r for row in rows for r in (_row_result(row),)}
    changed = set()
    for change in baseline["changes"]:
        worse = change["change"] in ("worse", "gone")
        identity = (change["runtime"], change["primitive"], change["mode"], change["depth"])
        now = by_key.get((*identity, change["version_now"] or ""))
        changed.add((*identity, change["version_now"] or ""))
        yield Result(
            group=f"since {baseline['path']}",
            name=f"{change['runtime']} {change['version_now'] or change['version_before']}: {change['primitive']} as "
            f"{change['mode']} at depth {change['depth']}",
            outcome=Outcome.VIOLATED if worse else Outcome.PASS,
            rule=WORSE.code if worse else "",
            message=_line(change["sentence"], now.message if now else ""),
            sites=now.sites if now else (Site(baseline["path"]),),
            related=now.related if now else (),
            identity=identity,
        )
    for key, result in by_key.items():
        if key not in changed:
            yield Result(
                group=f"since {baseline['path']}",
                name=f"{result.group}: {result.name}",
                outcome=Outcome.PASS,
                rule="",
                message=f"as in the baseline: {result.message}",
                sites=result.sites,
                identity=result.identity,
            )


# Traces


def _trace_results(trace: TraceDocument) -> Iterator[Result]:
    path = trace["path"]
    for finding in trace["findings"]:
        yield _finding_result(path, "the file", finding)
    for source in trace["sources"]:
        for finding in source["findings"]:
            yield _finding_result(path, f"{source['source']}/{source['epoch']}", finding)
    for claim in trace["claims"]:
        name = _claim_name(claim)
        if not claim["findings"]:
            yield _plain_result(path, name, claim["verdict"], f"{name}: {claim['verdict']}, {claim['state']}")
        for finding in claim["findings"]:
            yield _finding_result(path, name, finding)
    for gate in trace["gates"]:
        message = f"published gate {gate['name']}" + (
            f": missing {gate['missing_event']}" if not gate["passed"] else ""
        )
        yield _plain_result(path, f"gate {gate['name']}", "inconclusive", _line(message, "never evidence"))
    if not trace["claims"] and not any(s["findings"] for s in trace["sources"]) and not trace["findings"]:
        yield _plain_result(
            path, "the file", trace["verdict"], f"{trace['verdict']}: no claim in {trace['events']} events"
        )


def _claim_name(claim: ClaimDocument) -> str:
    again = f" submission {claim['instance'] + 1}" if claim["instance"] else ""
    return f"claim {claim['claim_id']} of {claim['owner_scope']}{again} in {claim['source']}/{claim['epoch']}"


def _plain_result(path: str, name: str, verdict: str, message: str) -> Result:
    return Result(
        group=path,
        name=_line(name),
        outcome=Outcome.PASS if verdict == "conforming" else _outcome(verdict),
        rule="",
        message=_line(message),
        sites=(Site(path),),
        identity=(path, name),
    )


def _finding_result(path: str, about: str, finding: FindingDocument) -> Result:
    seqs = finding["seqs"]
    events = tuple(Site(path, event=f"{finding['source']}/{finding['epoch']} seq {seq}") for seq in seqs)
    missing = f"missing: {finding['missing_event']}" if finding["missing_event"] else ""
    order = " -> ".join(finding["required_order"])
    return Result(
        group=path,
        name=_line(f"{about}: {finding['slug']}" + (f" at seq {', '.join(map(str, seqs))}" if seqs else "")),
        outcome=_outcome(finding["verdict"]),
        rule=finding["code"],
        message=_line(about, *finding["story"], missing, f"required order: {order}" if order else ""),
        sites=events[:1] or (Site(path),),
        related=events[1:],
        identity=(finding["code"], about),
    )


def _outcome(verdict: str) -> Outcome:
    return Outcome.VIOLATED if verdict == "violating" else Outcome.UNKNOWN


def _line(*parts: str) -> str:
    """Return the parts as one line of text in which nothing can steer whoever shows it."""
    return escape_controls("; ".join(part.rstrip(".;") for part in parts if part))
