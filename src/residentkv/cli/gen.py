"""`make gen`: write again everything that is generated from the code; a test fails when the result would differ."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from residentkv.audit import reference as audit_reference
from residentkv.cli.check import check_rows
from residentkv.cli.schema import write_schemas
from residentkv.lowering.checking import Selection
from residentkv.report import reference as rules_reference
from residentkv.report import studies
from residentkv.sources.library import load_library
from residentkv.sources.recorded import OwnSources
from residentkv.suite import reference as suite_reference
from residentkv.trace import reference as trace_reference


def refresh_studies(text: str) -> str:
    """Render the generated parts of docs/studies.md: the library as recorded, whatever is installed here."""
    rows = check_rows(load_library(), Selection(), OwnSources(), (), True)
    return studies.refresh_blocks(text, studies.as_recorded(rows))


PAGES: dict[str, Callable[[str], str]] = {
    "docs/audit.md": audit_reference.refresh_blocks,
    "docs/rules.md": rules_reference.refresh_blocks,
    "docs/studies.md": refresh_studies,
    "docs/suite.md": suite_reference.refresh_blocks,
    "docs/trace-format.md": trace_reference.refresh_blocks,
}
"""Pages with generated blocks and what refreshes them."""


def generate(root: Path) -> dict[Path, bytes]:
    """Return what each generated file has to be, by its path below `root`."""
    out = {Path(page): refresh((root / page).read_text()).encode() for page, refresh in PAGES.items()}
    with tempfile.TemporaryDirectory() as folder:
        for path in write_schemas(Path(folder)):
            out[Path("schemas") / path.name] = path.read_bytes()
    return out


def main() -> int:
    """Write the files that differ and name them."""
    root = Path.cwd()
    for path, content in generate(root).items():
        target = root / path
        if not target.exists() or target.read_bytes() != content:
            target.write_bytes(content)
            print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
