"""The operator's settings from its environment."""

from dataclasses import fields
from pathlib import Path

import pytest

from agentqueue.errors import UsageError
from agentqueue_operator.controller.settings import PREFIX, VARIABLES, Settings, read_settings

NOWHERE = "/nonexistent/namespace"


def test_nothing_set_gives_the_defaults() -> None:
    settings = read_settings({"AGENTQUEUE_OPERATOR_PORT": " ", "PATH": "/bin"}, namespace_file=NOWHERE)
    assert settings == Settings(namespace="default", instance=settings.instance)
    assert (settings.namespaces, settings.read_secrets, settings.port, settings.resync) == ((), True, 8080, 5.0)


def test_everything_that_the_chart_writes_is_read() -> None:
    given = {
        "NAMESPACES": "team-a, team-b,,team-a",
        "NAMESPACE": "agentqueue-system",
        "LEASE_NAME": "release-agentqueue",
        "IDENTITY": "release-agentqueue-0",
        "WORKER_IMAGE": "example/worker:2",
        "REDIS_IMAGE": "example/redis:7",
        "CONSOLE_IMAGE": "example/console:2",
        "READ_SECRETS": "False",
        "PORT": "9000",
        "RESYNC": "2.5",
        "LOG_LEVEL": "DEBUG",
        "LOG_FORMAT": "json",
    }
    settings = read_settings({PREFIX + name: value for name, value in given.items()})
    assert settings == Settings(
        namespaces=("team-a", "team-b"),
        namespace="agentqueue-system",
        lease_name="release-agentqueue",
        identity="release-agentqueue-0",
        worker_image="example/worker:2",
        redis_image="example/redis:7",
        console_image="example/console:2",
        read_secrets=False,
        port=9000,
        resync=2.5,
        log_level="debug",
        log_format="json",
        instance=settings.instance,
    )
    assert set(VARIABLES) == {PREFIX + name for name in given}
    assert len(VARIABLES) == len(fields(Settings)) - 1  # all but `instance`


def test_a_pod_s_own_namespace_is_read_from_its_service_account(tmp_path: Path) -> None:
    (tmp_path / "namespace").write_text("agentqueue-system\n")
    assert read_settings({}, namespace_file=str(tmp_path / "namespace")).namespace == "agentqueue-system"


def test_a_restarted_container_is_another_holder() -> None:
    first, second = (read_settings({PREFIX + "IDENTITY": "pod-0"}, namespace_file=NOWHERE) for _ in range(2))
    assert first.holder.startswith("pod-0_")
    assert first.holder != second.holder


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("PORT", "70000", "from 0 to 65535"),
        ("PORT", "http", "'http': must be a whole number from 0 to 65535"),
        ("RESYNC", "0", "from 0.5 to 300"),
        ("RESYNC", "nan", "from 0.5"),
        ("NAMESPACES", "ok,Not_OK", "lower-case letters"),
        ("LEASE_NAME", "-x", "without a dash at either end"),
        ("READ_SECRETS", "yes", "true, false"),
        ("WORKER_IMAGE", "a b", "without spaces"),
        ("LOG_LEVEL", "loud", "debug, info"),
    ],
)
def test_a_bad_value_names_its_variable(name: str, value: str, words: str) -> None:
    with pytest.raises(UsageError, match=PREFIX + name) as caught:
        read_settings({PREFIX + name: value}, namespace_file=NOWHERE)
    assert words in str(caught.value)


def test_a_typo_in_a_variable_s_name_is_reported() -> None:
    with pytest.raises(UsageError, match="AGENTQUEUE_OPERATOR_READ_SECRET is not a setting"):
        read_settings({"AGENTQUEUE_OPERATOR_READ_SECRET": "false"}, namespace_file=NOWHERE)
