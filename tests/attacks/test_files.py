"""Files that are not what they should be, in the place of every input and of every output."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from residentkv.cli.main import main
from tests.attacks.test_devices import TRACE, one_line
from tests.lowering.site import POOL, Site, build_site, install
from tests.report.test_attest import write_keys

NO_FILES = ("loop", "folder", "missing", "x" * 300, "trace.jsonl/x", "/dev/null")
UNWRITABLE = ("loop", "folder", "missing/x", "x" * 300, "trace.jsonl/x", "/dev/null")
NO_FOLDERS = ("loop", "missing", "x" * 300, "trace.jsonl", "/dev/null")
CHECK = ("check", "--runtime", "reference", "--mode", "best_effort")
INPUTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "audit": (("audit",), NO_FILES),
    "timeline": (("report", "timeline", "-o", "out.html"), NO_FILES),
    "descriptor": (("check", "--descriptor"), NO_FILES),
    "evidence": ((*CHECK, "--evidence"), NO_FILES),
    "baseline": ((*CHECK, "--baseline"), NO_FILES),
    "archive": ((*CHECK, "--archive"), NO_FILES),
    "numbers": (("report", "matrix", *CHECK[1:], "-o", "out.html", "--numbers"), NO_FILES),
    "statement": (("attest", "sign", "--key", "key.pem"), NO_FILES),
    "key": (("attest", "sign", "statement.json", "--key"), NO_FILES),
    "envelope": (("attest", "verify", "--unsigned"), NO_FILES),
    "log": (("claims", "log", "--owner", "a"), NO_FILES),
    "suite": (("suite", "--mutants", "--trace"), ("loop", "x" * 300)),
    "site-packages": ((*CHECK, "--site-packages"), NO_FOLDERS),
}
OUTPUTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "audit": (("audit", "trace.jsonl", "-o"), UNWRITABLE),
    "evidence": (("audit", "trace.jsonl", "--json", "-o", "ok.json", "--evidence-out"), UNWRITABLE),
    "check": ((*CHECK, "-o"), UNWRITABLE),
    "timeline": (("report", "timeline", "trace.jsonl", "-o"), UNWRITABLE),
    "init": (
        ("init", "somertime-cpu", "--site-packages", "site", "-o"),
        ("loop", "missing/x", "x" * 300, "trace.jsonl/x"),
    ),
    "reference": (("reference", "run", "--workload", "best_effort", "--out"), ("loop", "x" * 300, "trace.jsonl")),
    "demo": (("demo", "--out"), ("loop", "x" * 300, "trace.jsonl/x")),
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a good trace, an empty folder, and a symbolic link to itself."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RESIDENTKV_CACHE", str(tmp_path / "cache"))
    shutil.copy(TRACE, "trace.jsonl")
    Path("folder").mkdir()
    Path("loop").symlink_to("loop")
    install(Path("site"), pool=f"def pin():\n    pass\n\n\n{POOL}")
    write_keys()
    assert main(["audit", "trace.jsonl", "--format", "in-toto", "-o", "statement.json"]) == 0
    return tmp_path


def below(folder: Path) -> list[str]:
    """Everything that is there; what a command leaves half-written would be among it."""
    return sorted(str(p) for p in folder.rglob("*"))


@pytest.mark.parametrize("name", INPUTS)
def test_what_is_no_file_is_no_input(name: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 3 and one line that names it, for a loop, a folder, a device, a missing file and a name that is too long."""
    command, wrong = INPUTS[name]
    before = below(here)
    for path in wrong:
        assert (main([*command, path]), path) == (3, path)
        assert path[:40] in one_line(capsys)
    for path, option in (("trace.jsonl", "--checkout"), ("folder", "--document")):
        assert main([*CHECK, option, f"http://x/y={path}"]) == 3
        assert path in one_line(capsys)
    assert below(here) == before


