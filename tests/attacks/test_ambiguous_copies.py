"""Packages that hold a file more than once: what is read need not be what is imported."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from residentkv.lowering.anchors import PackageCopy, TargetUnreadableError
from residentkv.sources import archives
from residentkv.sources.archives import open_archive
from residentkv.sources.installed import find_installed
from tests.lowering.site import POOL, install
from tests.lowering.test_sources import INFO, METADATA, PKG, editable, sdist, wheel

CHANGED = POOL.replace("min(self.blocks)", "max(self.blocks)")
FILE = "somertime/pool.py"
DATA = "somertime-1.4.2.data"
SDIST = "somertime-1.4.2"


def check_told(copy: PackageCopy, second: str) -> None:
    """The same text twice is read, another text is not."""
    if second == POOL:
        assert copy.read(FILE).decode() == POOL
        return
    with pytest.raises(TargetUnreadableError, match="in 2 places, with different text"):
        copy.read(FILE)


@pytest.mark.parametrize("second", [POOL, CHANGED])
@pytest.mark.parametrize(
    "place", ["purelib", "platlib", "data/lib/python3.11/site-packages", "data/lib/python3/dist-packages"]
)
def test_a_wheel_that_installs_another_text_over_a_file_is_unreadable(tmp_path: Path, place: str, second: str) -> None:
    """An installer puts what is below `.data` where the files at the top go."""
    path = wheel(tmp_path, [INFO, (FILE, POOL), (f"{DATA}/{place}/{FILE}", second)])
    check_told(open_archive(path), second)


def test_a_wheel_may_hold_its_files_below_data_only(tmp_path: Path) -> None:
    """There they are found and listed; headers and scripts are no modules."""
    path = wheel(tmp_path, [INFO, (f"{DATA}/purelib/{FILE}", POOL), (f"{DATA}/scripts/{FILE}", CHANGED)])
    assert open_archive(path).read(FILE).decode() == POOL
    assert FILE in set(open_archive(path).files())


@pytest.mark.parametrize("second", [POOL, CHANGED])
@pytest.mark.parametrize("prefix", ["src/", "python/", "lib/"])
def test_an_sdist_with_two_layouts_is_unreadable_where_they_differ(tmp_path: Path, prefix: str, second: str) -> None:
    """Which of them is built stands in code that is not run here."""
    check_told(
        open_archive(sdist(tmp_path, [PKG, (f"{SDIST}/{FILE}", POOL), (f"{SDIST}/{prefix}{FILE}", second)])), second
    )


@pytest.mark.parametrize("name", ["./somertime/pool.py", "somertime//pool.py", "other/../somertime/pool.py"])
def test_another_spelling_of_a_name_is_the_same_name(tmp_path: Path, name: str) -> None:
    """A file that occurs twice is ambiguous by whatever names."""
    for path in (
        wheel(tmp_path, [INFO, (FILE, POOL), (name, CHANGED)]),
        sdist(tmp_path, [PKG, (f"{SDIST}/{FILE}", POOL), (f"{SDIST}/{name}", CHANGED)]),
    ):
        with pytest.raises(TargetUnreadableError):
            open_archive(path).read(FILE)


def test_an_archive_with_too_many_members_is_not_read_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was left out could be the same file again."""
    monkeypatch.setattr(archives, "MAX_MEMBERS", 4)
    members = [(FILE, POOL), ("a", ""), ("b", "")]
    for more in ([], [(FILE, CHANGED)]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            paths = (
                wheel(tmp_path, [INFO, *members, *more]),
                sdist(tmp_path, [PKG, *((f"{SDIST}/{n}", text) for n, text in [*members, *more])]),
            )
        for path in paths:
            if not more:
                assert open_archive(path).read(FILE).decode() == POOL
                continue
            with pytest.raises(TargetUnreadableError, match="more than 4 members"):
                open_archive(path)


@pytest.mark.parametrize("second", [POOL, CHANGED])
@pytest.mark.parametrize("place", ["project", "project/python", "site"])
def test_an_editable_project_with_two_layouts_is_unreadable_where_they_differ(
    tmp_path: Path, place: str, second: str
) -> None:
    """Which folder is on the path is the build backend's choice; the folder of packages comes before each."""
    folder = editable(tmp_path)
    other = tmp_path / place / FILE
    other.parent.mkdir(parents=True, exist_ok=True)
    other.write_text(second)
    (copy,) = find_installed("somertime", [folder])
    check_told(copy, second)


def test_a_file_that_two_distributions_record_is_unreadable(tmp_path: Path) -> None:
    """It may be of the version that is in range or of the other; files of one of them only are read."""
    install(tmp_path)
    other = tmp_path / "somertime-2.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text(METADATA.replace("1.4.2", "2.0"))
    (other / "RECORD").write_text(f"{FILE},sha256=x,100\nsomertime/two.py,,\n")
    (tmp_path / "somertime" / "two.py").write_text("TWO = 2\n")
    (old,) = find_installed("somertime-cpu", [tmp_path])
    (new,) = find_installed("somertime", [tmp_path])
    for copy, sibling in ((old, other.name), (new, "somertime_cpu-1.4.2.dist-info")):
        with pytest.raises(TargetUnreadableError, match=f"recorded by {sibling} too"):
            copy.read(FILE)
    assert b"imported" in old.read("somertime/__init__.py")
    assert new.read("somertime/two.py") == b"TWO = 2\n"
