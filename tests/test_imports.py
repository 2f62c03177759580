"""Imports go one way, and only the folder of a runtime imports that runtime."""

from __future__ import annotations

import ast
from pathlib import Path

import residentkv

ROOT = Path(residentkv.__file__).parent
DATA = Path("suite", "cases")
"""Sources of made-up runtimes that descriptors of the suite anchor into; nothing imports them."""

ALLOWED = {
    "errors": set(),
    "files": set(),
    "environments": set(),
    "claims": set(),
    "trace": {"claims"},
    "lowering": {"claims"},
    "sources": {"lowering"},
    "audit": {"claims", "trace", "lowering"},
    "suite": {"claims", "trace", "lowering", "audit", "sources"},
    "report": {"claims", "trace", "lowering", "audit", "suite"},
    "server": {"claims", "trace"},
    "runtimes": {"claims", "trace", "server"},
    "witness": {"claims", "trace", "audit", "report", "sources", "lowering", "runtimes"},
}
"""What each part may import besides itself; `cli` may import everything and nobody imports `cli`."""

HEAVY = {"vllm", "torch", "transformers", "tensorrt_llm", "sglang", "dynamo", "kvcr"}
HOSTS = {("runtimes", name) for name in ("vllm", "sglang", "dynamo", "kvcr")}
"""The folders whose modules run inside the environment of a runtime and may import it."""


def imports_of(path: Path) -> set[str]:
    """All modules a file imports, at any depth of the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
            names |= {f"{node.module}.{a.name}" for a in node.names}
    return names


def part_of(path: Path) -> str:
    rel = path.relative_to(ROOT)
    return rel.parts[0] if len(rel.parts) > 1 else rel.stem


BASE = {"errors", "files", "environments"}
"""What everybody may import."""


def offences(files: list[Path]) -> list[str]:
    out = []
    for path in files:
        part = part_of(path)
        for name in sorted(imports_of(path)):
            top = name.split(".")[0]
            if top in HEAVY and path.relative_to(ROOT).parts[:2] not in HOSTS:
                out.append(f"{path.relative_to(ROOT)} imports {name}")
            if top != "residentkv" or name == "residentkv" or part in ("cli", "__init__"):
                continue
            other = name.split(".")[1]
            known = other in ALLOWED or other == "cli"
            if known and other != part and other not in ALLOWED[part] | BASE:
                out.append(f"{path.relative_to(ROOT)} imports {name}")
    return out


def test_imports_go_one_way():
    """No part imports a part that the table does not allow."""
    assert offences(sorted(ROOT.rglob("*.py"))) == []


def test_an_import_the_wrong_way_is_seen(tmp_path, monkeypatch):
    """The walk itself: a file in claims that imports audit, and a core file that imports vllm, are offences."""
    monkeypatch.setattr("tests.test_imports.ROOT", tmp_path)
    (tmp_path / "claims").mkdir()
    bad = tmp_path / "claims" / "x.py"
    bad.write_text("from residentkv.audit import step\nimport vllm.config\n")
    assert len(offences([bad])) >= 2


def test_every_part_is_in_the_table():
    """A new top-level package has to be placed in the order first."""
    parts = {part_of(p) for p in ROOT.rglob("*.py")} - {"cli", "__init__"}
    assert parts <= set(ALLOWED), parts - set(ALLOWED)


def test_folders_are_at_most_two_deep():
    """A newcomer finds the way: package/part/part, no deeper."""
    rel = [p.relative_to(ROOT) for p in ROOT.rglob("*.py")]
    assert [p for p in rel if len(p.parts) > 3 and not p.is_relative_to(DATA)] == []
