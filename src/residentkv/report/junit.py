"""Results as JUnit XML: a suite a group, a case a judged thing; unknown is an error, never a skip and never a pass.

The shape is that of the Apache Ant schema, which is the strictest of those in use.
"""

from __future__ import annotations

import datetime
import hashlib
import itertools
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence

from residentkv import __version__
from residentkv.report.plain import escape_controls
from residentkv.report.results import Outcome, Result, Site

MAX_NAME = 400
_ELEMENTS = {Outcome.VIOLATED: "failure", Outcome.UNKNOWN: "error"}


def junit_text(results: Iterable[Result], now: datetime.datetime, notes: Sequence[str], caveat: str) -> str:
    """Return results as JUnit XML.

    Args:
        results: what was judged; those of one group stand together.
        now: when it was judged.
        notes: what a reader should know about the run.
        caveat: what no result says.
    """
    root = ET.Element("testsuites")
    groups = itertools.groupby(sorted(results, key=lambda r: r.group), key=lambda r: r.group)
    for number, (group, members) in enumerate(groups):
        root.append(_suite(number, group, list(members), now, [*notes, caveat]))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=False)


def _suite(number: int, group: str, results: Sequence[Result], now: datetime.datetime, notes: list[str]) -> ET.Element:
    outcomes = [r.outcome for r in results]
    suite = ET.Element(
        "testsuite",
        {
            "name": _name(group),
            "package": "residentkv",
            "id": str(number),
            "timestamp": now.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S"),
            "hostname": "localhost",
            "tests": str(len(results)),
            "failures": str(outcomes.count(Outcome.VIOLATED)),
            "errors": str(outcomes.count(Outcome.UNKNOWN)),
            "time": "0",
        },
    )
    properties = ET.SubElement(suite, "properties")
    ET.SubElement(properties, "property", {"name": "residentkv", "value": __version__})
    for result in results:
        suite.append(_case(group, result))
    ET.SubElement(suite, "system-out").text = "\n".join(escape_controls(note) for note in notes if note)
    ET.SubElement(suite, "system-err")
    return suite


def _case(group: str, result: Result) -> ET.Element:
    case = ET.Element("testcase", {"name": _name(result.name), "classname": _name(group), "time": "0"})
    if result.outcome is not Outcome.PASS:
        message = escape_controls(result.message)
        element = ET.SubElement(
            case,
            _ELEMENTS[result.outcome],
            {"message": message[:MAX_NAME], "type": result.rule or result.outcome.value},
        )
        element.text = "\n".join([message, *(_where(site) for site in (*result.sites, *result.related))])
    return case


def _where(site: Site) -> str:
    line = f":{site.line}" if site.line else ""
    inside = f" in {site.base}" if site.base else ""
    return escape_controls(f"at {site.path}{line}{inside} {site.event or site.note}".rstrip())


def _name(text: str) -> str:
    """Return a name of one line; one that is cut ends with a digest of all of it, so that no two become one."""
    name = escape_controls(" ".join(text.split()))
    if len(name) > MAX_NAME:
        name = f"{name[: MAX_NAME - 14]}..{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    return name or "unnamed"
