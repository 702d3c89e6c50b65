"""The error for requests that cannot be served. Its message is for the client's adviser."""


class CannotServe(Exception):
    """The request cannot be served, and retries cannot help. Agents raise `agentqueue.Fatal` from it."""
