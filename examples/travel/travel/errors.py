"""What makes a request impossible, in words for the client's adviser."""


class CannotServe(Exception):
    """The request can't be served as it is, however often it is tried. Agents turn this into `agentqueue.Fatal`."""
