"""What a bridge says whose library is missing."""

import pytest

from agentqueue.integrations.extras import needs_extra


def test_the_error_says_what_to_install() -> None:
    with pytest.raises(ImportError) as caught, needs_extra("pydantic-ai"):
        import pydantic_ai_that_is_missing  # type: ignore[import-not-found]  # noqa: F401
    assert str(caught.value) == (
        "agentqueue.integrations.pydantic_ai needs more packages (No module named 'pydantic_ai_that_is_missing'): "
        "pip install 'agentqueue[pydantic-ai]'"
    )
    assert caught.value.name == "pydantic_ai_that_is_missing"
