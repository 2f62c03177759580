"""Symbols that are not what they were, although their text still stands in the file."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from tests.lowering.site import POOL, Site, build_site, install

ACCEPT = "@staticmethod\ndef accept(claim):\n    return True\n"
QUOTED = POOL.replace(ACCEPT, f'TEXT = """\n{ACCEPT}"""\n')


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("RESIDENTKV_CACHE", str(tmp_path / "cache"))
    return build_site(tmp_path)


@pytest.mark.parametrize(
    ("pool", "code"),
    [
        (POOL, 0),
        (POOL + "\n\nfor accept in (1,):\n    pass\n", 11),
        (POOL + "\n\nwith open(LIMIT) as accept:\n    pass\n", 11),
        (POOL + "\n\ndel accept\n", 11),
        (QUOTED, 11),
        (POOL + "\n\nif (accept := LIMIT):\n    pass\n", 11),
        (POOL + "\n\nWORDS = [accept for word in 'ab' if (accept := word)]\n", 11),
        (POOL + "\n\ndef other(x=(accept := 1)):\n    pass\n", 11),
        (POOL + "\n\nkey = lambda x: (accept := x)\n", 0),
        (POOL + "\n\ndef other(x):\n    if (accept := x):\n        return accept\n", 0),
        (POOL + "\n\ntry:\n    pass\nexcept ValueError as accept:\n    pass\n", 11),
        (POOL + "\n\nmatch LIMIT:\n    case [accept, *_]:\n        pass\n", 11),
        (POOL + "\n\nmatch LIMIT:\n    case {'a': 1, **accept}:\n        pass\n", 11),
        (POOL + "\n\nmatch LIMIT:\n    case [1] if (accept := 1):\n        pass\n", 11),
        (POOL + "\n\n@print((\n    accept := LIMIT))\ndef other():\n    pass\n", 11),
        (POOL + "\n\nclass Other:\n    x = (evict := 1)\n", 0),
        (POOL + "\n\nPool.evict = LIMIT\n", 11),
        (POOL + "\n\ndef other(x):\n    global accept\n    accept = x\n", 11),
        (POOL + "\n\nfrom somertime.fast import *\n", 11),
    ],
)
def test_a_symbol_that_is_bound_again_or_only_quoted_is_not_verified(pool: str, code: int, site: Site) -> None:
    """Whatever takes the name leaves no one symbol; a string defines none, and a function's own name takes nothing."""
    site.pool.write_text(pool)
    assert site.run("check", "--mode", "best_effort") == code


INDENTED = textwrap.indent(POOL[POOL.index("class Pool") :], "    ")
FALLBACK = f"try:\n    from fast import Pool\nexcept ImportError:\n{INDENTED}"
STARRED = f"from fast import *\n\nif LIMIT:\n{INDENTED}"


@pytest.mark.parametrize(
    ("pool", "code"),
    [
        (POOL + "\n\ndel Pool\n", 11),
        (POOL + "\n\nPool = object\n", 11),
        (POOL + "\n\nclass Pool:\n    pass\n", 11),
        (POOL + "\n\nfrom fast import Pool\n", 11),
        (POOL + "\n\ntry:\n    from fast import Pool\nexcept ImportError:\n    pass\n", 11),
        (POOL + "\n\nfrom somertime.fast import *\n", 11),
        (POOL + "\n\nif LIMIT:\n    from somertime.fast import *\n", 11),
        (FALLBACK, 11),
        (STARRED, 11),
        (POOL.replace("class Pool:", "class Lake:") + "\n\nLake = object\n", 11),
        ("from somertime.fast import *\n" + POOL, 0),
        (STARRED.replace("from fast import *", "import fast"), 0),
        (POOL.replace("class Pool:", "class Lake:"), 0),
        (POOL + "\n\ndef other():\n    Pool = object\n", 0),
        (POOL + "\n\nclass Other:\n    Pool = object\n", 0),
        (POOL + "\n\nPool.other = LIMIT\n", 0),
    ],
)
def test_a_symbol_of_a_class_that_is_bound_again_is_not_verified(pool: str, code: int, site: Site) -> None:
    """Another class of that name has other methods; a star import may bring one unless a later statement settles it."""
    site.pool.write_text(pool)
    assert site.run("anchors", "verify", "evict") == code


def test_a_copy_with_a_version_that_is_none_is_not_passed_over(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It may be the one that runs; that another copy is as it was judged does not make up for it."""
    other = tmp_path / "other"
    install(other, version="1.4.2.junk!", pool=POOL.replace("return True", "return False"))
    assert site.run("check", "--mode", "best_effort") == 0
    capsys.readouterr()
    assert site.run("check", "--mode", "best_effort", "--site-packages", str(other)) == 11
    assert "'1.4.2.junk!', which is none" in " ".join(capsys.readouterr().out.split())
