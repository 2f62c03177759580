"""A headless Chromium for the reports: whatever a page asks the network for or complains about is an error."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SIZES = {"desktop": (1280, 1000), "phone": (390, 844)}
THEMES = ("light", "dark")
AXE = resources.files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Debian's Chromium; the driver's own is never downloaded."""
    path = shutil.which("chromium")
    assert path is not None, "no chromium on this machine; run `make env-browser`"
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visit(
    browser: Browser, file: Path, fragment: str = "", *, size: str = "desktop", theme: str = "light"
) -> Iterator[Page]:
    """Open a file; at the end, nothing may have been asked for but the file, and nothing may have gone wrong."""
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=theme, has_touch=size == "phone", bypass_csp=False
    )
    page = context.new_page()
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(f"console {message.type}: {message.text}"))
    page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    page.on("request", lambda request: wrong.append(f"request: {request.url[:200]}"))
    page.goto(f"{file.as_uri()}{fragment}")
    try:
        yield page
    finally:
        context.close()
    asked = [w for w in wrong if not w.startswith((f"request: {file.as_uri()}"[:200], "request: data:"))]
    assert asked == []


def problems(browser: Browser, file: Path, *, size: str, theme: str, before: str = "") -> list[str]:
    """Return what axe has against a page: contrast, labels, roles, order of headings, and all its other rules.

    Args:
        browser: the browser.
        file: the page.
        size: key of SIZES.
        theme: one of THEMES.
        before: script that brings the page into the state to be looked at.
    """
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=theme, bypass_csp=True
    )  # The policy of the page keeps axe out as well.
    page = context.new_page()
    page.goto(file.as_uri())
    if before:
        page.evaluate(before)
    page.evaluate(AXE)
    found: dict[str, Any] = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    context.close()
    return [
        f"{v['id']}: {v['help']}: {node['html'][:160]} {node.get('failureSummary', '')[:200]}"
        for v in found["violations"]
        for node in v["nodes"][:4]
    ]
