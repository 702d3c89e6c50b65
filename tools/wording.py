"""Count how plainly the code speaks: openings of docstrings, words of a dialect, helpers with a single caller.

`python -m tools.wording [PATH…]` prints one line per program and each place that should be rewritten;
`tests/unit/test_wording.py` holds the limits.
"""

import argparse
import ast
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

PROGRAMS: Final = {
    "library": Path("src/agentqueue"),
    "operator": Path("operator/src/agentqueue_operator"),
    "worker": Path("worker/src/agentqueue_worker"),
}

OPENING: Final = re.compile(r"(What|Whether|Of|As|Where|How|That|Who|Whom|Whose)\b")
"""First words that leave a sentence without subject and verb, or hide them."""

TELL: Final = re.compile(r"\b(tell|tells|told|telling)\b", re.IGNORECASE)

DIALECT: Final = re.compile(
    r"\b(anew|tells?|told|telling|hindrances?|whoever|whomever|bury|buries|buried|burials?|none of which|by now"
    r"|so (?:long|many|much|often|far) as|what it (?:comes to|has|is)|is to be|are to be|comes to nothing)\b",
    re.IGNORECASE,
)
"""Words that a reader has to translate. The field's word, or a plain sentence, stands instead."""


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the code that should be rewritten."""

    path: Path
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


@dataclass(slots=True)
class Count:
    """What was counted in some files."""

    lines: int = 0
    docstrings: int = 0
    openings: list[Place] = field(default_factory=list)
    tells: list[Place] = field(default_factory=list)
    dialect: list[Place] = field(default_factory=list)
    single_callers: list[Place] = field(default_factory=list)

    def per_thousand_docstrings(self, places: Iterable[Place]) -> float:
        """Return the number of places per 1,000 docstrings."""
        return 1_000 * len(list(places)) / max(self.docstrings, 1)

    def per_thousand_lines(self, places: Iterable[Place]) -> float:
        """Return the number of places per 1,000 lines of code."""
        return 1_000 * len(list(places)) / max(self.lines, 1)


def docstrings_of(tree: ast.Module) -> Iterator[ast.Constant]:
    """Yield each docstring, and each string that documents the attribute or constant before it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value


def single_callers_of(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the line and the name of each private function or method that its module refers to exactly once."""
    references = Counter(
        node.id if isinstance(node, ast.Name) else node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Name | ast.Attribute)
    )
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and node.name.startswith("_")
            and not node.name.startswith("__")
            and not node.decorator_list
            and references[node.name] == 1
        ):
            yield node.lineno, node.name


def count_in(paths: Iterable[Path]) -> Count:
    """Count in Python files and in the folders that are given."""
    count = Count()
    files = (file for given in paths for file in ([given] if given.is_file() else given.rglob("*.py")))
    for path in sorted(files):
        text = path.read_text()
        tree = ast.parse(text)
        count.lines += text.count("\n")
        for docstring in docstrings_of(tree):
            words = str(docstring.value)
            count.docstrings += 1
            first = words.strip().split("\n")[0]
            if OPENING.match(words.strip()):
                count.openings.append(Place(path, docstring.lineno, first))
            if TELL.search(words):
                count.tells.append(Place(path, docstring.lineno, first))
        count.dialect += (Place(path, line, found) for line, found in _dialect_of(text))
        count.single_callers += (Place(path, line, name) for line, name in single_callers_of(tree))
    return count


def _dialect_of(text: str) -> Iterator[tuple[int, str]]:
    """Yield the words of the dialect in comments and strings, docstrings included."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in {tokenize.COMMENT, tokenize.STRING}:
            for found in DIALECT.finditer(token.string):
                yield token.start[0] + token.string[: found.start()].count("\n"), found[0]


def main() -> None:
    """Print the figures of each program, or of the paths that are given, and each place that should be rewritten."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", nargs="*", type=Path)
    given = parser.parse_args().paths
    groups = {"these paths": given} if given else {name: [path] for name, path in PROGRAMS.items()}
    for name, paths in groups.items():
        count = count_in(paths)
        for title, places in (
            ("opening", count.openings),
            ("tell or told", count.tells),
            ("dialect", count.dialect),
            ("single caller", count.single_callers),
        ):
            for place in places:
                print(f"{place} [{title}]")
        print(
            f"{name}: {count.docstrings} docstrings in {count.lines} lines; per 1,000 docstrings "
            f"{count.per_thousand_docstrings(count.openings):.0f} poor openings and "
            f"{count.per_thousand_docstrings(count.tells):.0f} with tell or told; {len(count.dialect)} words of the "
            f"dialect; {count.per_thousand_lines(count.single_callers):.1f} helpers with one caller per 1,000 lines"
        )


if __name__ == "__main__":
    main()
