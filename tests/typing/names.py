"""The packages' names are known to a type checker, and no others. Nothing here runs."""

import agentqueue
import agentqueue.client
from agentqueue import Agnet  # type: ignore[attr-defined]
from agentqueue.client import Cleint  # type: ignore[attr-defined]

__all__ = ["Agnet", "Cleint"]

agentqueue.Agnet  # type: ignore[attr-defined]  # noqa: B018
agentqueue.client.Cleint  # type: ignore[attr-defined]  # noqa: B018
