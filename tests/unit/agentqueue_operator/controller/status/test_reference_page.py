"""The reference of the conditions."""

from agentqueue.spec import ConditionType
from agentqueue_operator.controller.status.reasons import Reason
from agentqueue_operator.controller.status.reference_page import conditions_page


def test_the_page_has_each_condition_and_each_reason_with_its_remedy() -> None:
    page = conditions_page()
    assert all(f"| `{kind}` | " in page for kind in ConditionType)
    assert all(f"| `{reason}` | {reason.remedy} |" in page for reason in Reason)
