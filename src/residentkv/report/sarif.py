"""Results as SARIF 2.1.0 (OASIS), for code scanning and viewers.

A violation is an `error`, what is unknown a `warning`; a pass is no result. What a row leans on is a related location
below a base that is named after the package and version, since it is no file of the repository that is scanned.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from residentkv import __version__
from residentkv.report.catalogue import CataloguedRule, all_rules
from residentkv.report.results import Outcome, Result, Site

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
SOURCE_ROOT = "SRCROOT"
MAX_MESSAGE = 4000
_LEVELS = {Outcome.VIOLATED: "error", Outcome.UNKNOWN: "warning"}
_URL = re.compile(r"https?://", re.IGNORECASE)


def sarif_document(results: Iterable[Result], exit_code: int, notes: Sequence[str], caveat: str) -> dict[str, Any]:
    """Return results as a SARIF log with one run.

    Args:
        results: what was judged.
        exit_code: what the command ends with.
        notes: what a reader should know about the run.
        caveat: what no result says.
    """
    found = list(results)
    told = [r for r in found if r.outcome is not Outcome.PASS]
    rules = {rule.code: rule for rule in all_rules()}
    used = [rules[code] for code in sorted({r.rule for r in told if r.rule})]
    index = {rule.code: n for n, rule in enumerate(used)}
    seen: Counter[str] = Counter()
    bases = sorted({site.base for r in told for site in (*r.sites, *r.related) if site.base})
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "residentkv",
                        "version": __version__,
                        "semanticVersion": __version__,
                        "rules": [_rule(rule) for rule in used],
                    }
                },
                "originalUriBaseIds": {
                    SOURCE_ROOT: {"description": {"text": "The folder in which the command ran."}},
                    **{_base_id(base): {"description": {"text": _plain(base)}} for base in bases},
                },
                "invocations": [
                    {
                        "executionSuccessful": True,
                        "exitCode": exit_code,
                        "toolExecutionNotifications": [
                            {"level": "note", "message": {"text": _plain(text)}} for text in (*notes, caveat) if text
                        ],
                    }
                ],
                "columnKind": "unicodeCodePoints",
                "results": [_result(result, index, seen) for result in told],
                "properties": {"judged": len(found), "passed": len(found) - len(told)},
            }
        ],
    }


def _rule(rule: CataloguedRule) -> dict[str, Any]:
    facts = list(rule.facts())
    plain = " ".join(f"{label[:1].upper()}{label[1:]}: {text}." for label, text in facts)
    marked = "\n".join(f"- **{label}**: {_markdown(text)}" for label, text in facts)
    return {
        "id": rule.code,
        "name": "".join(word.capitalize() for word in rule.slug.split("-")),
        "shortDescription": {"text": _plain(rule.title) + "."},
        "fullDescription": {"text": f"Checks {_plain(rule.checks)}."},
        "help": {"text": _plain(plain), "markdown": f"{_markdown(rule.title)}.\n\n{marked}\n"},
        "defaultConfiguration": {"level": "error" if rule.worst == "violated" else "warning"},
        "properties": {"tags": ["kv-cache", rule.family]},
    }


def _result(result: Result, index: dict[str, int], seen: Counter[str]) -> dict[str, Any]:
    """Return one result; `seen` counts the fingerprints of those before it, which a viewer takes for the same."""
    first = fingerprint(result)
    nth = seen[first]
    seen[first] += 1
    out: dict[str, Any] = {
        "level": _LEVELS[result.outcome],
        "message": {"text": _plain(result.message)[:MAX_MESSAGE]},
        "locations": [_location(site) for site in result.sites[:1]],
        "partialFingerprints": {"residentkv/v1": fingerprint(result, nth)},
        "properties": {"outcome": result.outcome.value, "judged": result.name, "group": result.group},
    }
    if result.rule:
        out |= {"ruleId": result.rule, "ruleIndex": index[result.rule]}
    related = [*result.sites[1:], *result.related]
    if related:
        out["relatedLocations"] = [
            {"id": n, **_location(site), "message": {"text": _plain(site.note or "see also")}}
            for n, site in enumerate(related)
        ]
    return out


def fingerprint(result: Result, nth: int = 0) -> str:
    """Return what identifies a result across runs: what was judged, by which rule and for which time, not the line."""
    text = "\0".join((result.rule, *result.identity, *([str(nth)] if nth else [])))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _location(site: Site) -> dict[str, Any]:
    artifact = {"uri": _uri(site.path)}
    if site.base:
        artifact["uriBaseId"] = _base_id(site.base)
    elif not _URL.match(site.path) and not Path(site.path).is_absolute():
        artifact["uriBaseId"] = SOURCE_ROOT
    physical: dict[str, Any] = {"artifactLocation": artifact}
    if site.line:
        region = {"startLine": site.line}
        if site.column:
            region["startColumn"] = site.column
        if site.last_line > site.line:
            region["endLine"] = site.last_line
        physical["region"] = region
    location: dict[str, Any] = {"physicalLocation": physical}
    if site.event:
        location["logicalLocations"] = [{"name": _plain(site.event), "kind": "event"}]
    return location


def _uri(path: str) -> str:
    if _URL.match(path):
        return quote(path, safe=":/?#[]@!$&'()*+,;=%~")
    if Path(path).is_absolute():
        return "file://" + quote(path.encode("utf-8", "surrogateescape"))
    # A first segment with a colon would be read as a scheme, so it is quoted like everything else.
    return quote(path.encode("utf-8", "surrogateescape"), safe="/")


def _base_id(base: str) -> str:
    return "PACKAGE_" + re.sub(r"[^A-Za-z0-9]+", "_", base).strip("_").upper()[:80]


def _plain(text: str) -> str:
    """Return text in which neither a placeholder nor an embedded link is left (SARIF 2.1.0, 3.11.5 and 3.11.6)."""
    return re.sub(r"\{(\d+)\}", r"{{\1}}", text.replace("](", "] ("))


def _markdown(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", text)