@pytest.mark.parametrize("name", OUTPUTS)
def test_what_cannot_be_written_is_one_error(name: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 2 or 3, one line that names it, and nothing half-written beside it."""
    command, wrong = OUTPUTS[name]
    before = below(here)
    for path in wrong:
        assert main([*command, path]) in ((2, 3) if name == "demo" else (3,))
        assert path[:40] in one_line(capsys)
        Path("ok.json").unlink(missing_ok=True)
        assert below(here) == before
        assert Path("loop").readlink() == Path("loop")


@pytest.mark.parametrize("name", ["loop", "trace.jsonl", "x" * 300, "/dev/null"])
def test_a_cache_that_is_no_folder_is_no_reason_to_fail(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`RESIDENTKV_CACHE` that cannot be one is an empty cache, or one line and exit 3; never an internal error."""
    monkeypatch.setenv("RESIDENTKV_CACHE", name)
    assert main([*CHECK]) == (3 if len(name) > 255 else 11)
    assert len(name) <= 255 or "File name too long" in one_line(capsys)


def test_a_name_as_long_as_a_name_can_be_is_written(here: Path) -> None:
    """255 bytes is a name; the temporary file beside it has another."""
    assert main(["audit", "trace.jsonl", "--json", "-o", "é" * 127 + "x"]) == 0
    assert (here / ("é" * 127 + "x")).stat().st_size > 0


@pytest.fixture
def site(here: Path, capsys: pytest.CaptureFixture[str]) -> Site:
    """A descriptor of our own."""
    shutil.rmtree("site")
    made = build_site(here)
    capsys.readouterr()
    return made


def test_no_output_takes_the_place_of_an_input(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 2, by whatever name it is called; the trace, the baseline and the private key are still there."""
    check = ("--descriptor", "somertime.yaml", "--site-packages", "site-packages")
    assert main(["check", *check, "--json", "-o", "baseline.json"]) == 10
    assert main(["audit", "trace.jsonl", "--evidence-out", "evidence.json"]) == 0
    Path("link").symlink_to("trace.jsonl")
    Path("hard").hardlink_to("trace.jsonl")
    evidence = ("--evidence", "evidence.json")
    commands = {
        "trace.jsonl": [["audit", "trace.jsonl", word] for word in ("-o", "--evidence-out")]
        + [["report", "timeline", "trace.jsonl", "-o"], ["check", *check, *evidence, "-o"]],
        "./link": [["audit", "trace.jsonl", "-o"]],
        "hard": [["audit", "trace.jsonl", "-o"]],
        "somertime.yaml": [["check", *check, "-o"], ["report", "matrix", *check, "-o"]],
        "baseline.json": [["check", *check, "--baseline", "baseline.json", "--json", "-o"]],
        "evidence.json": [["check", *check, *evidence, "-o"], ["report", "matrix", *check, *evidence, "-o"]],
        "key.pem": [["attest", "sign", "statement.json", "--key", "key.pem", "-o"]],
        "statement.json": [["attest", "sign", "statement.json", "--key", "key.pem", "-o"]],
    }
    capsys.readouterr()
    for output, lines in commands.items():
        before = Path(output).read_bytes()
        for line in lines:
            assert main([*line, output]) == 2, line
            assert "found what this command reads" in one_line(capsys)
            assert Path(output).read_bytes() == before
    for line in (["audit", "trace.jsonl", "-o"], ["audit", "trace.jsonl", "--evidence-out"], ["check", *check, "-o"]):
        assert main([*line, "-"]) == 2
        assert "say ./-" in one_line(capsys)
    assert not Path("-").exists()
    assert main(["audit", "trace.jsonl", "-o", "both", "--evidence-out", "./both"]) == 2
    assert not Path("both").exists()


DAMAGED = {
    "metadata": lambda info: (info / "METADATA").write_bytes(b"Name: somertime-cpu\nVersion: 1.4.2\nX: \xff\n"),
    "record": lambda info: (info / "RECORD").write_bytes(b"\xff\xfe\x00"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_package_is_not_understood(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`init` ends with 11 and one line; an archive that is none likewise."""
    DAMAGED[name](Path("site/somertime_cpu-1.4.2.dist-info"))
    assert main(["init", "somertime-cpu", "--site-packages", "site"]) == 11
    assert "cannot be read" in one_line(capsys)
    Path("some-1.0-py3-none-any.whl").write_bytes(b"PK\x03\x04")
    assert main(["init", "some", "--archive", "some-1.0-py3-none-any.whl"]) == 11
    assert "is not a zip archive" in one_line(capsys)


def test_init_leaves_out_what_no_anchor_can_point_at(capsys: pytest.CaptureFixture[str]) -> None:
    """A file in another encoding or with a control character in its name is left out; the others are written."""
    package = Path("site/somertime")
    (package / "latin.py").write_bytes(b"# -*- coding: latin-1 -*-\ndef lease(): '\xe9'\n")
    (package / "turned\u202e.py").write_text("def offload(): pass\n")
    (package / "pins.py").write_text("def pin(): pass\n")
    record = Path("site/somertime_cpu-1.4.2.dist-info/RECORD")
    record.write_text("".join(f"somertime/{p.name},,\n" for p in package.iterdir()))
    assert main(["init", "somertime-cpu", "--site-packages", "site", "-o", "new.yaml"]) == 0
    text = Path("new.yaml").read_text()
    assert "# Not read: somertime/latin.py" in text and "symbol: pin" in text and "\u202e" not in text
    capsys.readouterr()
    assert main(["init", "somertime-cpu", "--site-packages", "site", "--runtime", "<b>", "-o", "other.yaml"]) == 2
    assert "found --runtime '<b>'" in one_line(capsys)
