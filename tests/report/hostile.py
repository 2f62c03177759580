"""Names that try to be more than text, in a descriptor and in a trace, and how they have to be shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.lowering.site import BODY, HEAD, Site, install

MARKUP = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
TURNED = "safe\u202egnp.exe"
RINGING = "bell\x07\x1b[31mred"
HEBREW = "תביעה-א"
LONG = "very-long-" * 90
CLOSING = "</script></style>-->\"'&amp;{{ 7 * 7 }}{% x %}"

SHOWN = {TURNED: "safe\\u202egnp.exe", RINGING: "bell\\x07\\x1b[31mred"}
"""Names that are shown otherwise than they are; the others appear as they are."""

NAMES = (MARKUP, TURNED, RINGING, HEBREW, LONG, CLOSING)
TRACE = Path(__file__).parent.parent / "traces" / "reference" / "soft_priority.jsonl"


def write_trace(path: Path) -> Path:
    """Write a recorded trace whose claims, owners and requests have hostile names; it conforms as before."""
    events = [json.loads(line) for line in TRACE.read_text().splitlines()]
    olds = dict.fromkeys(e[key] for e in events for key in ("claim_id", "owner_scope", "request_id") if e.get(key))
    new = {old: NAMES[n] if n < len(NAMES) else f"{NAMES[n % len(NAMES)]}{n}" for n, old in enumerate(olds)}

    def renamed(value: Any) -> Any:
        if isinstance(value, list):
            return [renamed(v) for v in value]
        return new.get(value, value) if isinstance(value, str) else value

    lines = (json.dumps({key: renamed(value) for key, value in event.items()}) for event in events)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def write_site(folder: Path) -> Site:
    """Write a package and a descriptor about it whose texts are hostile."""
    install(folder / "site-packages")
    head = HEAD.replace("title: Some runtime", f"title: {json.dumps(MARKUP + TURNED + HEBREW)}")
    body = BODY.replace("title: LRU", f"title: {json.dumps(CLOSING)}")
    body = body.replace("summary: Blocks stay until others need the space.", f"summary: {json.dumps(LONG + TURNED)}")
    body = body.replace("why: Often taken for it.", f"why: {json.dumps(MARKUP + RINGING)}")
    body = body.replace("note: oldest goes first", f"note: {json.dumps(CLOSING + MARKUP)}")
    descriptor = folder / "hostile <b>.yaml"
    descriptor.write_text(head + body)
    site = Site(folder / "site-packages", descriptor)
    assert site.run("anchors", "add", "--missing") == 0
    return site
