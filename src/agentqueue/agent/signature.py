"""The signature of a handler: the parameters for its context and its payload, and the payload's type.

Annotations are resolved one by one, since other parameters may have names that only a type checker imports.
"""

import functools
import inspect
import sys
import types
import typing
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final

from agentqueue.errors import UsageError

Parameter = inspect.Parameter
_POSITIONAL: Final = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_VARIABLE: Final = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


def payload_parameter(func: Callable[..., Any], context: type) -> Parameter | None:
    """Return the second parameter of a handler, its payload. None if the handler takes the context alone.

    Args:
        func: The handler.
        context: The class of the first argument.

    Raises:
        UsageError: The handler accepts neither `(ctx)` nor `(ctx, payload)`, or takes no context.
    """
    parameters = list(signature_of(func).parameters.values())
    positional = [p for p in parameters if p.kind in _POSITIONAL]
    required = [p for p in parameters if p.default is p.empty and p.kind not in _VARIABLE and p not in positional[:2]]
    if not positional or required:
        raise UsageError(f"{_shown(func)} must take (ctx) or (ctx, payload); put several values into one model or dict")
    _check_context(func, positional, context)
    if len(positional) > 1:
        return positional[1]
    variable = next((p for p in parameters if p.kind in _VARIABLE), None)
    if variable is not None:
        raise UsageError(
            f"{_shown(func)} never gets anything in {variable}, since a payload is one argument: "
            "write (ctx, payload), or (ctx) if it takes none"
        )
    return None


def signature_of(func: Callable[..., Any]) -> inspect.Signature:
    """Return the signature of a handler. Annotations that cannot be evaluated stay unresolved.

    Raises:
        UsageError: The handler is a class, or has no signature.
    """
    if inspect.isclass(func):
        raise UsageError(f"{name_of(func)} is a class; a handler is a function, a method or an object that is called")
    try:
        if sys.version_info >= (3, 14):  # PEP 649: annotations are evaluated when they are read
            import annotationlib  # noqa: PLC0415

            return inspect.signature(func, annotation_format=annotationlib.Format.FORWARDREF)
        return inspect.signature(func)
    except (TypeError, ValueError) as exc:
        raise UsageError(f"{name_of(func)} can't be a handler: {exc}") from exc


def returned_type(func: Callable[..., Any]) -> Any:
    """Return the return annotation of a function: what its value is once it has been awaited.

    Raises:
        UsageError: The function is a class, or has no signature.
    """
    returned = signature_of(func).return_annotation
    if typing.get_origin(returned) in (Awaitable, Coroutine):  # a plain function that returns a coroutine
        return typing.get_args(returned)[-1]
    return returned


def _check_context(func: Callable[..., Any], positional: list[Parameter], context: type) -> None:
    """Refuse a first parameter that is not for the context, by its annotation or, without one, by its name."""
    first = positional[0]
    name = first.name.lower()
    if name.startswith("_") or "ctx" in name or "context" in name:
        return
    try:
        kind = resolve(func, first.name, first.annotation, scope_of(func))
    except NameError:  # only a type checker may know the name, such as Context
        kind = Any
    if not (len(positional) > 1 if first.annotation is first.empty else _may_be(kind, context)):
        rest = f"(ctx: Context, {', '.join(map(str, positional))})"
        bare = f"; annotate it, ({first}: Context), if it is the context" if first.annotation is first.empty else ""
        raise UsageError(f"{_shown(func)} has no place for the context; write {name_of(func)}{rest}{bare}")


def _may_be(kind: Any, context: type) -> bool:
    """Return whether a context may be passed for an annotation."""
    if kind is not Any and isinstance(kind, type):  # from Python 3.11 on Any is a class
        return getattr(kind, "_is_protocol", False) or issubclass(context, kind) or issubclass(kind, context)
    if typing.get_origin(kind) in (typing.Union, types.UnionType, typing.Annotated):
        return any(_may_be(part, context) for part in typing.get_args(kind))
    return typing.get_origin(kind) is None  # Any, a TypeVar


def resolve(func: Callable[..., Any], name: str, annotation: Any, scope: Mapping[str, Any]) -> Any:
    """Return the type of one annotation of a function.

    Args:
        func: The function.
        name: The parameter's name.
        annotation: The annotation in the signature: a type, a string, or a reference to evaluate.
        scope: Known names in addition to the module's.

    Raises:
        NameError: The annotation has an unknown name.
    """
    if annotation is Parameter.empty:
        return Any
    inner = innermost(func)

    def holder() -> None: ...

    holder.__annotations__ = {name: annotation}
    known = getattr(inner, "__globals__", {})
    return typing.get_type_hints(holder, known, {**known, **scope}, include_extras=True)[name]


def scope_of(func: Callable[..., Any]) -> Mapping[str, Any]:
    """Return the local names around a function that is defined in another function.

    Its annotations may be strings (PEP 563) with names of local classes, which cannot be found in another way.
    """
    inner = innermost(func)
    if "<locals>" not in getattr(inner, "__qualname__", ""):
        return {}
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals is not getattr(inner, "__globals__", None):
        frame = frame.f_back
    found: dict[str, Any] = {}
    while frame is not None and frame.f_globals is inner.__globals__ and frame.f_code.co_name != "<module>":
        found = dict(frame.f_locals) | found
        frame = frame.f_back
    return found


def innermost(func: Callable[..., Any]) -> Any:
    """Return the function that has a handler's annotations, behind decorators, partials, methods and objects."""
    func = inspect.unwrap(func)
    while isinstance(func, functools.partial):
        func = inspect.unwrap(func.func)
    if not inspect.isroutine(func):
        func = type(func).__call__
    return getattr(func, "__func__", func)


def name_of(func: Callable[..., Any]) -> str:
    """Return the name of a function for error messages."""
    return getattr(func, "__qualname__", None) or repr(func)


def place_of(func: Callable[..., Any]) -> str:
    """Return the place of a function's definition as ` (FILE:LINE)`. Empty if it is not known."""
    code = getattr(innermost(func), "__code__", None)
    return f" ({code.co_filename}:{code.co_firstlineno})" if code is not None else ""


def _shown(func: Callable[..., Any]) -> str:
    return f"{name_of(func)}{signature_of(func)}"
