"""Where anchors are read: archives, installations, checkouts, documents. Nothing is extracted, imported or fetched."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from residentkv.errors import NoInputError, UsageError
from residentkv.lowering.anchors import TargetAbsentError, TargetUnreadableError
from residentkv.sources.archives import SdistCopy, WheelCopy, archives_named
from residentkv.sources.fetch import fetch_package, parse_exact
from residentkv.sources.git import Checkouts, normalise_repository
from residentkv.sources.installed import find_installed
from residentkv.sources.machine import machine_sources
from tests.lowering.site import POOL, install

METADATA = "Metadata-Version: 2.1\nName: somertime\nVersion: 1.4.2\n"


def wheel(folder: Path, members: list[tuple[str, str]], name: str = "somertime-1.4.2-py3-none-any.whl") -> Path:
    path = folder / name
    with zipfile.ZipFile(path, "w") as z:
        for member, text in members:
            z.writestr(member, text)
    return path


def sdist(folder: Path, members: list[tuple[str, str]], links: tuple[str, ...] = ()) -> Path:
    path = folder / "somertime-1.4.2.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, text in members:
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
        for name in links:
            info = tarfile.TarInfo(name)
            info.type = tarfile.SYMTYPE
            info.linkname = "/etc/passwd"
            tar.addfile(info)
    return path


def editable(folder: Path) -> Path:
    """Install a project of src layout as editable, and return the folder that records it."""
    project, info = folder / "project", folder / "site" / "somertime-1.4.2.dist-info"
    for made in (project / "src" / "somertime", info):
        made.mkdir(parents=True)
    (project / "src" / "somertime" / "pool.py").write_text(POOL)
    (info / "METADATA").write_text(METADATA)
    (info / "direct_url.json").write_text(json.dumps({"url": project.as_uri(), "dir_info": {"editable": True}}))
    return info.parent


INFO = ("somertime-1.4.2.dist-info/METADATA", METADATA)
PKG = ("somertime-1.4.2/PKG-INFO", METADATA)


def test_a_wheel_is_read_without_extracting(tmp_path):
    """Name and version come from its metadata, not from its file name."""
    copy = WheelCopy(wheel(tmp_path, [INFO, ("somertime/pool.py", POOL)], "other-9-py3-none-any.whl"))
    assert (copy.distribution, copy.version) == ("somertime", "1.4.2")
    assert copy.read("somertime/pool.py").decode() == POOL
    with pytest.raises(TargetAbsentError):
        copy.read("somertime/none.py")


@pytest.mark.parametrize("prefix", ["", "src/", "python/"])
def test_an_sdist_is_read_below_its_top_folder(tmp_path, prefix):
    """Flat and src layouts."""
    copy = SdistCopy(sdist(tmp_path, [PKG, (f"somertime-1.4.2/{prefix}somertime/pool.py", POOL)]))
    assert (copy.distribution, copy.version) == ("somertime", "1.4.2")
    assert copy.read("somertime/pool.py").decode() == POOL


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_occurs_twice_is_unreadable(tmp_path):
    """What an installer would leave depends on the installer."""
    twice = [INFO, ("somertime/pool.py", POOL), ("somertime/pool.py", "x = 1\n")]
    with pytest.raises(TargetUnreadableError, match="2 times"):
        WheelCopy(wheel(tmp_path, twice)).read("somertime/pool.py")
    tar = [PKG, ("somertime-1.4.2/somertime/pool.py", POOL), ("somertime-1.4.2/somertime/pool.py", "x = 1\n")]
    with pytest.raises(TargetUnreadableError, match="not one plain file"):
        SdistCopy(sdist(tmp_path, tar)).read("somertime/pool.py")


def test_a_link_in_an_archive_is_not_followed(tmp_path):
    """A name that leads out of the archive gives nothing."""
    copy = SdistCopy(sdist(tmp_path, [PKG], links=("somertime-1.4.2/somertime/pool.py",)))
    with pytest.raises(TargetUnreadableError, match="not one plain file"):
        copy.read("somertime/pool.py")


def test_a_member_that_leads_out_of_an_archive_makes_it_unreadable(tmp_path):
    """Two folders at the top: this is no sdist that a tool made."""
    with pytest.raises(TargetUnreadableError, match="folders at the top"):
        SdistCopy(sdist(tmp_path, [PKG, ("../evil.py", "x")]))
    assert not (tmp_path.parent / "evil.py").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", b"\x1f\x8b torn"])
def test_a_torn_archive_is_unreadable(tmp_path, content):
    """A download that broke off is no evidence."""
    for name, kind in (("a-1-py3-none-any.whl", WheelCopy), ("a-1.tar.gz", SdistCopy)):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(TargetUnreadableError):
            kind(path)


def test_an_archive_without_metadata_is_unreadable(tmp_path):
    """Its version would be a guess."""
    with pytest.raises(TargetUnreadableError, match="0 metadata files"):
        WheelCopy(wheel(tmp_path, [("somertime/pool.py", POOL)]))
    with pytest.raises(TargetUnreadableError, match="PKG-INFO"):
        SdistCopy(sdist(tmp_path, [("somertime-1.4.2/somertime/pool.py", POOL)]))


def test_archives_are_found_by_the_normalised_name(tmp_path):
    """`Some_Rtime` and `some-rtime` are one project; `some-rtime-extra` is another."""
    for name in ("some_rtime-1.0-py3-none-any.whl", "some-rtime-1.1.tar.gz", "some_rtime_extra-1.0-py3-none-any.whl"):
        (tmp_path / name).touch()
    found = [p.name for p in archives_named(tmp_path, "Some.Rtime")]
    assert found == ["some-rtime-1.1.tar.gz", "some_rtime-1.0-py3-none-any.whl"]


def test_an_installed_package_is_read_by_its_metadata_and_never_imported(tmp_path):
    """The test package raises when it is imported."""
    install(tmp_path)
    (copy,) = find_installed("somertime-cpu", [tmp_path])
    assert (copy.distribution, copy.version) == ("somertime-cpu", "1.4.2")
    assert copy.read("somertime/pool.py").decode() == POOL
    assert "somertime" not in sys.modules


def test_a_file_that_the_distribution_did_not_install_is_absent(tmp_path):
    """A stray file in the folder of a package is not part of it."""
    install(tmp_path)
    (tmp_path / "somertime" / "stray.py").write_text("x = 1\n")
    (copy,) = find_installed("somertime-cpu", [tmp_path])
    with pytest.raises(TargetAbsentError, match="not a file of somertime-cpu"):
        copy.read("somertime/stray.py")


def test_two_recorded_versions_in_one_folder_are_unreadable(tmp_path):
    """After a broken upgrade nobody knows whose files these are."""
    install(tmp_path)
    other = tmp_path / "somertime_cpu-1.4.3.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: somertime-cpu\nVersion: 1.4.3\n")
    for copy in find_installed("somertime-cpu", [tmp_path]):
        with pytest.raises(TargetUnreadableError, match="several versions"):
            copy.read("somertime/pool.py")


def test_an_editable_installation_is_read_from_its_project(tmp_path):
    """The folder of an editable package holds no files of it."""
    (copy,) = find_installed("somertime", [editable(tmp_path)])
    assert copy.read("somertime/pool.py").decode() == POOL


def test_of_our_own_package_only_the_running_one_counts(tmp_path):
    """A stale copy in another environment is not what runs."""
    install(tmp_path, name="residentkv")
    (copy,) = find_installed("residentkv", [tmp_path])
    assert copy.place != str(tmp_path)
    assert b"class Depth" in copy.read("residentkv/lowering/depth.py")


def test_an_oversized_file_is_unreadable(tmp_path, monkeypatch):
    """A file that is too large to be source is not read."""
    monkeypatch.setattr("residentkv.sources.installed.MAX_FILE_BYTES", 10)
    monkeypatch.setattr("residentkv.sources.archives.MAX_FILE_BYTES", 10)
    install(tmp_path / "site")
    (copy,) = find_installed("somertime-cpu", [tmp_path / "site"])
    archive = wheel(
        tmp_path, [("somertime-1.4.2.dist-info/METADATA", "Name: a\nVersion: 1"), ("somertime/pool.py", POOL)]
    )
    with pytest.raises(TargetUnreadableError, match="larger"):
        copy.read("somertime/pool.py")
    with pytest.raises(TargetUnreadableError, match="larger"):
        WheelCopy(archive)


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    """A repository with two commits; the second changed the file."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "pool.cpp").write_text("one\ntwo\n")
    (folder / "link").symlink_to("/etc/passwd")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    first = git(folder, "rev-parse", "HEAD")
    (folder / "pool.cpp").write_text("one\nTWO\n")
    git(folder, "commit", "-qam", "second")
    return folder, first


