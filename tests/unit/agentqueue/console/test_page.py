"""The page's text functions, run by Node instead of a browser."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentqueue.console.app import STATIC
from tests.support.debian import ensure_packages

SCRIPT = """
import * as text from "MODULE";
import { createInterface } from "node:readline";
for await (const line of createInterface({ input: process.stdin })) {
  const [name, argument] = JSON.parse(line);
  console.log(JSON.stringify(text[name](argument)));
}
"""


@pytest.fixture(scope="module")
def node() -> str:
    if shutil.which("node") is None:
        ensure_packages("nodejs")
    return shutil.which("node") or "node"


class Page:
    """Yield a Node process that has loaded the page's text functions."""

    def __init__(self, node: str, folder: Path) -> None:
        (folder / "text.mjs").write_text((STATIC / "text.js").read_text())
        (folder / "run.mjs").write_text(SCRIPT.replace("MODULE", "./text.mjs"))
        self.process = subprocess.Popen(
            [node, str(folder / "run.mjs")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, name: str, argument: str) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([name, argument]) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@pytest.fixture(scope="module")
def page(node: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    one = Page(node, tmp_path_factory.mktemp("page"))
    yield one
    one.process.communicate(timeout=20)


def test_numbers_are_shown_as_they_are_stored(page: Page) -> None:
    job = (
        '{"id":"j","data":{"chat_id":9007199254740993,"price":1.10,"big":18446744073709551615},"result":-0.0,"x":null}'
    )
    texts = page("memberTexts", job)
    assert texts["data"] == '{"chat_id":9007199254740993,"price":1.10,"big":18446744073709551615}'
    assert texts["result"] == "-0.0"
    shown = page("pretty", texts["data"])
    assert shown == '{\n  "chat_id": 9007199254740993,\n  "price": 1.10,\n  "big": 18446744073709551615\n}'


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.text(max_size=4), VALUES, max_size=4), st.booleans())
def test_every_member_is_its_own_text(page: Page, value: dict[str, Any], compact: bool) -> None:
    text = json.dumps(value, ensure_ascii=compact, separators=(",", ":") if compact else None)
    found = page("memberTexts", text)
    assert {name: json.loads(member) for name, member in found.items()} == value


@settings(max_examples=150, deadline=None)
@given(VALUES)
def test_what_is_laid_out_is_the_same_value(page: Page, value: Any) -> None:
    assert page("pretty", json.dumps(value)) == json.dumps(value, indent=2)


@pytest.mark.parametrize(
    ("hash_", "parts"),
    [
        ("#/", [""]),
        ("#/queues/a%2Fb/dead", ["queues", "a/b", "dead"]),
        ("#/queues/%E0%A4%A", None),
        ("#/jobs/%", None),
        ("", [""]),
    ],
)
def test_an_invalid_address_is_recognized(page: Page, hash_: str, parts: list[str] | None) -> None:
    assert page("address", hash_) == parts


@pytest.mark.parametrize(
    ("about", "text"), [("in 59 min", "due in 59 min"), ("just now", "due now"), ("5 s ago", "due now")]
)
def test_when_a_delayed_job_is_due(page: Page, about: str, text: str) -> None:
    assert page("dueText", about) == text
