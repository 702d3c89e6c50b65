"""`python -m agentqueue.console`: what a console pod runs. The Redis URL and the rest come from the environment."""

import os
import sys

from agentqueue.console.run import run
from agentqueue.errors import AgentQueueError, UsageError
from agentqueue.store import server_options


def main() -> int:
    """Serve until SIGTERM. Returns the exit code: 0 stopped, 1 failed, 2 a setting is missing or wrong."""
    try:
        options = server_options(os.environ)
        if options is None:
            raise UsageError("no Redis to connect to: set AGENTQUEUE_REDIS_URL or REDIS_URL")
        run(options, os.environ)
    except AgentQueueError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2 if isinstance(exc, UsageError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
