"""What the API server's refusal of one of our objects means to people."""

from agentqueue_operator.controller.status.pod_problems import Trouble
from agentqueue_operator.controller.status.reasons import Reason
from agentqueue_operator.resources.plan import Key


def refusal(key: Key, status: int, message: str) -> Trouble | None:
    """Return the trouble to report, or None if the refusal passes by itself: the next pass tries again."""
    if status == 409 or is_going_away(status, message):
        return None
    return Trouble(_reason(status, message), f"{key} is refused: {message}")


def _reason(status: int, message: str) -> Reason:
    if "exceeded quota" in message:
        return Reason.QUOTA_EXCEEDED
    if status == 403 and "cannot" in message:
        return Reason.FORBIDDEN
    return Reason.OBJECT_INVALID


def is_going_away(status: int, message: str) -> bool:
    """The object, or its namespace, is deleted while we work on it. A kind that is not served is another matter."""
    return "is being terminated" in message or (status == 404 and not message.startswith("404 page"))
