"""Every machine format keeps its official schema, says the same as the JSON, and has the same exit code."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from google.protobuf import json_format
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from lxml import etree

from residentkv.cli.main import main
from residentkv.cli.schema import schema_text
from tests.lowering.site import Site
from tests.report.run import FORMATS, SCHEMAS, check_of, write, write_json


def sarif_errors(log: Any) -> list[str]:
    """What the OASIS schema has against a log."""
    validator = jsonschema.Draft4Validator(json.loads((SCHEMAS / "sarif-schema-2.1.0.json").read_text()))
    return [e.message for e in validator.iter_errors(log)]


def junit_schema() -> etree.XMLSchema:
    """The XML Schema of JUnit reports."""
    return etree.XMLSchema(etree.parse(SCHEMAS / "JUnit.xsd"))


def reports(site: Site, broken: Path, form: str) -> list[tuple[int, str]]:
    """A check, a check of a row, and an audit in one format."""
    return [
        write(*check_of(site), form=form),
        write(*check_of(site, "--mode", "best_effort"), form=form),
        write("audit", str(broken), form=form),
    ]


def test_the_exit_code_does_not_depend_on_the_format(site: Site, broken: Path) -> None:
    """Rejected, positive and violating are 10, 0 and 10 in text and in every machine format."""
    codes = {form: [code for code, _ in reports(site, broken, form)] for form in FORMATS}
    assert codes == {form: [10, 0, 10] for form in FORMATS}


def test_json_keeps_the_published_schema(site: Site, broken: Path) -> None:
    """Reports of check, audit and suite validate, and a report without one of its keys does not."""
    documents = {
        "check": [write_json(*check_of(site), form="json"), write_json(*check_of(site, "--recorded"), form="json")],
        "audit": [write_json("audit", str(broken), form="json")],
        "suite": [write_json("suite", "--case", "ttl-call-as-acceptance", form="json")],
        "statement": [write_json("audit", str(broken), form="in-toto")],
    }
    for name, found in documents.items():
        validator = jsonschema.Draft202012Validator(json.loads(schema_text(name)))
        for document in found:
            assert [e.message for e in validator.iter_errors(document)] == []
            for key in list(document):
                assert not validator.is_valid({k: v for k, v in document.items() if k != key}), key


def test_sarif_keeps_the_oasis_schema(site: Site, broken: Path) -> None:
    """Logs of check and audit validate; the schema is really applied."""
    for _, text in reports(site, broken, "sarif"):
        assert sarif_errors(json.loads(text)) == []
    assert sarif_errors({"version": "2.1.0", "runs": [{"tool": {}}]})


def test_sarif_points_at_the_descriptor_line_and_at_the_anchor(site: Site) -> None:
    """The rejected row leads to its line in the descriptor, and to the symbol that contradicts it."""
    (run,) = write_json(*check_of(site, "--mode", "hard_protected"), form="sarif")["runs"]
    (result,) = run["results"]
    rule = run["tool"]["driver"]["rules"][result["ruleIndex"]]
    assert (result["ruleId"], rule["id"], result["level"]) == ("RKV160", "RKV160", "error")
    assert rule["help"]["text"] and rule["help"]["markdown"]
    place = result["locations"][0]["physicalLocation"]
    lines = site.descriptor.read_text().splitlines()
    assert "mode: hard_protected" in lines[place["region"]["startLine"] - 1]
    assert place["artifactLocation"] == {"uri": site.descriptor.name, "uriBaseId": "SRCROOT"}
    anchors = [r["physicalLocation"] for r in result["relatedLocations"]]
    evict = next(a for a in anchors if a["region"]["startLine"] == 11)
    assert evict["artifactLocation"] == {"uri": "somertime/pool.py", "uriBaseId": "PACKAGE_SOMERTIME_CPU_1_4_2"}
    assert "def evict" in site.pool.read_text().splitlines()[evict["region"]["startLine"] - 1]


def test_a_changed_anchor_is_a_result_of_its_own(site: Site) -> None:
    """It is told once however many rows lean on it, at its line in the descriptor; no result is lost for it."""
    site.pool.write_text(site.pool.read_text().replace("min(self.blocks)", "max(self.blocks)"))
    code, text = write(*check_of(site), form="sarif")
    results = json.loads(text)["runs"][0]["results"]
    assert code == 11
    assert [r["ruleId"] for r in results].count("RKV154") == 1
    assert {r["level"] for r in results} == {"warning"}
    assert len(results) == 4  # three rows that stand on it, and the anchor


def test_a_result_is_recognised_when_lines_move(site: Site) -> None:
    """Fingerprints name what was judged and by which rule, not where it stands."""
    before = write_json(*check_of(site), form="sarif")["runs"][0]["results"]
    site.descriptor.write_text("# one more line\n" + site.descriptor.read_text())
    after = write_json(*check_of(site), form="sarif")["runs"][0]["results"]
    assert [r["partialFingerprints"] for r in before] == [r["partialFingerprints"] for r in after]
    assert len({r["partialFingerprints"]["residentkv/v1"] for r in before}) == len(before)
    assert before[0]["locations"] != after[0]["locations"]


def test_findings_alike_are_not_one_result(broken: Path) -> None:
    """The same rule for the same claim in two traces, or twice in one, has a fingerprint each."""
    Path("again.jsonl").write_bytes(broken.read_bytes())
    (run,) = json.loads(write("audit", str(broken), "again.jsonl", form="sarif")[1])["runs"]
    prints = [r["partialFingerprints"]["residentkv/v1"] for r in run["results"]]
    assert len(prints) == 2 and len(set(prints)) == 2


def test_junit_keeps_the_ant_schema(site: Site, broken: Path) -> None:
    """Reports of check, audit and suite validate; the schema is really applied."""
    schema = junit_schema()
    texts = [text for _, text in reports(site, broken, "junit")]
    texts.append(write("suite", "--case", "ttl-call-as-acceptance", form="junit")[1])
    for text in texts:
        schema.assertValid(etree.fromstring(text))
    assert not schema.validate(etree.fromstring(texts[0].replace("<system-err />", "<stranger />")))


def test_junit_calls_unknown_an_error_and_never_a_skip(site: Site) -> None:
    """Rejected is a failure, approximate an error, positive neither; the counts say the same."""
    root = etree.fromstring(write(*check_of(site), form="junit")[1])
    ((suite,)) = root
    found = {c.get("name").split()[2]: [e.tag for e in c] for c in suite.iter("testcase")}
    assert found == {"best_effort": [], "hard_protected": ["failure"], "soft_priority": ["error"]}
    assert [suite.get(k) for k in ("tests", "failures", "errors")] == ["3", "1", "1"]
    assert "skipped" not in etree.tostring(root).decode()


def test_github_annotations_name_file_and_line(site: Site, broken: Path) -> None:
    """A rejected row is an error at its line of the descriptor; a violation names its event; the last line counts."""
    _, text = write(*check_of(site), form="github")
    first, second, last = text.splitlines()
    assert first.startswith(f"::error file={site.descriptor.name},line=")
    assert second.startswith(f"::warning file={site.descriptor.name},line=")
    assert last.startswith("residentkv: 1 pass, 1 violated, 1 unknown. ")
    _, text = write("audit", str(broken), form="github")
    assert text.startswith(f"::error file={broken},title=RKV290 claim resident of tenant-a")
    assert "seq 14" in text.splitlines()[0]


def test_a_statement_is_one_of_in_toto(site: Site, broken: Path) -> None:
    """The in-toto project's own package takes it; subjects are the descriptor and the trace, by digest."""
    for arguments, subject in ((check_of(site), site.descriptor.name), (("audit", str(broken)), str(broken))):
        plain = write_json(*arguments, form="in-toto")
        message = statement_pb2.Statement()
        json_format.ParseDict(plain, message)
        Statement.copy_from_pb(message).validate()
        assert [s["name"] for s in plain["subject"]] == [subject]
        assert plain["predicate"]["report"] == write_json(*arguments, form="json")


