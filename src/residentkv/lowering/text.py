"""Text as it is compared: normalisation, digests, line ranges, and where a Python symbol stands in a file."""

from __future__ import annotations

import ast
import hashlib
import re
import warnings
from collections.abc import Iterator, Sequence

_LINE_END = re.compile(r"\r\n|\r|\n")

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
    common = indents[0] if indents else ""
    for indent in indents:
        while not indent.startswith(common):
            common = common[:-1]
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

    Functions, classes, methods, assignments, annotated fields and targets of `for`, `with` and `del` at module and
    class level, also inside `if`, `try`, `with`, `for` and `match`.
    A symbol that is bound more than once (overloads, a property and its setter, a
    fallback after ImportError) has several places: which one counts cannot be told from the text. Imports bind too.

    Raises:
        SyntaxError, ValueError: the file is not Python of this interpreter's version.
    """
    spans: dict[str, list[LineSpan]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes and the like in a file that is not ours
        tree = ast.parse(source)
    for name, span in _bindings(tree.body, ""):
        spans.setdefault(name, []).append(span)
    return spans


def _bindings(body: Sequence[ast.AST], prefix: str) -> Iterator[tuple[str, LineSpan]]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            yield prefix + node.name, (first, node.end_lineno or node.lineno)
            if isinstance(node, ast.ClassDef):
                yield from _bindings(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, ast.stmt):
            span = (node.lineno, node.end_lineno or node.lineno)
            for name in _bound_names(node):
                yield prefix + name, span
            for block in ("body", "orelse", "handlers", "finalbody", "cases"):
                yield from _bindings(getattr(node, block, []), prefix)
        elif isinstance(node, ast.ExceptHandler | ast.match_case):
            yield from _bindings(node.body, prefix)


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


def _target_names(target: ast.expr) -> Iterator[str]:
    if isinstance(target, ast.Name):
        yield target.id
    elif isinstance(target, ast.Tuple | ast.List):
        for element in target.elts:
            yield from _target_names(element)
    elif isinstance(target, ast.Starred):
        yield from _target_names(target.value)
