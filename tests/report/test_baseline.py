"""`check --baseline`: exit 10 only on a verdict that got worse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from residentkv.cli.main import main
from residentkv.lowering.baseline import Baseline, BaselineRow, Change, compare_rows
from residentkv.lowering.relation import Verdict
from tests.lowering.site import Site
from tests.report.run import check_of, write, write_json


@pytest.fixture
def baseline(site: Site) -> Path:
    """A report of all rows, from before."""
    path = Path("baseline.json")
    assert main([*check_of(site), "--format", "json", "-o", str(path)]) == 10
    return path


def upgrade(site: Site, version: str) -> None:
    """Install another version of the package."""
    (info,) = site.folder.glob("*.dist-info")
    metadata = (info / "METADATA").read_text().replace("Version: 1.4.2", f"Version: {version}")
    (info / "METADATA").write_text(metadata)
    info.rename(info.with_name(f"somertime_cpu-{version}.dist-info"))


def test_nothing_changed_is_a_pass_however_many_rows_are_a_no(site: Site, baseline: Path) -> None:
    """The same rows, one of them rejected: exit 0 with the baseline, 10 without."""
    assert main([*check_of(site), "--baseline", str(baseline)]) == 0
    assert main([*check_of(site)]) == 10


def test_an_upgrade_that_breaks_a_verdict_fails_the_build(
    site: Site, baseline: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After an upgrade to a version that nobody judged, what was positive is unknown, and that is worse."""
    upgrade(site, "1.5.0")
    assert main([*check_of(site), "--baseline", str(baseline)]) == 10
    out = capsys.readouterr().out
    assert "RKV165 worse: somertime: lru as best_effort at depth native was native_sound" in " ".join(out.split())


@pytest.mark.parametrize("form", ["json", "sarif", "junit", "github", "in-toto"])
def test_every_format_tells_only_what_got_worse(site: Site, baseline: Path, form: str) -> None:
    """One failure, for the row that was positive; the rows that were a no before are none."""
    upgrade(site, "1.5.0")
    code, text = write(*check_of(site, "--baseline", str(baseline)), form=form)
    assert code == 10
    if form == "json":
        assert [c["change"] for c in json.loads(text)["baseline"]["changes"]] == ["worse", "differs", "differs"]
    elif form == "sarif":
        assert [r["ruleId"] for r in json.loads(text)["runs"][0]["results"]] == ["RKV165"]
    elif form == "junit":
        assert text.count("<failure") == 1 and text.count("<testcase") == 3 and "<error" not in text
    elif form == "github":
        assert text.count("::error ") == 1 and "::warning" not in text


def test_a_positive_row_that_nobody_asks_for_any_more_is_worse(site: Site, baseline: Path) -> None:
    """A narrower selection does not hide what was relied on."""
    assert main([*check_of(site, "--mode", "soft_priority"), "--baseline", str(baseline)]) == 10


def test_a_row_that_gets_better_passes(site: Site, baseline: Path) -> None:
    """The baseline was written while the runtime was not there."""
    document = json.loads(baseline.read_text())
    for row in document["rows"]:
        row["verdict"] = "unknown"
    baseline.write_text(json.dumps(document))
    found = write_json(*check_of(site, "--baseline", str(baseline)), form="json")
    assert found["exit_code"] == 0
    assert [c["change"] for c in found["baseline"]["changes"]] == ["better", "differs", "differs"]


BAD: dict[str, Any] = {
    "no JSON": lambda d: "{",
    "another schema": lambda d: json.dumps({**d, "schema": "residentkv.audit/1"}),
    "an unknown verdict": lambda d: json.dumps({**d, "rows": [{**d["rows"][0], "verdict": "fine"}]}),
    "a row twice": lambda d: json.dumps({**d, "rows": [d["rows"][0], d["rows"][0]]}),
    "a key twice": lambda d: json.dumps(d)[:-1] + ', "rows": []}',
    "no row": lambda d: json.dumps({**d, "rows": []}),
    "obligations that are none": lambda d: json.dumps({**d, "rows": [{**d["rows"][0], "obligations": "x"}]}),
    "no rows key": lambda d: json.dumps({k: v for k, v in d.items() if k != "rows"}),
}


