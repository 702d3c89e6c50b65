"""The error of a bridge whose library is not installed."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Return a context manager for the imports of what an extra installs.

    Args:
        extra: Name of the extra, such as `pydantic-ai`.

    Raises:
        ImportError: A module is missing. The message says what to install.
    """
    try:
        yield
    except ImportError as exc:
        module = f"agentqueue.integrations.{extra.replace('-', '_')}"
        raise ImportError(
            f"{module} needs more packages ({exc}): pip install 'agentqueue[{extra}]'", name=exc.name, path=exc.path
        ) from exc
