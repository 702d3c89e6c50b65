"""Redis over TLS: real certificates, a real server. Valkey's wheel has no TLS, so this is Redis 7 alone."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agentqueue.errors import QueueUnavailable, UsageError
from agentqueue.store import Server, ServerOptions, Tls
from tests.support.certificates import Certificates, issue
from tests.support.servers import RunningServer, free_port, run_server

QUICK: dict[str, Any] = {"connect_timeout": 3.0, "timeout": 5.0}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return issue(tmp_path_factory.mktemp("certificates"), "localhost")


@pytest.fixture(scope="module")
def tls_server(_redis_installed: None, certificates: Certificates) -> Iterator[RunningServer]:
    """Takes TLS with a client's certificate on `config["tls-port"]`, and anybody on its plain port."""
    with run_server("redis", certificates.server_config(free_port())) as server:
        yield server


@pytest.fixture
def port(tls_server: RunningServer) -> str:
    return tls_server.config["tls-port"]


async def connect(url: str, tls: Tls | None) -> None:
    async with Server(ServerOptions(url, tls=tls, **QUICK)) as server:
        assert await server.redis.ping()


# --- connecting


async def test_a_server_that_wants_a_certificate_gets_ours(port: str, certificates: Certificates) -> None:
    await connect(f"rediss://localhost:{port}", certificates.tls)


async def test_settings_of_tls_ask_for_it_whatever_the_scheme(port: str, certificates: Certificates) -> None:
    await connect(f"redis://localhost:{port}", certificates.tls)


async def test_certificates_may_be_given_as_text(port: str, certificates: Certificates) -> None:
    ca, cert, key = (certificates.text(name) for name in (certificates.ca, *certificates.of("client")))
    await connect(f"rediss://localhost:{port}", Tls(ca_data=ca, cert_data=cert, key_data=key))


async def test_the_name_on_the_certificate_may_be_given_apart_from_the_address(
    port: str, certificates: Certificates
) -> None:
    await connect(f"rediss://127.0.0.1:{port}", replace(certificates.tls, server_name="localhost"))


async def test_checks_can_be_left_out(port: str, certificates: Certificates) -> None:
    cert, key = certificates.of("client")
    await connect(f"rediss://127.0.0.1:{port}", Tls(cert_file=cert, key_file=key, skip_verify=True))
    await connect(f"rediss://127.0.0.1:{port}", replace(certificates.tls, check_hostname=False))


async def test_a_url_may_say_it_as_redis_py_has_it(port: str, certificates: Certificates) -> None:
    cert, key = certificates.of("client")
    said = f"ssl_ca_certs={certificates.ca}&ssl_certfile={cert}&ssl_keyfile={key}"
    await connect(f"rediss://localhost:{port}/1?{said}", None)
    await connect(f"rediss://127.0.0.1:{port}/1?{said}&ssl_check_hostname=false", None)
    await connect(f"rediss://127.0.0.1:{port}?ssl_cert_reqs=none&ssl_certfile={cert}&ssl_keyfile={key}", None)


async def test_a_renewed_certificate_is_shown_with_the_next_connection(
    port: str, certificates: Certificates, tmp_path: Path
) -> None:
    mounted, foreign = certificates.copy_to(tmp_path / "mounted"), issue(tmp_path / "foreign")
    async with Server(ServerOptions(f"rediss://localhost:{port}", tls=mounted.tls, **QUICK)) as server:
        foreign.copy_to(mounted.folder, "client")
        await server.redis.connection_pool.disconnect()
        with pytest.raises(QueueUnavailable, match=r"rejects our certificate|client certificate that it may require"):
            await server.check()


# --- what goes wrong is named, with what to do


@pytest.mark.parametrize(
    ("host", "change", "says"),
    [
        pytest.param(
            "localhost", {"ca_file": None}, "not trusted .* set AGENTQUEUE_REDIS_CA_FILE", id="unknown-authority"
        ),
        pytest.param("127.0.0.1", {}, "not valid for '127.0.0.1'; connect by a name that", id="wrong-name"),
        pytest.param(
            "localhost",
            {"cert_file": None, "key_file": None},
            "requires a client certificate .* set AGENTQUEUE_REDIS_CERT_FILE and|certificate that it may require",
            id="no-certificate",
        ),
    ],
)
async def test_what_is_wrong_with_certificates(
    port: str, certificates: Certificates, host: str, change: dict[str, Any], says: str
) -> None:
    with pytest.raises(QueueUnavailable, match=says):
        await connect(f"rediss://{host}:{port}", replace(certificates.tls, **change))


@pytest.mark.usefixtures("_redis_installed")
async def test_a_certificate_that_has_run_out(tmp_path: Path) -> None:
    old, port = issue(tmp_path, "localhost", until=datetime(2020, 1, 2, tzinfo=UTC)), free_port()
    says = "certificate has expired; renew the server's certificate"
    with (
        run_server("redis", old.server_config(port, auth_clients=False)),
        pytest.raises(QueueUnavailable, match=says),
    ):
        await connect(f"rediss://localhost:{port}", Tls(ca_file=old.ca))


async def test_plain_words_to_a_port_of_tls(port: str) -> None:
    with pytest.raises(QueueUnavailable, match=r"rediss:// if it requires TLS"):
        await connect(f"redis://localhost:{port}", None)


async def test_tls_to_a_plain_port(tls_server: RunningServer, certificates: Certificates) -> None:
    with pytest.raises(QueueUnavailable, match=r"redis:// if it does not speak TLS"):
        await connect(f"rediss://localhost:{tls_server.port}", certificates.tls)


@pytest.mark.parametrize(
    ("tls", "says"),
    [
        pytest.param({"ca_file": "/nowhere/ca.pem"}, "/nowhere/ca.pem can't be used .No such file", id="no-file"),
        pytest.param({"ca_file": "KEY"}, "certificate authorities .* can't be used", id="no-certificate-in-it"),
        pytest.param({"ca_data": "rubbish"}, "certificate authorities .* can't be used", id="no-pem"),
        pytest.param({"cert_file": "CERT", "key_file": "OTHER"}, "key values mismatch", id="foreign-key"),
        pytest.param({"cert_data": "x", "key_data": "y"}, "client certificate .* can't be used", id="no-pem-pair"),
    ],
)
def test_files_that_cannot_be_used_are_named_at_once(
    certificates: Certificates, tls: dict[str, Any], says: str
) -> None:
    cert, key = certificates.of("client")
    names = {"KEY": key, "CERT": cert, "OTHER": certificates.of("server")[1]}
    with pytest.raises(UsageError, match=says):
        Server(ServerOptions("rediss://localhost:1", tls=Tls(**{name: names.get(it, it) for name, it in tls.items()})))


def test_half_a_certificate_is_refused() -> None:
    with pytest.raises(UsageError, match="needs both"):
        Tls(cert_file="tls.crt")