@pytest.mark.parametrize("name", BAD)
def test_a_baseline_that_is_not_understood_is_never_a_pass(
    site: Site, baseline: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ends with 11 and the code of the mistake, also where only a page compares with it."""
    baseline.write_text(BAD[name](json.loads(baseline.read_text())))
    for command in (check_of(site), ("report", "matrix", "-o", "page.html", *check_of(site)[1:])):
        assert main([*command, "--baseline", str(baseline)]) == 11
        assert "baseline.json: RKV166 " in capsys.readouterr().err
    assert not Path("page.html").exists()


def test_no_row_is_judged_twice(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """Two files about the same primitive are a usage error, since a baseline of them could not be read again."""
    Path("copy.yaml").write_text(site.descriptor.read_text() + "# another\n")
    for again in (site.descriptor.name, "copy.yaml"):
        assert main([*check_of(site), "--descriptor", again, "--format", "json", "-o", "twice.json"]) == 2
        assert f"found lru of somertime 1.4 in {site.descriptor.name} and in {again}" in capsys.readouterr().err
    assert not Path("twice.json").exists()


def test_a_missing_baseline_is_no_input(site: Site) -> None:
    """Exit 3, so that a first run without one is not green by accident."""
    assert main([*check_of(site), "--baseline", "nowhere.json"]) == 3


def row(version: str, verdict: Verdict, mode: str = "offloadable") -> BaselineRow:
    """A row of a baseline."""
    return BaselineRow(
        runtime="somertime", version=version, primitive="lru", mode=mode, depth="native", verdict=verdict
    )


def test_an_upgrade_with_its_own_descriptor_is_judged_by_it(site: Site, baseline: Path) -> None:
    """The old version is not on this machine any more; the new one has a descriptor that holds: nothing got worse."""
    upgrade(site, "1.5.0")
    newer = site.descriptor.with_name("newer.yaml")
    text = site.descriptor.read_text().replace('">=1.4,<1.5"', '">=1.5,<1.6"').replace('"1.4"', '"1.5"')
    newer.write_text(text)
    both = [*check_of(site), "--descriptor", str(newer)]
    assert main([*both, "--baseline", str(baseline)]) == 0
    site.pool.write_text(site.pool.read_text().replace("return True", "return False"))
    assert main([*both, "--baseline", str(baseline)]) == 10


def test_an_upgrade_between_two_described_versions_is_judged_by_the_new_one(site: Site) -> None:
    """The baseline has rows of both versions, the new one unknown since it was not there; then it is, and holds."""
    newer = site.descriptor.with_name("newer.yaml")
    newer.write_text(site.descriptor.read_text().replace('">=1.4,<1.5"', '">=1.5,<1.6"').replace('"1.4"', '"1.5"'))
    both = [*check_of(site), "--descriptor", str(newer)]
    assert main([*both, "--format", "json", "-o", "both.json"]) == 10
    upgrade(site, "1.5.0")
    found = write_json(*both, "--baseline", "both.json", form="json")
    assert (found["exit_code"], {c["change"] for c in found["baseline"]["changes"]}) == (0, {"better", "differs"})
    site.pool.write_text(site.pool.read_text().replace("return True", "return False"))
    assert main([*both, "--baseline", "both.json"]) == 10


def test_a_row_without_counterpart_counts_by_what_it_was() -> None:
    """Gone and positive is worse; gone and a no is as it was."""
    before = Baseline(
        schema="residentkv.check/1",
        rows=[row("1", Verdict.NATIVE_SOUND), row("1", Verdict.APPROXIMATE, "expiring")],
    )
    changes, unchanged = compare_rows(before, [])
    assert [c.change for c in changes] == [Change.GONE] and unchanged == 1
    assert changes[0].change.is_worse