def test_a_file_is_read_at_the_commit_and_not_from_the_work_tree(checkout):
    """What is checked out now, or edited, does not matter."""
    folder, first = checkout
    (folder / "pool.cpp").write_text("edited\n")
    checkouts = Checkouts({"https://example.org/some/rtime.git": folder}, folder / "none")
    assert checkouts.read("example.org/some/rtime", first, "pool.cpp") == b"one\ntwo\n"


def test_a_replaced_object_is_not_believed(checkout):
    """git can be told to show another object in place of one; then a commit id names nothing."""
    folder, first = checkout
    git(folder, "replace", first, git(folder, "rev-parse", "HEAD"))
    checkouts = Checkouts({"example.org/some/rtime": folder}, folder / "none")
    assert checkouts.read("example.org/some/rtime", first, "pool.cpp") == b"one\ntwo\n"


def test_checkouts_say_what_is_missing(checkout, tmp_path):
    """No checkout, no commit and no file are told apart."""
    folder, first = checkout
    checkouts = Checkouts({"example.org/some/rtime": folder}, tmp_path)
    with pytest.raises(TargetUnreadableError, match=r"--checkout example\.org/other/one=DIR"):
        checkouts.read("https://example.org/other/one", first, "pool.cpp")
    with pytest.raises(TargetUnreadableError, match="has no commit"):
        checkouts.read("example.org/some/rtime", "0" * 40, "pool.cpp")
    with pytest.raises(TargetAbsentError, match=r"none\.cpp"):
        checkouts.read("example.org/some/rtime", first, "none.cpp")


