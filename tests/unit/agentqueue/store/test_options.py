"""Where Redis is and how it is reached: variables, URLs, and what is wrong with them."""

from typing import Any

import pytest

from agentqueue.client import Client, SyncClient
from agentqueue.errors import UsageError
from agentqueue.service import environment as env
from agentqueue.store import Sentinels, ServerOptions, Tls, connection_environment, server_options
from agentqueue.store.options import parse_nodes

URL = "redis://:s3cret@redis.example:6400/2"
NODES = (("s0.example", 26379), ("s1.example", 26380))


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(ServerOptions(URL), id="plain"),
        pytest.param(ServerOptions(URL, tls=Tls()), id="tls-alone"),
        pytest.param(ServerOptions(URL, tls=Tls("ca.pem", "tls.crt", "tls.key")), id="certificates"),
        pytest.param(ServerOptions(URL, tls=Tls(skip_verify=True)), id="skip-verify"),
        pytest.param(ServerOptions(URL, sentinel=Sentinels("jobs", NODES)), id="sentinel"),
        pytest.param(ServerOptions(URL, tls=Tls("ca.pem"), sentinel=Sentinels("jobs", NODES, "pw")), id="all"),
    ],
)
def test_a_child_process_reads_what_its_parent_wrote(options: ServerOptions) -> None:
    variables = connection_environment(options)
    assert variables.keys() <= set(env.CONNECTION)
    assert server_options(variables) == options


def test_tls_options_of_a_child_process_must_be_files() -> None:
    with pytest.raises(AssertionError, match="must be files"):
        connection_environment(ServerOptions(URL, tls=Tls(ca_data="PEM")))


@pytest.mark.parametrize("name", ["timeout", "connect_timeout"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), True, None, "5"], ids=repr)
def test_a_timeout_is_a_number_of_seconds_over_0(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"^{name} .* must be a number of seconds over 0"):
        ServerOptions(URL, **{name: value})
    for make in (Client, SyncClient):
        with pytest.raises(UsageError, match=f"^{name} "):
            make(URL, **{name: value})


class TestTheEnvironment:
    def test_names_no_server(self) -> None:
        assert server_options({}) is None
        assert server_options({env.REDIS_URL: " ", env.REDIS_CA_FILE: "ca.pem"}) is None

    def test_our_variable_goes_before_everybodys(self) -> None:
        assert server_options({"REDIS_URL": "redis://a"}) == ServerOptions("redis://a")
        assert server_options({"REDIS_URL": "redis://a", env.REDIS_URL: "redis://b"}) == ServerOptions("redis://b")

    def test_a_urls_newline_is_not_of_it(self) -> None:
        assert server_options({env.REDIS_URL: f"{URL}\n"}) == ServerOptions(URL)

    def test_sentinels_are_enough(self) -> None:
        found = server_options({env.REDIS_SENTINEL_NODES: "s0.example:26379", env.REDIS_SENTINEL_MASTER: "jobs"})
        assert found == ServerOptions("redis://", sentinel=Sentinels("jobs", NODES[:1]))

    @pytest.mark.parametrize("name", [env.REDIS_CA_FILE, env.REDIS_TLS, env.REDIS_INSECURE_SKIP_VERIFY], ids=str)
    def test_each_setting_of_tls_asks_for_it(self, name: str) -> None:
        found = server_options({env.REDIS_URL: URL, name: "ca.pem" if name == env.REDIS_CA_FILE else "True"})
        assert found is not None
        assert found.is_secure

    def test_flags_can_be_off(self) -> None:
        assert server_options({env.REDIS_URL: URL, env.REDIS_TLS: "false"}) == ServerOptions(URL)

    def test_is_of_its_own_server(self) -> None:
        """A URL that is given leads to another server: neither its TLS nor its Sentinels are of this one."""
        variables = connection_environment(ServerOptions(URL, tls=Tls("ca.pem"), sentinel=Sentinels("jobs", NODES)))
        assert server_options(variables, "redis://local") == ServerOptions("redis://local")
        assert server_options(variables, "rediss://other") == ServerOptions("rediss://other", tls=Tls("ca.pem"))

    @pytest.mark.parametrize(
        ("variables", "says"),
        [
            pytest.param({env.REDIS_TLS: "maybe"}, "AGENTQUEUE_REDIS_TLS='maybe' must be true or false", id="flag"),
            pytest.param(
                {env.REDIS_CERT_FILE: "a"}, "AGENTQUEUE_REDIS_KEY_FILE must be set together", id="certificate-alone"
            ),
            pytest.param(
                {env.REDIS_SENTINEL_MASTER: "jobs"}, "SENTINEL_NODES and .*MASTER must be set together", id="name-alone"
            ),
            pytest.param(
                {env.REDIS_SENTINEL_NODES: "a:1"}, "SENTINEL_NODES and .*MASTER must be set together", id="nodes-alone"
            ),
            pytest.param(
                {env.REDIS_SENTINEL_NODES: "a", env.REDIS_SENTINEL_MASTER: "jobs"},
                "SENTINEL_NODES: address 1 must be host:port",
                id="no-port",
            ),
        ],
    )
    def test_a_variable_that_can_not_be_is_named(self, variables: dict[str, str], says: str) -> None:
        with pytest.raises(UsageError, match=says):
            server_options({env.REDIS_URL: URL, **variables})


