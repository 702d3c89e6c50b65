"""Explains to users why the API server rejected one of the operator's objects."""

from agentqueue_operator.controller.status.reasons import Problem, Reason
from agentqueue_operator.resources.plan import Key


def explain_api_error(key: Key, status: int, message: str) -> Problem | None:
    """Return the problem to report, or None if the error is transient and the next reconcile retries."""
    if status == 409 or is_being_deleted(status, message):
        return None
    reason = Reason.OBJECT_INVALID
    if "exceeded quota" in message:
        reason = Reason.QUOTA_EXCEEDED
    elif status == 403 and "cannot" in message:
        reason = Reason.FORBIDDEN
    return Problem(reason, f"{key} is rejected: {message}")


def is_being_deleted(status: int, message: str) -> bool:
    """Return whether the object or its namespace is being deleted. A kind that is not served does not count."""
    return "is being terminated" in message or (status == 404 and not message.startswith("404 page"))
