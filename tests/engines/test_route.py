"""One way to a service: what is asked of it before a load, and the load, trust the same and go through the same."""

from __future__ import annotations

import http.server
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.engines.client import Client, NoAnswer
from harness.engines.endpoint import Endpoint
from harness.engines.identify import endpoint_at, identify
from harness.engines.route import trusted
from harness.engines.session import open_session
from harness.errors import ServiceError, UsageError
from harness.load.connection import Address, Connector

NAMES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "HARNESS_PROXY")


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


class _Models(http.server.BaseHTTPRequestHandler):
    """Names one model, also where a proxy's request names the whole URL."""

    def do_GET(self) -> None:
        found = self.path.endswith("/v1/models")
        body = b'{"data": [{"id": "one"}]}' if found else b""
        self.send_response(200 if found else 404)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def serving(certificate: Path | None = None) -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Models) as server:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_an_own_certificate_is_trusted_everywhere_once_it_is_named(
    certificate: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """By either of the usual variables: for the look at the service, a prober's calls and the load's connections."""
    monkeypatch.setenv(name, str(certificate))
    with serving(certificate) as port:
        url = f"https://localhost:{port}"
        assert identify(Endpoint(url))[0].model_id == "one"
        Connector(Address.of(url)).open().close()


def test_an_untrusted_certificate_is_called_so(certificate: Path) -> None:
    """The message says what is wrong with it and how to trust it."""
    with serving(certificate) as port, pytest.raises(ServiceError) as told:
        identify(Endpoint(f"https://localhost:{port}"))
    assert "self-signed certificate" in str(told.value) or "self signed certificate" in str(told.value)
    assert "SSL_CERT_FILE=" in str(told.value)


def test_a_file_without_certificates_is_a_mistake_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is named, not passed over."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "absent.pem"))
    with pytest.raises(UsageError, match=r"SSL_CERT_FILE=.*absent\.pem"):
        trusted()


def test_a_url_with_a_password_is_refused() -> None:
    """A run's manifest and report name the URL; the message does not repeat it."""
    with pytest.raises(UsageError, match="name or password") as told:
        identify(endpoint_at("http://me:secret@127.0.0.1:1/base"))
    assert "secret" not in str(told.value)


def test_only_the_proxy_that_is_named_lies_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment's own is left alone, for the load is not sent through it either."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with serving() as port:
        assert identify(Endpoint(f"http://127.0.0.1:{port}"))[0].model_id == "one"
        monkeypatch.setenv("HARNESS_PROXY", f"http://127.0.0.1:{port}")
        assert identify(Endpoint("http://service.example"))[0].model_id == "one"
        with open_session("http://service.example") as session:
            assert session.get("http://service.example/v1/models", timeout=5).status_code == 200


@pytest.mark.parametrize("key", ["sk-abc\n", "sk-abc\r\nX: y", "schl\u00fcssel", "two words", "\u200bkey"])
def test_a_key_that_no_header_can_carry_is_refused_by_its_name(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is not shown."""
    monkeypatch.setenv("HARNESS_API_KEY", key)
    with pytest.raises(UsageError, match="HARNESS_API_KEY: holds") as refused:
        endpoint_at("http://127.0.0.1:1")
    assert not {key.strip(), "abc", "schl", "words"} & set(str(refused.value).split())


def test_a_host_name_that_no_name_server_takes_is_not_a_valid_url() -> None:
    """Also with a port behind it."""
    with pytest.raises((UsageError, NoAnswer)), Client(Endpoint(f"http://{'long' * 40}.example:8080")) as client:
        client.get("/info")