class TestSentinels:
    def test_addresses(self) -> None:
        assert parse_nodes("a:1, [fe80::1]:26379,") == (("a", 1), ("fe80::1", 26379))

    @pytest.mark.parametrize("text", ["a", "a:", ":1", "a:0", "a:65536", "a:²", "u:pw@a:1", "a/b:1"])
    def test_what_is_no_address(self, text: str) -> None:
        with pytest.raises(ValueError, match="must be host:port"):
            parse_nodes(text)

    @pytest.mark.parametrize(("master", "nodes"), [("", NODES), ("jobs", ())])
    def test_it_takes_a_name_and_addresses(self, master: str, nodes: tuple[tuple[str, int], ...]) -> None:
        with pytest.raises(UsageError, match="Sentinel needs both"):
            Sentinels(master, nodes)

    def test_an_address_holds_no_password(self) -> None:
        with pytest.raises(UsageError, match=r"^Sentinel address 2 must be a plain host name") as caught:
            Sentinels("jobs", (("a", 1), (":hunter2@b", 2)))
        assert "hunter2" not in str(caught.value)


class TestMessages:
    """No message and no log ever shows a password."""

    def test_the_server_is_named_without_its_password(self) -> None:
        assert ServerOptions(URL).name == "redis://redis.example:6400/2"

    def test_sentinels_are_named_by_their_addresses(self) -> None:
        options = ServerOptions(URL, sentinel=Sentinels("jobs", NODES, "pw"))
        assert options.name == "jobs (Sentinel: s0.example:26379, s1.example:26380)"

    def test_options_are_shown_without_secrets(self) -> None:
        tls = Tls(cert_data="a", key_data="s3cret")
        assert "s3cret" not in repr(ServerOptions(URL, tls=tls, sentinel=Sentinels("jobs", NODES, "s3cret")))


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({env.REDIS_URL: "redis://h?ssl=true"}, env.REDIS_URL),
        ({"REDIS_URL": "http://:hunter2@h"}, "REDIS_URL"),
    ],
)
def test_a_url_that_can_not_be_used_names_its_variable(variables: dict[str, str], named: str) -> None:
    with pytest.raises(UsageError, match=f"^{named}: the Redis URL") as caught:
        server_options(variables)
    assert "hunter2" not in str(caught.value)


def test_tls_parameters_without_tls_are_refused() -> None:
    with pytest.raises(UsageError, match="use rediss://"):
        Client("redis://host?ssl_ca_certs=ca.pem")
