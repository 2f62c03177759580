"""`residentkv init`: a skeleton that parses, points at what is there, and claims nothing."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from residentkv.cli.main import main
from residentkv.lowering.candidates import Candidate, find_candidates, pick_candidates, words_of
from residentkv.lowering.descriptor import decode_descriptor
from tests.lowering.site import install

CODE = '''"""What sounds like a promise, and what does not."""

raise RuntimeError("the package was imported")


class BlockPool:
    """Blocks."""

    default_ttl_s: float = 3.0

    def set_retention(self, blocks, priority):
        return None

    def pin(self):
        return None

    @property
    def lease(self):
        return 0

    @lease.setter
    def lease(self, value):
        pass


def release(spinner, happening):
    """Neither a lease nor a pin."""


def offload_kv(blocks):
    return blocks


def \u00e4rger_priority():
    return 0
'''


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment with the package."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "site-packages"
    install(folder, pool=CODE)
    return folder


def test_the_skeleton_parses_and_is_unknown_everywhere(packages: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every anchor is verified, no row is positive, approximate or rejected, and nothing was imported."""
    assert main(["init", "somertime-cpu", "--site-packages", str(packages)]) == 0
    path = Path("somertime-cpu.yaml")
    descriptor = decode_descriptor(path.read_bytes(), str(path))
    assert {a.symbol for a in descriptor.anchors.values()} == {  # type: ignore[union-attr]
        "BlockPool.default_ttl_s",
        "BlockPool.set_retention",
        "BlockPool.pin",
        "offload_kv",
    }
    assert [p.id for p in descriptor.primitives] == ["retention", "ttl", "pin", "offload"]
    capsys.readouterr()
    assert main(["check", "--descriptor", str(path), "--site-packages", str(packages), "--json"]) == 11
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {r["verdict"] for r in rows} == {"unknown"}
    assert {a["state"] for r in rows for a in r["anchors"]} == {"verified"}


def test_an_archive_is_read_without_installing(packages: Path) -> None:
    """A wheel gives the same anchors as the environment."""
    wheel = Path("somertime_cpu-1.4.2-py3-none-any.whl")
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("somertime/pool.py", CODE)
        archive.writestr("somertime_cpu-1.4.2.dist-info/METADATA", "Name: somertime-cpu\nVersion: 1.4.2\n")
    assert main(["init", "somertime-cpu", "--archive", str(wheel), "-o", "wheel.yaml"]) == 0
    assert main(["init", "somertime-cpu", "--site-packages", str(packages), "-o", "site.yaml"]) == 0
    assert Path("wheel.yaml").read_text() == Path("site.yaml").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["somertime-cpv"], 3, "no copy of 'somertime-cpv'"),
        (["somertime-cpu", "--limit", "0"], 2, "expected 1 or more"),
        (["somertime-cpu", "-o", "exists.yaml"], 2, "exists.yaml exists"),
        (["somertime-cpu", "-o", "missing/x.yaml"], 3, "cannot be written"),
        (["somertime-cpu", "--version", "9"], 3, "no copy of 'somertime-cpu' 9"),
    ],
)
def test_what_cannot_be_written_is_said(
    packages: Path, arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """No package, no room, or work that is there already: an error with the next step, and nothing is written."""
    Path("exists.yaml").write_text("judged")
    assert main(["init", *arguments, "--site-packages", str(packages)]) == code
    assert said in capsys.readouterr().err
    assert Path("exists.yaml").read_text() == "judged" and not Path("somertime-cpu.yaml").exists()


def test_two_versions_are_told_apart(packages: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --version it is a usage error that lists them."""
    other = packages.with_name("other")
    install(other, version="1.5.0", pool=CODE.replace("3.0", "4.0"))
    both = ["--site-packages", str(packages), "--site-packages", str(other)]
    assert main(["init", "somertime-cpu", *both]) == 2
    assert "1.4.2, 1.5.0" in capsys.readouterr().err
    assert main(["init", "somertime-cpu", *both, "--version", "1.5.0"]) == 0
    assert 'versions: "==1.5.0"' in Path("somertime-cpu.yaml").read_text()


def test_a_package_without_such_names_is_no_input(packages: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is made up."""
    (packages / "somertime" / "pool.py").write_text("def evict():\n    return 0\n")
    assert main(["init", "somertime-cpu", "--site-packages", str(packages)]) == 3
    assert "no symbol called retention" in capsys.readouterr().err


def test_a_file_that_cannot_be_parsed_is_named_in_the_skeleton(packages: Path) -> None:
    """What was not read may hold the promise, and whoever judges is told."""
    (packages / "somertime" / "__init__.py").write_text("def pin(:\n")
    assert main(["init", "somertime-cpu", "--site-packages", str(packages)]) == 0
    assert "# Not read: somertime/__init__.py: " in Path("somertime-cpu.yaml").read_text()


@pytest.mark.parametrize(
    ("symbol", "words"),
    [
        ("release", set()),
        ("Spinner.spin", set()),
        ("KVLease", {"lease"}),
        ("Pool.pinnedTTL", {"pin", "ttl"}),
        ("priority.apply", set()),
        ("OFFLOAD_PRIORITY", {"offload", "priority"}),
    ],
)
def test_names_are_compared_by_words(symbol: str, words: set[str]) -> None:
    """A word inside another one is not that word, and only the last part of a dotted name counts."""
    assert words_of(symbol) == words


def test_each_name_is_listed_once_and_caches_come_first() -> None:
    """What is left out is counted."""
    found = [Candidate("pin", f, s) for f, s in (("m/a.py", "pin"), ("m/b.py", "pin"), ("m/kv_cache.py", "pin_block"))]
    picked, left = pick_candidates(found, 5)
    assert [c.symbol for c in picked["pin"]] == ["pin_block", "pin"] and left == 1
    picked, left = pick_candidates(found, 1)
    assert [c.symbol for c in picked["pin"]] == ["pin_block"] and left == 2
    assert list(find_candidates("x.py", b"def evict(): pass\n")) == []
