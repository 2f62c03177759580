"""The positive rows and conforming traces that the suite itself brings: the twins of its cases."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from residentkv.files import read_input
from residentkv.suite.case import CASES, Case
from residentkv.suite.mutate import Trace
from residentkv.suite.mutate_row import PositiveRow
from residentkv.suite.run import judged_of
from residentkv.trace.reader import read_trace


def twin_rows(cases: Mapping[str, Case], folder: Path = CASES) -> Iterator[PositiveRow]:
    """Yield the twin of every descriptor case."""
    for slug, case in cases.items():
        if case.descriptor is not None:
            judged = judged_of(folder / slug, case.descriptor, twin=True)
            yield PositiveRow(
                name=f"{slug}/{judged.path.name}",
                raw=read_input(judged.path),
                path=str(judged.path),
                selection=judged.selection,
                sources=judged.sources,
                items=judged.items(),
            )


def twin_traces(cases: Mapping[str, Case], folder: Path = CASES) -> Iterator[tuple[str, Trace]]:
    """Yield the twin of every trace case, and the traces of the twins of descriptor cases, each story once."""
    paths: list[Path] = []
    for slug, case in cases.items():
        if case.trace is not None:
            paths.append(folder / slug / case.trace.twin)
        if case.descriptor is not None:
            paths.extend(judged_of(folder / slug, case.descriptor, twin=True).traces)
    yield from distinct_traces(paths)


def distinct_traces(paths: Iterable[Path]) -> Iterator[tuple[str, Trace]]:
    """Read traces and yield each, by folder and name, unless the same events under another run id came before."""
    seen: set[Trace] = set()
    for path in paths:
        trace = tuple(event for chunk in read_trace(path) for event in chunk)
        story = tuple(msgspec.structs.replace(event, run_id="any") for event in trace)
        if story not in seen:
            seen.add(story)
            yield f"{path.parent.name}/{path.name}", trace
