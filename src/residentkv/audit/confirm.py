"""Evidence files on disk: written whole or not at all, and confirmed by auditing their traces again."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from residentkv.audit.api import audit_file
from residentkv.audit.evidence import (
    NOT_EVIDENCE,
    AuditedTrace,
    EvidenceFile,
    EvidenceItem,
    decode_evidence,
    encode_evidence,
    evidence_file,
    evidence_of,
)
from residentkv.audit.model import AuditReport
from residentkv.claims.modes import Mode
from residentkv.errors import InputError, NoInputError, ResidentKVError
from residentkv.files import check_name, check_plain, read_input, replace_file
from residentkv.lowering.depth import Depth
from residentkv.lowering.exhibits import TraceItem
from residentkv.lowering.format import EvidenceKind, Polarity
from residentkv.lowering.obligations import BUNDLES, Obligation
from residentkv.trace.segments import parts_of


def write_evidence(path: str | os.PathLike[str], reports: Iterable[AuditReport]) -> EvidenceFile:
    """Write the evidence of some reports; traces are named relative to the folder of the file.

    Raises:
        UsageError: a report was made with the published gates, or the name of a trace is no text.
        NoInputError: the folder does not exist or cannot be written.
    """
    reports = list(reports)
    target = Path(path)
    folder = Path(os.path.realpath(target)).parent
    evidence = evidence_file(reports, paths=[_named_from(folder, r.path) for r in reports])
    try:
        replace_file(target, encode_evidence(evidence))
    except OSError as e:
        raise NoInputError(
            f"{target}: evidence was not written: {e.strerror or e}; name a folder that exists and can be written"
        ) from None
    return evidence


def _named_from(folder: Path, path: str) -> str:
    return check_name(Path(os.path.relpath(Path(path).resolve(), folder)).as_posix())


def confirm_evidence(path: str | os.PathLike[str]) -> tuple[TraceItem, ...]:
    """Read an evidence file, audit its traces again, and return what this audit says.

    What the file says and the audit does not comes back with `problem` set, so that it counts as evidence that could
    not be verified and never as support.

    Raises:
        NoInputError: there is no such evidence file.
        InputError: it cannot be understood.
    """
    target = Path(path)
    try:
        check_plain(target)
        data = target.read_bytes()
    except OSError as e:
        raise NoInputError(
            f"{target}: cannot read the evidence: {e.strerror or e}; write it with `residentkv audit --evidence-out`"
        ) from None
    evidence = decode_evidence(data, path=str(target))
    out: list[TraceItem] = []
    confirmed: set[EvidenceItem] = set()
    problems: dict[str, str] = {}
    for trace in evidence.traces:
        items, changed, problem = _audit_again(target.parent, trace)
        confirmed.update(() if changed else items)
        for item in items:
            out.extend(_trace_items(item, trace.path, problem if changed else ""))
        if problem:
            problems[trace.sha256] = problem
    paths = {trace.sha256: trace.path for trace in evidence.traces}
    for item in evidence.items:
        if item in confirmed:
            continue
        digest = item.events[0].trace if item.events else ""
        where = paths.get(digest, str(target))
        problem = problems.get(digest) or (
            f"{where}: the audit of this run does not say that it {item.polarity} {item.obligation}"
            if digest in paths
            else f"{target}: {item.polarity} {item.obligation} rests on a trace that the file does not name"
        )
        out.extend(_trace_items(item, where, problem))
    return tuple(out)


def trace_path(folder: Path, name: str) -> str:
    """Return where a trace lies that a file in a folder names; one that is called `-` is not standard input.

    Raises:
        NoInputError: it is not there, or it or a rotated part of it is a device or a pipe, which may never end.
    """
    path = os.fspath(folder / name)
    try:
        with contextlib.suppress(FileNotFoundError):
            check_plain(Path(path))  # first of all, since it may be no name of a file
        path = "./-" if path == "-" else path
        for part in parts_of(path):
            check_plain(Path(part))
    except OSError as e:
        raise NoInputError(f"{path}: cannot be read ({e.strerror or e}), expected a trace; check the path") from None
    return path


def digest_trace(folder: Path, name: str) -> str:
    """Return the sha256 of what lies there now, in hex: of the files of a rotated trace as if they were one.

    Raises:
        NoInputError: see `trace_path`, or a file cannot be read.
    """
    digest = hashlib.sha256()
    for part in parts_of(trace_path(folder, name)):
        digest.update(read_input(Path(part)))
    return digest.hexdigest()


def items_of(report: AuditReport, trace: str) -> tuple[TraceItem, ...]:
    """Return what an audit of this run says, for a trace that is called `trace` in messages.

    Raises:
        UsageError: the report was made with the published gates.
    """
    return tuple(made for item in evidence_of(report) for made in _trace_items(item, trace, ""))


def _audit_again(folder: Path, trace: AuditedTrace) -> tuple[tuple[EvidenceItem, ...], bool, str]:
    """Return what the audit of this run says, whether it is about other bytes, and what is wrong.

    What lies there now instead of the trace supports nothing, and a breach in it leaves a doubt whatever the file says.
    """
    try:
        report = audit_file(trace_path(folder, trace.path))
    except ResidentKVError as e:
        return (), True, f"{trace.path}: the trace cannot be read again: {e}"
    if report.sha256 != trace.sha256:
        problem = f"{trace.path}: the trace changed: sha256 {report.sha256[:16]}..., expected {trace.sha256[:16]}...; "
        return evidence_of(report), True, f"{problem}audit it again"
    problem = ""
    if report.verdict.value != trace.verdict:
        problem = f"{trace.path}: the audit of this run says {report.verdict.value}, the file says {trace.verdict}"
    return evidence_of(report), False, problem


def _trace_items(item: EvidenceItem, trace: str, problem: str) -> Iterable[TraceItem]:
    """Yield the item for its mode, or for every mode that asks for the obligation when no mode was promised."""
    try:
        obligation, depth = Obligation.parse(item.obligation), Depth.parse(item.depth)
        modes = [Mode.parse(item.mode)] if item.mode is not None else [m for m in Mode if obligation in BUNDLES[m]]
    except ResidentKVError as e:
        raise InputError(str(e), path=trace, code=NOT_EVIDENCE.code) from None
    for mode in modes:
        yield TraceItem(
            trace=trace,
            runtime=item.runtime,
            runtime_version=item.runtime_version,
            primitive=item.primitive,
            adapter=item.adapter,
            adapter_version=item.adapter_version or "",
            depth=depth,
            mode=mode,
            obligation=obligation,
            polarity=Polarity.parse(item.polarity),
            kind=EvidenceKind.parse(item.kind),
            note=item.note,
            seqs=tuple((r.source, r.epoch, r.seqs) for r in item.events),
            stands_in=item.stands_in,
            problem=problem,
        )
