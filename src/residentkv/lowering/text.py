"""Text as it is compared: normalisation, digests, line ranges, and where a Python symbol stands in a file."""

from __future__ import annotations

import ast
import bisect
import hashlib
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence

_LINE_END = re.compile(r"\r\n|\r|\n")
_LINE_END_BYTES = re.compile(rb"\r\n|\r|\n")

LineSpan = tuple[int, int]
"""First and last line, 1-based, both included."""


def split_lines(text: str) -> list[str]:
    """Split at CR LF, CR or LF only, as the Python tokenizer counts lines; a final line end adds no line."""
    lines = _LINE_END.split(text)
    if lines and not lines[-1]:
        lines.pop()
    return lines


def normalise(lines: Sequence[str]) -> str:
    """Return the text that is digested: no trailing blanks, LF line ends, no indentation common to all lines."""
    stripped = [line.rstrip(" \t\f\v") for line in lines]
    indents = [line[: len(line) - len(line.lstrip(" \t"))] for line in stripped if line]
    common = os.path.commonprefix(indents)  # noqa: RUF071 (characters are what is compared)
    return "\n".join(line[len(common) :] for line in stripped)


def digest_lines(lines: Sequence[str]) -> str:
    """Return the sha256 of the normalised text, 64 hex digits."""
    return hashlib.sha256(normalise(lines).encode("utf-8", "surrogatepass")).hexdigest()


def normalise_quote(quote: str) -> str:
    """Return a quotation with every run of white space as one blank."""
    return " ".join(quote.split())


def digest_quote(quote: str) -> str:
    """Return the sha256 of a normalised quotation."""
    return hashlib.sha256(normalise_quote(quote).encode("utf-8", "surrogatepass")).hexdigest()


def parse_span(lines: str) -> LineSpan:
    """Read `first-last`; the caller has checked the form."""
    first, last = lines.split("-")
    return int(first), int(last)


def render_span(span: LineSpan) -> str:
    """Write a span as `first-last`."""
    return f"{span[0]}-{span[1]}"