def test_a_statement_needs_bytes_that_can_be_looked_up(
    broken: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Standard input has no name that anybody could look up, and without a file there is nothing to state."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(broken.read_bytes())))
    assert main(["audit", "-", "--format", "in-toto"]) == 2
    assert "-: found no digest" in capsys.readouterr().err
    assert main(["audit", "missing.jsonl", "--format", "in-toto"]) == 3
    assert capsys.readouterr().out == ""


def test_json_is_short_for_a_format(broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--json` writes what `--format json` writes."""
    main(["audit", str(broken), "--json"])
    short = capsys.readouterr().out
    main(["audit", str(broken), "--format", "json"])
    assert short == capsys.readouterr().out != ""


def test_a_format_that_does_not_fit_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown format names the nearest; the suite is about no file, so nothing can be stated about one."""
    assert main(["suite", "--format", "sarf"]) == 2
    assert "did you mean 'sarif'?" in capsys.readouterr().err
    assert main(["suite", "--format", "in-toto"]) == 2
    assert "expected one of text, json, sarif, junit, github" in capsys.readouterr().err


def test_a_report_replaces_the_old_one_or_leaves_it(broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that cannot be written is exit 3 with a reason, and an earlier report is replaced as a whole."""
    old = Path("old.json")
    old.write_text("x" * 10_000_000)
    assert main(["audit", str(broken), "--format", "json", "-o", str(old)]) == 10
    assert json.loads(old.read_text())["exit_code"] == 10
    assert capsys.readouterr().out == ""
    assert main(["audit", str(broken), "--format", "json", "-o", "missing/file"]) == 3
    assert "missing/file: cannot be written" in capsys.readouterr().err
