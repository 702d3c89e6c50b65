"""The console's settings, its program's exit codes, and small parts."""

import socket

import pytest

from agentqueue.console import __main__ as program
from agentqueue.console.auth import is_authorized, is_public
from agentqueue.console.server import address_of, listen
from agentqueue.console.settings import Settings, read_settings
from agentqueue.errors import AgentQueueError, UsageError
from agentqueue.service.environment import CONNECTION
from tests.support.logs import logs_as_before

HOST, PORT, TOKEN = "AGENTQUEUE_CONSOLE_HOST", "AGENTQUEUE_CONSOLE_PORT", "AGENTQUEUE_CONSOLE_TOKEN"


def test_the_default_is_loopback_and_a_random_token() -> None:
    first, second = read_settings({}), read_settings({})
    assert (first.host, first.port, first.generated) == ("127.0.0.1", 8400, True)
    assert first.token != second.token
    assert len(first.token) >= 32


def test_arguments_override_the_environment() -> None:
    environ = {HOST: "0.0.0.0", PORT: "9000", TOKEN: "a-long-token\n"}
    assert read_settings(environ) == Settings("0.0.0.0", 9000, "a-long-token", generated=False)
    assert read_settings(environ, host="::1", port=0) == Settings("::1", 0, "a-long-token", generated=False)


def test_the_token_is_not_in_its_repr() -> None:
    assert "a-long-token" not in repr(read_settings({TOKEN: "a-long-token"}))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1"])
def test_a_console_on_a_public_address_needs_a_token(host: str) -> None:
    with pytest.raises(UsageError, match=f"needs a token: set {TOKEN}"):
        read_settings({HOST: host, TOKEN: " "})


@pytest.mark.parametrize("port", ["x", "-1", "65536", "8.5", "²"])
def test_an_invalid_port(port: str) -> None:
    with pytest.raises(UsageError, match=PORT):
        read_settings({PORT: port})


@pytest.mark.parametrize(
    ("header", "right"),
    [
        ("Bearer a-long-token", True),
        ("bearer  a-long-token ", True),
        ("Bearer a-long-toke", False),
        ("Bearer", False),
        ("", False),
        (None, False),
        ("a-long-token", False),
    ],
)
def test_authorization(header: str | None, right: bool) -> None:
    assert is_authorized(header, "a-long-token") is right


@pytest.mark.parametrize(
    ("path", "opened"),
    [("/", True), ("/healthz", True), ("/static/console.js", True), ("/api/queues", False), ("/staticx", False)],
)
def test_public_paths(path: str, opened: bool) -> None:
    assert is_public(path) is opened


def test_an_error_names_a_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AgentQueueError, match=rf"can't listen on 127.0.0.1:{port} .* --port or --host"):
            listen(Settings("127.0.0.1", port, "a-long-token"))


@pytest.mark.parametrize(("host", "there"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1")])
def test_the_address_works_in_a_browser_on_this_machine(host: str, there: str) -> None:
    with listen(Settings(host, 0, "a-long-token")) as listener:
        assert address_of(listener) == f"http://{there}:{listener.getsockname()[1]}"


@pytest.mark.parametrize(
    ("environ", "code", "says"),
    [
        pytest.param({}, 2, "no Redis to connect to: set AGENTQUEUE_REDIS_URL", id="no-redis"),
        pytest.param({"REDIS_URL": "redis://x", PORT: "x"}, 2, PORT, id="port"),
        pytest.param(
            {"REDIS_URL": "redis://x", "AGENTQUEUE_LOG_LEVEL": "loud"}, 2, "LOG_LEVEL=loud must be one of", id="log"
        ),
        pytest.param({"REDIS_URL": "redis://x", TOKEN: "short", PORT: "0"}, 2, "at least 8 characters", id="token"),
        pytest.param({"REDIS_URL": "redis://x", "AGENTQUEUE_REDIS_TLS": "x"}, 2, "must be true or false", id="tls"),
    ],
)
def test_errors_of_the_program(
    environ: dict[str, str], code: int, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (*CONNECTION, "REDIS_URL", HOST, PORT, TOKEN, "AGENTQUEUE_LOG_LEVEL", "AGENTQUEUE_LOG_FORMAT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with logs_as_before():
        assert program.main() == code
    assert says in capsys.readouterr().err