def symbol_spans(source: bytes) -> dict[str, list[LineSpan]]:
    """Return for every dotted symbol of a Python file the places where it is bound, decorators included.

    Whatever binds a name at module or class level: functions, classes, methods, assignments (also to an attribute of a
    class, as `Pool.evict = other`), annotated fields, targets of `for`, `with`, `del`, `except` and `:=`, captures of
    `match`, imports; also inside `if`, `try`, `with`, `for` and `match`, and in a function that says `global`.
    A symbol that is bound more than once (overloads, a property and its setter, a
    fallback after ImportError) has several places: which one counts cannot be told from the text. `from x import *`
    may bind every name of the module, except those that a statement below it surely binds again.

    Raises:
        SyntaxError, ValueError: the file is not Python of this interpreter's version.
    """
    spans: dict[str, list[LineSpan]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes and the like in a file that is not ours
        tree = ast.parse(source)
    rare = [n for n, line in enumerate(_LINE_END_BYTES.split(source), start=1) if b":=" in line or b"global" in line]
    for name, span in _bindings(tree.body, "", rare):
        spans.setdefault(name, []).append(span)
    stars = spans.pop("*", [])
    sure = _surely_bound(tree) if stars else set()
    for name in [n for n in spans if "." not in n]:
        bound_at = spans[name][0][0] if name in sure else 0
        spans[name] += [star for star in stars if star[1] >= bound_at]
    return spans


def uncertain_name(symbols: Mapping[str, Sequence[LineSpan]], symbol: str) -> str | None:
    """Return which of a symbol and the names that it lies in (`Pool.evict`, `Pool`) is not bound exactly once, if any.

    When `Pool` is bound again, `Pool.evict` is what the other one has, wherever its text stands.
    """
    name = symbol
    while name and len(symbols.get(name, ())) == 1:
        name = name.rpartition(".")[0]
    return name or None


def _surely_bound(tree: ast.Module) -> set[str]:
    """Return what statements of the module itself bind, not what stands in a branch, a loop or a function."""
    definitions = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    sure = [n for n in tree.body if isinstance(n, definitions) or not (hasattr(n, "body") or hasattr(n, "cases"))]
    return {name for name, _ in _bindings(sure, "", ())}


def _bindings(body: Sequence[ast.AST], prefix: str, rare: Sequence[int]) -> Iterator[tuple[str, LineSpan]]:
    """Yield what is bound; only nodes that have one of the `rare` lines are searched for `:=` and `global`."""
    for node in body:
        span = _span_of(node)
        if isinstance(node, ast.match_case):
            is_rare = bool(rare)  # it does not say where it stands
        else:
            first = min((d.lineno for d in getattr(node, "decorator_list", ())), default=span[0])
            at = bisect.bisect_left(rare, first)
            is_rare = at < len(rare) and rare[at] <= span[1]
        for name in _walrus_names(node) if is_rare else ():
            yield prefix + name, span
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            yield prefix + node.name, (first, span[1])
            if isinstance(node, ast.ClassDef):
                yield from _bindings(node.body, f"{prefix}{node.name}.", rare)
            elif is_rare:
                for inner in ast.walk(node):
                    if isinstance(inner, ast.Global):
                        yield from ((name, _span_of(inner)) for name in inner.names)
        elif isinstance(node, ast.stmt):
            for name in _bound_names(node):
                yield prefix + name, span
            for block in ("body", "orelse", "handlers", "finalbody", "cases"):
                yield from _bindings(getattr(node, block, []), prefix, rare)
        elif isinstance(node, ast.ExceptHandler):
            if node.name is not None:
                yield prefix + node.name, span
            yield from _bindings(node.body, prefix, rare)
        elif isinstance(node, ast.match_case):
            for name in _captured_names(node.pattern):
                yield prefix + name, _span_of(node.pattern)
            yield from _bindings(node.body, prefix, rare)


def _span_of(node: ast.AST) -> LineSpan:
    first = getattr(node, "lineno", 1)
    return first, getattr(node, "end_lineno", None) or first


def _walrus_names(node: ast.AST) -> Iterator[str]:
    """Yield the targets of `:=` in the expressions of a statement; a lambda binds its own, a comprehension does not."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):
            continue
        if isinstance(child, ast.NamedExpr):
            yield child.target.id
        yield from _walrus_names(child.args if isinstance(child, ast.Lambda) else child)


def _captured_names(pattern: ast.pattern) -> Iterator[str]:
    for node in ast.walk(pattern):
        name = node.rest if isinstance(node, ast.MatchMapping) else getattr(node, "name", None)
        if isinstance(name, str):
            yield name


def _bound_names(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.Assign):
        for target in node.targets:
            yield from _target_names(target)
    elif isinstance(node, ast.AnnAssign | ast.AugAssign | ast.For | ast.AsyncFor):
        yield from _target_names(node.target)
    elif isinstance(node, ast.With | ast.AsyncWith):
        for item in node.items:
            if item.optional_vars is not None:
                yield from _target_names(item.optional_vars)
    elif isinstance(node, ast.Delete):
        for target in node.targets:
            yield from _target_names(target)
    elif isinstance(node, ast.Import | ast.ImportFrom):
        for alias in node.names:
            yield alias.asname or alias.name.split(".")[0]
    elif type(node).__name__ == "TypeAlias":  # Python 3.12
        yield from _target_names(node.name)  # type: ignore[attr-defined]


def _target_names(target: ast.expr) -> Iterator[str]:
    if isinstance(target, ast.Name):
        yield target.id
    elif isinstance(target, ast.Attribute):
        yield from (f"{owner}.{target.attr}" for owner in _target_names(target.value))
    elif isinstance(target, ast.Tuple | ast.List):
        for element in target.elts:
            yield from _target_names(element)
    elif isinstance(target, ast.Starred):
        yield from _target_names(target.value)