def test_a_checkout_in_the_cache_is_found_by_its_name(checkout, tmp_path):
    """host+owner+name."""
    folder, first = checkout
    folder.rename(tmp_path / "example.org+some+rtime")
    assert Checkouts({}, tmp_path).read("git@example.org:some/rtime.git", first, "pool.cpp") == b"one\ntwo\n"


@pytest.mark.parametrize(
    "name", ["https://Example.org/some/Rtime.git", "git@example.org:some/Rtime", "ssh://git@example.org/some/Rtime/"]
)
def test_ways_to_write_a_repository_are_one(name):
    """Scheme, user, ending and case of the host do not tell repositories apart."""
    assert normalise_repository(name) == "example.org/some/Rtime"


def test_a_document_counts_only_when_its_text_is_given(tmp_path):
    """Its text is what stands between the tags of a page."""
    page = tmp_path / "page.html"
    page.write_text("<script>no</script><p>Kept &amp; <b>held</b> for\n ever.</p>")
    sources = machine_sources(documents={"https://example.org/page": page})
    assert sources.document_text("https://example.org/page").split() == ["Kept", "&", "held", "for", "ever."]
    with pytest.raises(TargetUnreadableError, match="--document URL=FILE"):
        sources.document_text("https://example.org/other")


@pytest.mark.parametrize("text", ["<script ", "<style>x</styl", "<!-- ", "<"])
def test_a_page_that_opens_and_never_closes_is_read_once(tmp_path, text):
    """Two megabytes of it are read once, and what stands in an element without end is no text of the page."""
    page = tmp_path / "page.html"
    page.write_text("<p>Kept.</p>" + text * (2_000_000 // len(text)) + "held for ever")
    assert machine_sources(documents={"u": page}).document_text("u").split() == ["Kept."]


def test_a_page_with_a_number_of_thousands_of_digits_is_unreadable(tmp_path):
    """No reader takes it for a character, and it is no reason to fail."""
    page = tmp_path / "page.html"
    page.write_text(f"<p>Kept &#{'9' * 5_000}; for ever.</p>")
    with pytest.raises(TargetUnreadableError, match="no page that can be read"):
        machine_sources(documents={"u": page}).document_text("u")


def test_a_place_that_was_named_and_does_not_exist_is_an_error(tmp_path):
    """A misspelt folder is not silently nothing."""
    with pytest.raises(NoInputError, match="no such file or folder"):
        machine_sources(site_packages=[tmp_path / "none"])


@pytest.mark.parametrize(
    "text",
    ["a", "a>=1", "a==1.*", "a==1,==2", "a[x]==1", "a==1; os_name=='nt'", "--evil==1", "a @ https://example.org/a"],
)
def test_only_one_exact_version_can_be_fetched(text):
    """Nothing that pip would read as an option, a range or an address."""
    with pytest.raises(UsageError, match="NAME==VERSION"):
        parse_exact(text)


def test_fetch_gets_a_wheel_with_pip_and_keeps_only_that(tmp_path, monkeypatch):
    """pip is pointed at a local folder; the package is neither installed nor imported."""
    index = tmp_path / "index"
    index.mkdir()
    wheel(
        index,
        [
            INFO,
            ("somertime-1.4.2.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n"),
            ("somertime/pool.py", POOL),
        ],
    )
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    path = fetch_package("somertime", "1.4.2", tmp_path / "packages")
    assert [p.name for p in (tmp_path / "packages").iterdir()] == [path.name]
    assert WheelCopy(path).read("somertime/pool.py").decode() == POOL
    with pytest.raises(NoInputError, match=r"somertime==9\.9: pip download failed: No matching distribution"):
        fetch_package("somertime", "9.9", tmp_path / "packages")
    assert [p.name for p in (tmp_path / "packages").iterdir()] == [path.name]


def test_one_file_of_a_repository_can_be_given_under_its_web_address(tmp_path):
    """A repository that is too large to clone: the file is taken as given, for that commit and path only."""
    saved = tmp_path / "pool.cpp"
    saved.write_text("one\n")
    url = f"https://example.org/some/rtime/blob/{'a' * 40}/src/pool.cpp"
    sources = machine_sources(documents={url: saved})
    assert sources.git_file("https://example.org/some/rtime.git", "a" * 40, "src/pool.cpp") == b"one\n"
    for commit, file in (("b" * 40, "src/pool.cpp"), ("a" * 40, "src/other.cpp")):
        with pytest.raises(TargetUnreadableError, match="no checkout"):
            sources.git_file("example.org/some/rtime", commit, file)
