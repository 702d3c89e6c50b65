"""How plainly the three programs speak: the limits, and that the counters see what they should."""

import ast
from functools import cache
from pathlib import Path

import pytest

from tools.wording import PROGRAMS, Count, count_in, single_callers_of

ROOT = Path(__file__).parents[2]
SAMPLE = '''"""What this module is for."""

import os

LIMIT = 3
"""Whether it is told anew."""


def _once(name):  # tells the server
    """Return the file's size."""
    return os.stat(name)


def size(name):
    return _once(name)
'''


@cache
def counted(program: str) -> Count:
    return count_in([ROOT / PROGRAMS[program]])


@pytest.mark.parametrize("program", PROGRAMS)
def test_docstrings_begin_with_a_verb_or_a_noun(program: str) -> None:
    count = counted(program)
    assert count.docstrings > 300
    assert count.per_thousand_docstrings(count.openings) < 20, "\n".join(map(str, count.openings))


@pytest.mark.parametrize("program", PROGRAMS)
def test_nothing_in_the_code_tells(program: str) -> None:
    count = counted(program)
    assert count.per_thousand_docstrings(count.tells) < 2, "\n".join(map(str, count.tells))


@pytest.mark.parametrize("program", PROGRAMS)
def test_no_word_of_the_dialect_is_in_a_comment_or_a_string(program: str) -> None:
    assert [str(place) for place in counted(program).dialect] == []


@pytest.mark.parametrize("program", PROGRAMS)
def test_few_private_helpers_have_a_single_caller(program: str) -> None:
    count = counted(program)
    assert count.per_thousand_lines(count.single_callers) < 10, "\n".join(map(str, count.single_callers))


def test_the_counters_see_what_they_should(tmp_path: Path) -> None:
    (tmp_path / "sample.py").write_text(SAMPLE)
    count = count_in([tmp_path])
    assert (count.lines, count.docstrings) == (SAMPLE.count("\n"), 3)
    assert [place.line for place in count.openings] == [1, 6]
    assert [place.line for place in count.tells] == [6]
    assert [(place.line, place.text) for place in count.dialect] == [(6, "told"), (6, "anew"), (9, "tells")]
    assert [place.text for place in count.single_callers] == ["_once"]


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("def size(): ...\nsize()", id="public"),
        pytest.param("def _size(): ...\n_size()\n_size()", id="two callers"),
        pytest.param("@register\ndef _size(): ...\n_size()", id="decorated"),
        pytest.param("class A:\n def __len__(self): ...\na.__len__()", id="a special method"),
    ],
)
def test_other_functions_are_no_helpers_with_a_single_caller(code: str) -> None:
    assert list(single_callers_of(ast.parse(code))) == []
