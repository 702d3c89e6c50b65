"""Lua scripts are put together from includes: each carries all that it uses, and nothing else."""

import re

import pytest
from lupa import lua51

from agentqueue.store import scripts
from agentqueue.store.scripts import load, read_all

TEXTS = read_all()
INCLUDES = [name for name in TEXTS if name.startswith("includes/")]
COMMANDS = [name for name in TEXTS if name not in INCLUDES]


def code_of(name: str) -> str:
    """Return a file without comments and strings."""
    return re.sub(r"--\[\[.*?\]\]|--[^\n]*|'[^']*'", "", TEXTS[name], flags=re.DOTALL)


def defined_in(name: str) -> set[str]:
    """Return the names that a file defines for those that include it."""
    functions, variables = re.findall(r"^local function (\w+)|^local (\w[\w, ]*)", code_of(name), re.MULTILINE), set()
    for function, names in functions:
        variables |= {function} if function else {word.strip() for word in names.split(",")}
    return variables


def declared_by(name: str) -> set[str]:
    line = re.match(r"--! include ([a-z_ ]+)\n", TEXTS[name])
    return {f"includes/{word}" for word in line[1].split()} if line else set()


@pytest.mark.parametrize("name", TEXTS)
def test_a_file_includes_what_it_uses_and_nothing_else(name: str) -> None:
    words = set(re.findall(r"(?<![.\w])[A-Za-z_]\w*", code_of(name))) - defined_in(name)
    used = {include for include in INCLUDES if include != name and words & defined_in(include)}
    assert declared_by(name) == used


def test_every_include_is_used() -> None:
    assert set[str]().union(*map(declared_by, TEXTS)) == set(INCLUDES)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_script_compiles_with_each_include_once_and_after_those_that_it_needs(name: str) -> None:
    source = load(name).source
    compile_lua = lua51.LuaRuntime().eval("function(source) local chunk, err = loadstring(source) return err end")
    assert compile_lua(source.removeprefix("#!lua")) is None
    places = {include: source.find(TEXTS[include]) for include in INCLUDES if TEXTS[include] in source}
    for include, place in places.items():
        assert source.count(TEXTS[include]) == 1
        assert all(places[needed] < place for needed in declared_by(include))
    assert source.endswith(f"return (function()\n{TEXTS[name]}\nend)()")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_script_has_a_header(name: str) -> None:
    header = TEXTS[name].partition("--[[")[2].partition("]]")[0]
    assert re.search(r"^  Input\n.*^  Keys touched\n.*^  Output\n", header, re.DOTALL | re.MULTILINE)


def test_an_include_that_does_not_exist_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripts, "_read", {"broken": "--! include nothing\n"}.__getitem__)
    with pytest.raises(KeyError, match="includes/nothing"):
        load.__wrapped__("broken")


def test_the_shebang_lets_a_script_run_on_a_full_server_or_not() -> None:
    assert load("pause").source.startswith("#!lua\n")
    assert load("pause", allow_oom=True).source.startswith("#!lua flags=allow-oom\n")
