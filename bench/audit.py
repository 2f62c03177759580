"""What an audit costs against typed decoding of the same bytes, and what it costs for one small trace."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from bench.corpus import write_long_trace
from bench.measure import median_ns_of, peak_bytes
from residentkv.audit import AuditReport, Verdict, audit_events, audit_file
from residentkv.errors import ResidentKVError
from residentkv.trace.codec import decode_trace
from residentkv.trace.events import AnyEvent
from residentkv.trace.reader import TraceDigest, read_trace
from residentkv.trace.streams import CHUNK_BYTES, LineChunks

Row = tuple[str, ...]

_SMALL_RUNS: Final = 3000
_IMPORTS: Final = "import sys; from residentkv.audit import audit_file; from residentkv.trace.reader import read_any"
_AUDIT: Final = f"{_IMPORTS}; audit_file(sys.argv[1])"

CHUNKED: Final = "typed decode in chunks, events dropped"
WHOLE: Final = "typed decode of the whole file, events kept"
AUDIT: Final = "audit: read, decode, strictness, SHA-256, rules"


class NotConforming(ResidentKVError):
    """The trace to measure on has to be valid, or the measurement is of something else."""


def audited(path: Path) -> AuditReport:
    """Audit a trace that has to conform.

    Raises:
        NotConforming: it does not.
    """
    report = audit_file(path)
    if report.verdict is not Verdict.CONFORMING:
        story = next((" ".join(f.story) for f in report.all_findings()), "")
        raise NotConforming(f"{path.name}: {report.verdict.value}, expected conforming; {story}")
    return report


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as f:
        yield from LineChunks(iter(lambda: f.read(CHUNK_BYTES), b""))


def measure_long(path: Path, repeat: int) -> tuple[str, float, list[Row]]:
    """Measure on one long trace.

    Returns:
        What the trace is, the audit in times the decode in chunks, and rows of: work, seconds, microseconds an event,
        times the decode in chunks.
    """
    report = audited(path)
    decoder = msgspec.json.Decoder(AnyEvent)

    def read_bytes() -> None:
        for _ in _chunks(path):
            pass

    def decode_dropping() -> None:
        for chunk in _chunks(path):
            decoder.decode_lines(chunk)

    def decode_keeping() -> None:
        decoder.decode_lines(path.read_bytes())

    def read_strictly() -> None:
        for _ in read_trace(path):
            pass

    def read_with_digest() -> None:
        for _ in read_trace(path, digest=TraceDigest()):
            pass

    medians = median_ns_of(
        {
            "read the bytes in chunks": read_bytes,
            CHUNKED: decode_dropping,
            WHOLE: decode_keeping,
            "strict read: decode, no key twice, one event a line": read_strictly,
            "strict read and SHA-256": read_with_digest,
            AUDIT: lambda: audit_file(path),
        },
        repeat,
    )
    rows: list[Row] = [
        (name, f"{ns / 1e9:.2f}", f"{ns / report.events / 1e3:.2f}", f"{ns / medians[CHUNKED]:.2f}")
        for name, ns in medians.items()
    ]
    memory = peak_bytes(_AUDIT, path) - peak_bytes(_IMPORTS)
    about = (
        f"{report.events:,} events, {path.stat().st_size / 1e6:.0f} MB, {len(report.claims):,} claims, "
        f"{len(report.sources)} sources, all conforming. Audit against {CHUNKED}: "
        f"{medians[AUDIT] / medians[CHUNKED]:.2f}; against {WHOLE}: {medians[AUDIT] / medians[WHOLE]:.2f}. "
        f"Peak memory of the audit above that of its imports: {memory / 1e6:.0f} MB."
    )
    return about, medians[AUDIT] / medians[CHUNKED], rows


def measure_scaling(folder: Path, traces: Sequence[Path], lengths: Sequence[int], repeat: int) -> list[Row]:
    """Measure the audit on traces of several lengths; rows of: events, seconds, microseconds an event, megabytes.

    Memory is the peak above that of the imports.
    """
    paths = [folder / f"long-{length}.jsonl" for length in lengths]
    for path, length in zip(paths, lengths, strict=True):
        make_long(path, traces, length)
    events = {path.name: audited(path).events for path in paths}
    medians = median_ns_of({path.name: lambda path=path: audit_file(path) for path in paths}, repeat)  # type: ignore[misc]
    imports = peak_bytes(_IMPORTS)
    return [
        (
            f"{events[path.name]:,}",
            f"{medians[path.name] / 1e9:.2f}",
            f"{medians[path.name] / events[path.name] / 1e3:.2f}",
            f"{max(0, peak_bytes(_AUDIT, path) - imports) / 1e6:.0f}",
        )
        for path in paths
    ]


def measure_small(paths: Sequence[Path]) -> list[Row]:
    """Measure on small traces in memory; rows of: trace, events, microseconds from events, and from bytes."""
    rows: list[Row] = []
    for path in paths:
        report = audited(path)
        data = path.read_bytes()
        events = decode_trace(data)
        medians = median_ns_of(
            {
                "events": lambda events=events: audit_events([events]),  # type: ignore[misc]
                "bytes": lambda data=data: audit_events([decode_trace(data)]),  # type: ignore[misc]
            },
            _SMALL_RUNS,
            collect=False,
        )
        rows.append((path.stem, f"{report.events}", f"{medians['events'] / 1e3:.1f}", f"{medians['bytes'] / 1e3:.1f}"))
    return rows


def make_long(path: Path, traces: Sequence[Path], events: int) -> str:
    """Write the long trace and say what it is made of."""
    counts = write_long_trace(path, traces, events)
    return ", ".join(f"{name} x {count:,}" for name, count in counts.items())
