"""Find time limits of asyncio around durable waits in the source of handlers.

A suspension ends the run, and the next one starts the limit again. So the limit never ends a wait that is longer than a
moment.
"""

import ast
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

LIMITS: Final = frozenset({"asyncio.timeout", "asyncio.timeout_at"})
"""Context managers that limit the time of their block."""
WRAPPERS: Final = frozenset({"asyncio.wait_for", "asyncio.wait", "asyncio.as_completed"})
"""Functions that limit the time of what they are given, or choose between several."""
ADVICE: Final[Mapping[str, str]] = {
    "wait_for": "write ctx.wait_for(..., timeout=...)",
    "gather": "write ctx.gather(..., timeout=...)",
    "child": "write ctx.gather([ctx.child(...)], timeout=...)",
    "first": "give it a wait that ends, such as late=ctx.sleep(...)",
    "sleep": "write ctx.first(late=ctx.sleep(...), ...)",
}
"""What to write instead, by the durable wait."""


@dataclass(frozen=True, slots=True)
class LintWarning:
    """A call that does not do what it looks like."""

    path: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


def find_limited_waits(source: str, path: str) -> Sequence[LintWarning]:
    """Return the durable waits that a time limit of asyncio surrounds, in the order of their lines.

    A context is a parameter that is annotated as `Context`, or named `ctx`.

    Args:
        source: a module's source.
        path: its file, for the warnings.

    Raises:
        SyntaxError: the source is not Python.
    """
    tree = ast.parse(source, path)
    finder = _Finder(_names_of_asyncio(tree))
    finder.visit(tree)
    found = {(line, message) for line, message in finder.found}
    return [LintWarning(path, line, message) for line, message in sorted(found)]


def _names_of_asyncio(tree: ast.Module) -> Mapping[str, str]:
    """Return what names of the module stand for: `{"aio": "asyncio", "limit": "asyncio.timeout"}`."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {it.asname or it.name: it.name for it in node.names if it.name == "asyncio"}
        elif isinstance(node, ast.ImportFrom) and node.module == "asyncio":
            names |= {it.asname or it.name: f"asyncio.{it.name}" for it in node.names}
    return names


class _Finder(ast.NodeVisitor):
    def __init__(self, names: Mapping[str, str]) -> None:
        self.found: list[tuple[int, str]] = []
        self._names = names
        self._contexts: frozenset[str] = frozenset()
        """Names of contexts in the function that is visited."""
        self._limit: str | None = None
        """Time limit around what is visited."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """Visit a function, whose body does not run where it is defined."""
        self._visit_function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        """Visit an async function, whose body does not run where it is defined."""
        self._visit_function(node)

    def _visit_function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        arguments = node.args
        parameters = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        outer, limit = self._contexts, self._limit
        self._contexts, self._limit = outer | {it.arg for it in parameters if _is_context(it)}, None
        self.generic_visit(node)
        self._contexts, self._limit = outer, limit

    def visit_AsyncWith(self, node: ast.AsyncWith) -> None:
        """Visit a block, which a time limit may surround."""
        limits = [name for item in node.items if (name := self._called(item.context_expr)) in LIMITS]
        with self._within(limits[0] if limits else None):
            self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        """Visit a call: a durable wait, or one of asyncio that surrounds its arguments."""
        function, name = node.func, self._called(node)
        if (
            self._limit is not None
            and isinstance(function, ast.Attribute)
            and isinstance(function.value, ast.Name)
            and function.value.id in self._contexts
            and function.attr in ADVICE
        ):
            again = "starts" if self._limit in LIMITS or self._limit == "asyncio.wait_for" else "chooses"
            problem = f"{self._limit} around {ast.unparse(function)} {again} again in each run"
            self.found.append((node.lineno, f"{problem}; {ADVICE[function.attr]}"))
        with self._within(name if name in WRAPPERS else None):
            self.generic_visit(node)

    @contextmanager
    def _within(self, limit: str | None) -> Iterator[None]:
        outer = self._limit
        self._limit = limit or outer
        yield
        self._limit = outer

    def _called(self, node: ast.expr) -> str:
        """Return the full name of the function that is called; "" if it is none of a module."""
        function = node.func if isinstance(node, ast.Call) else None
        if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
            return f"{self._names.get(function.value.id, '')}.{function.attr}"
        return self._names.get(function.id, "") if isinstance(function, ast.Name) else ""


def _is_context(parameter: ast.arg) -> bool:
    annotation = parameter.annotation
    if annotation is None:
        return parameter.arg == "ctx"
    name = annotation.value if isinstance(annotation, ast.Constant) else ast.unparse(annotation)
    return str(name).rpartition(".")[2] == "Context"
