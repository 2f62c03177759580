"""One-file HTML: the template environment, text that is safe to show, and a policy under which only our script runs.

Everything that comes from a descriptor or a trace is text: templates escape it, control and direction characters are
shown as escapes, and the page forbids itself the network and every script but its own (by digest).
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from residentkv import __version__
from residentkv.report.plain import escape_controls

TEMPLATES = Path(__file__).parent / "templates"
_FOR_SCRIPT = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026", 0x2028: "\\u2028", 0x2029: "\\u2029"}


def render_page(template: str, *, styles: tuple[str, ...], scripts: tuple[str, ...], **values: Any) -> str:
    """Return one page as a whole file.

    Args:
        template: its name.
        styles: names of style sheets, which are put into the page.
        scripts: names of scripts, likewise; the page allows no others.
        values: what the template shows.
    """
    css = "\n".join(_asset(name) for name in styles)
    js = "\n".join(_asset(name) for name in scripts)
    policy = (
        f"default-src 'none'; script-src '{_digest(js)}'; style-src '{_digest(css)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    page = _environment().get_template(template)
    return page.render(css=Markup(css), js=Markup(js), policy=policy, version=__version__, **values)


def script_data(value: Any) -> Markup:
    """Return plain data as JSON that may stand in a script element: nothing in it can end the element."""
    return Markup(msgspec.json.encode(value).decode().translate(_FOR_SCRIPT))


def visible(text: object) -> str:
    """Return text in which nothing is hidden: control and direction characters become escapes such as `\\u202e`."""
    return escape_controls(str(text))


def isolated(text: object) -> Markup:
    """Return a name as an element of its own, so that right-to-left letters move nothing around it."""
    return Markup("<bdi>{}</bdi>").format(visible(text))


def words(text: object) -> str:
    """Return the name of a choice as words: `sound_with_adapter` becomes `sound with adapter`."""
    return str(text).replace("_", " ")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters.update(visible=visible, isolated=isolated, words=words)
    return environment


def _shown(value: object) -> object:
    """Make visible whatever a template prints, so that no template can forget it."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return escape(visible(value))


@cache
def _asset(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
