"""The rooms of the code: imports form no circle, and each import contract fails when an import breaks it."""

from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import grimp
import pytest
from importlinter.api import read_configuration
from importlinter.contracts.forbidden import ForbiddenContract
from importlinter.contracts.independence import IndependenceContract
from importlinter.contracts.layers import LayersContract

ROOT = Path(__file__).parents[2]
PROGRAMS = ("agentqueue", "agentqueue_operator", "agentqueue_worker")
KINDS: dict[str, type[ForbiddenContract] | type[IndependenceContract] | type[LayersContract]] = {
    "forbidden": ForbiddenContract,
    "independence": IndependenceContract,
    "layers": LayersContract,
}
OPTIONS = read_configuration(str(ROOT / "pyproject.toml"))
CONTRACTS: dict[str, dict[str, Any]] = {options["id"]: options for options in OPTIONS["contracts_options"]}

PLANTED = [
    ("library-alone", "agentqueue.model.job", "agentqueue_worker.process"),
    ("library-alone", "agentqueue.cli.main", "agentqueue_operator.local.run"),
    ("programs-apart", "agentqueue_operator.local.run", "agentqueue_worker.process"),
    ("library-layers", "agentqueue.model.job", "agentqueue.store.engine"),
    ("library-layers", "agentqueue.console.api", "agentqueue.cli.output"),
    ("library-layers", "agentqueue.store.engine", "agentqueue.agent.context"),
    ("operator-layers", "agentqueue_operator.controller.manager", "agentqueue_operator.local.run"),
    ("operator-layers", "agentqueue_operator.local.run", "agentqueue_operator.controller.ports"),
    ("operator-layers", "agentqueue_operator.autoscaling.decision", "agentqueue_operator.queues.ports"),
    ("controller-layers", "agentqueue_operator.controller.status.conditions", "agentqueue_operator.controller.applier"),
    (
        "controller-layers",
        "agentqueue_operator.controller.reconciler",
        "agentqueue_operator.controller.kubernetes.client",
    ),
    ("worker-layers", "agentqueue_worker.domain.retry", "agentqueue_worker.app.job"),
    ("worker-layers", "agentqueue_worker.app.runner", "agentqueue_worker.adapters.agents"),
    ("pure-rooms", "agentqueue.model.job", "time"),
    ("pure-rooms", "agentqueue_operator.autoscaling.decision", "random"),
    ("pure-rooms", "agentqueue_operator.resources.plan", "kubernetes"),
    ("pure-rooms", "agentqueue_operator.controller.status.conditions", "agentqueue.clock"),
    ("pure-rooms", "agentqueue_worker.domain.retry", "asyncio"),
    ("redis-in-store", "agentqueue.client.async_client", "redis"),
    ("kopf-in-kubernetes", "agentqueue_operator.controller.reconciler", "kopf"),
    ("arq-in-adapter", "agentqueue_worker.app.claim_loop", "arq"),
]


@cache
def graph() -> grimp.ImportGraph:
    """Return the imports of the three programs, those of other packages included."""
    return grimp.build_graph(*PROGRAMS, include_external_packages=True, cache_dir=None)


def is_kept(contract: str, imports: grimp.ImportGraph) -> bool:
    options = CONTRACTS[contract]
    checker = KINDS[options["type"]](
        name=options["name"], session_options=OPTIONS["session_options"], contract_options=options
    )
    return checker.check(deepcopy(imports), verbose=False).kept


def circles_of(imports: dict[str, set[str]]) -> Iterator[list[str]]:
    """Yield a path for each module from which imports lead back to it."""
    for start in imports:
        paths, seen = [[start]], set[str]()
        while paths:
            path = paths.pop()
            for module in imports.get(path[-1], ()):
                if module == start:
                    yield [*path, module]
                    paths.clear()
                    break
                if module not in seen:
                    seen.add(module)
                    paths.append([*path, module])


@pytest.mark.parametrize("program", PROGRAMS)
def test_no_module_imports_itself_through_others(program: str) -> None:
    """Imports inside of functions and for type checkers count too: they hide a circle, they do not open it."""
    own = {module for module in graph().modules if f"{module}.".startswith(f"{program}.")}
    assert len(own) > 20
    imports = {module: graph().find_modules_directly_imported_by(module) & own for module in own}
    assert list(circles_of(imports)) == []


def test_a_circle_is_found() -> None:
    assert list(circles_of({"a": {"b"}, "b": {"c"}, "c": {"b"}})) == [["b", "c", "b"], ["c", "b", "c"]]


@pytest.mark.parametrize("contract", CONTRACTS)
def test_a_contract_is_kept(contract: str) -> None:
    assert is_kept(contract, graph())


@pytest.mark.parametrize(("contract", "importer", "imported"), PLANTED)
def test_a_contract_fails_when_an_import_breaks_it(contract: str, importer: str, imported: str) -> None:
    planted = deepcopy(graph())
    assert importer in planted.modules, "the module has moved: name another one"
    if imported not in planted.modules:
        planted.add_module(imported, is_squashed=True)
    planted.add_import(importer=importer, imported=imported)
    assert not is_kept(contract, planted)


@pytest.mark.parametrize("contract", [name for name, options in CONTRACTS.items() if options["type"] == "layers"])
def test_a_new_room_must_be_given_a_layer(contract: str) -> None:
    planted = deepcopy(graph())
    (container,) = CONTRACTS[contract]["containers"]
    planted.add_module(f"{container}.attic")
    assert not is_kept(contract, planted)


def test_each_contract_has_a_planted_violation() -> None:
    assert {contract for contract, _, _ in PLANTED} == set(CONTRACTS)
