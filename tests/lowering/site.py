"""A small package on disk and a descriptor about it, for tests that need real files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from residentkv.cli.main import main

POOL = '''"""Pool."""

LIMIT = 7


class Pool:
    """Blocks."""

    size: int = 3

    def evict(self):
        """Least recently used first."""
        return min(self.blocks)

    @property
    def free(self):
        return 0

    @free.setter
    def free(self, value):
        pass


@staticmethod
def accept(claim):
    return True
'''

HEAD = """\
# A descriptor for tests.
schema: residentkv.descriptor/1
runtime: somertime
version: "1.4"
title: Some runtime
package: {name: somertime, versions: ">=1.4,<1.5", distributions: [somertime, somertime-cpu]}
anchors:
  evict:  # the victim
    type: package
    package: somertime
    file: somertime/pool.py
    symbol: Pool.evict
  accept: {type: package, package: somertime, file: somertime/pool.py, symbol: accept}
  limit:
    type: package
    package: somertime
    file: somertime/pool.py
    lines: 3-3

"""

BODY = """\
primitives:
  - id: lru
    title: LRU
    summary: Blocks stay until others need the space.
    where: [evict]
    evidence:
      - {obligation: victim_exclusion, polarity: contradicts, kind: source, anchor: evict, note: oldest goes first}
      - {obligation: claim_identity, polarity: supports, kind: source, anchor: accept, note: named}
      - {obligation: cache_identity, polarity: supports, kind: source, anchor: accept, note: named}
      - {obligation: object_identity, polarity: supports, kind: source, anchor: accept, note: named}
      - {obligation: joinability, polarity: supports, kind: source, anchor: limit, note: named}
    rows:
      - {mode: best_effort, why: What it is.}
      - {mode: hard_protected, why: Often taken for it.}
      - {mode: soft_priority, related: [limit]}
"""


@dataclass
class Site:
    """A site-packages folder with one package, and a descriptor with pinned anchors."""

    folder: Path
    descriptor: Path

    @property
    def pool(self) -> Path:
        """The file that the anchors are in."""
        return self.folder / "somertime" / "pool.py"

    def run(self, *arguments: str) -> int:
        """Run `residentkv` on this descriptor and this folder only."""
        return main([*arguments, "--descriptor", str(self.descriptor), "--site-packages", str(self.folder)])


def install(folder: Path, version: str = "1.4.2", name: str = "somertime-cpu", pool: str = POOL) -> None:
    """Put the package into a site-packages folder as an installer would."""
    package = folder / "somertime"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('the audited package was imported')\n")
    (package / "pool.py").write_text(pool)
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text("somertime/__init__.py,,\nsomertime/pool.py,sha256=x,100\n")


def build_site(tmp_path: Path) -> Site:
    """Make a package, a descriptor, and pin its anchors with `anchors add --missing`."""
    folder = tmp_path / "site-packages"
    install(folder)
    descriptor = tmp_path / "somertime.yaml"
    descriptor.write_text(HEAD + BODY)
    site = Site(folder, descriptor)
    assert site.run("anchors", "add", "--missing") == 0
    return site
