"""Loads the user's code, given as `module:attribute`."""

import difflib
import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from agentqueue.agent.definition import Agent
from agentqueue.errors import HandlerImportError
from agentqueue.service.error_report import summarize, user_location


def load_target(target: str, *, folder: str | None = None) -> Any:
    """Return the object that `module:attribute` names.

    Args:
        target: the name, also as `module.attribute`, or as a module that contains one Agent.
        folder: folder in which modules are searched first. The default is the working directory, as in Python.

    Raises:
        HandlerImportError: the module does not import (the message has the error), or has no such attribute.
    """
    path = str(Path(folder or ".").resolve())
    if path not in sys.path:
        sys.path.insert(0, path)
    module_name, _, attribute = target.partition(":")
    if attribute:
        return _attribute(_import(module_name, target), attribute, target)
    module = _try_import(module_name)
    if module is not None:
        agents = _agents(module)
        if len({id(agent) for agent in agents.values()}) == 1:
            return next(iter(agents.values()))
        hint = f"has several agents: write {target}:{min(agents)}" if agents else "has no Agent: write module:attribute"
        raise HandlerImportError(f"handler {target!r}: the module {hint}")
    parent, _, last = module_name.rpartition(".")
    if not parent:
        _import(module_name, target)
    return _attribute(_import(parent, target), last, target)


def _try_import(name: str) -> ModuleType | None:
    """Return the module, or None if no module has this name. An import inside it that fails is an error."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name is not None and (name == exc.name or name.startswith(f"{exc.name}.")):
            return None
        raise HandlerImportError(_explain(name, name, exc)) from exc
    except (Exception, SystemExit) as exc:
        raise HandlerImportError(_explain(name, name, exc)) from exc


def _import(name: str, target: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as exc:  # importing a script may raise SystemExit
        raise HandlerImportError(_explain(name, target, exc)) from exc


def _explain(name: str, target: str, exc: BaseException) -> str:
    if isinstance(exc, ModuleNotFoundError) and exc.name and (name == exc.name or name.startswith(f"{exc.name}.")):
        known = [path.stem for path in Path().glob("*.py")]
        known += [path.parent.name for path in Path().glob("*/__init__.py")]
        return (
            f"handler {target!r}: no module {exc.name!r} in {Path.cwd()} or on the Python path; "
            f"write module:attribute, start where the module is, or set PYTHONPATH{_hint(exc.name, known)}"
        )
    place = user_location(exc)
    where = f" ({place})" if place else ""
    return f"handler {target!r}: module {name!r} does not import: {summarize(exc)}{where}"


def _hint(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _attribute(module: ModuleType, name: str, target: str) -> Any:
    value: Any = module
    for part in name.split("."):
        if not hasattr(value, part):
            agents = _agents(module)
            known = f"; its agents are {', '.join(sorted(agents))}" if agents else ""
            hint = _hint(part, [it for it in dir(value) if not it.startswith("_")])
            raise HandlerImportError(f"handler {target!r}: module {module.__name__!r} has no {name!r}{hint or known}")
        value = getattr(value, part)
    return value


def _agents(module: ModuleType) -> dict[str, Agent]:
    return {name: value for name, value in vars(module).items() if isinstance(value, Agent)}
