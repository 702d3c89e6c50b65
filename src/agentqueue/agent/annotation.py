"""The annotation of a payload or a result: its type, and the pydantic adapter that reads JSON as this type."""

import contextlib
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal

from agentqueue.agent.signature import name_of, place_of, resolve, scope_of
from agentqueue.errors import UsageError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

PLAIN_TYPES: Final = (Any, object)
"""Types that every JSON value has."""


class Annotation:
    """One annotation of a function. It is resolved, and its adapter is built, when they are needed first.

    Args:
        func: The function that has the annotation. None: `annotation` is the type itself.
        name: The parameter, or `return`.
        annotation: The annotation in the signature: a type, or a string to evaluate.
        use: What values of the type are, for error messages.
        owner: Name of what has the annotation, for error messages. By default the function's.
    """

    def __init__(
        self,
        func: Callable[..., Any] | None,
        name: str,
        annotation: Any,
        *,
        use: Literal["payload", "result", "value"],
        owner: str = "",
    ) -> None:
        self.name = name
        self.owner = owner if func is None else name_of(func)
        self._func = func
        self._annotation = annotation
        self._use = use
        if func is not None and isinstance(annotation, str) and (scope := scope_of(func)):
            with contextlib.suppress(NameError):  # the module may define the name later
                # Resolved now, while the local names of the function around the handler exist.
                self._annotation = resolve(func, name, annotation, scope)

    @functools.cached_property
    def type(self) -> Any:
        """Return the type. Any without an annotation.

        Raises:
            UsageError: The annotation has an unknown name.
        """
        if self._func is None:
            return self._annotation
        try:
            return resolve(self._func, self.name, self._annotation, {})
        except NameError as exc:
            what = "the return annotation of" if self.name == "return" else f"the annotation of {self.name!r} in"
            raise UsageError(
                f"{what} {self.owner} names something that is not known where the function is defined ({exc}); define "
                "the type at module level, and import it there, not under `if TYPE_CHECKING:`"
            ) from exc

    @functools.cached_property
    def adapter(self) -> "TypeAdapter[Any] | None":
        """Return the adapter of the type. None for a type that every JSON value has.

        Raises:
            UsageError: The annotation has an unknown name, or is a type that pydantic cannot read.
        """
        if self.type in PLAIN_TYPES:
            return None
        from pydantic import TypeAdapter  # noqa: PLC0415  # takes 100 ms and 6 MB, which plain handlers do not need
        from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError  # noqa: PLC0415

        try:
            return complete(TypeAdapter(self.type))
        except (PydanticUserError, PydanticUndefinedAnnotation) as exc:
            place = "" if self._func is None else place_of(self._func)
            raise UsageError(f"{self.owner}{place}: {self.type!r} can't be a {self._use}: {_why(exc)}") from exc

    @property
    def title(self) -> str:
        """Return the type's name for error messages."""
        return getattr(self.type, "__name__", None) or str(self.type)


def complete(adapter: "TypeAdapter[Any]") -> "TypeAdapter[Any]":
    """Return the adapter after a first use. A model with undefined names raises only when it is used."""
    _ = adapter.validator.title
    return adapter


def explain_errors(exc: Any) -> str:
    """Return the message of a ValidationError in one line."""
    problems = exc.errors(include_url=False, include_context=False)
    lines = [f"{'.'.join(map(str, p['loc'])) or 'payload'}: {p['msg']}" for p in problems[:10]]
    more = f" (and {len(problems) - 10} more)" if len(problems) > 10 else ""
    return "; ".join(lines) + more


def _why(exc: Exception) -> str:
    if getattr(exc, "code", None) == "typed-dict-version":
        return "pydantic reads typing.TypedDict from Python 3.12 on; import TypedDict from typing_extensions"
    if getattr(exc, "code", None) == "class-not-fully-defined":
        return "a type that it names is not defined; define it before, or call model_rebuild() once it is"
    return "use a pydantic model, a dataclass, a TypedDict or plain JSON types"
