"""Client: plain HTTP calls to a service, by the same way (proxy, certificates, redirects) as the load.

One rule for all that is asked beside the load: HARNESS_PROXY or none, certificates as route.py says, redirects followed
once and then known (`url` is where the service really is, which the load then asks directly), bodies of a bounded size.
"""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import requests

from harness.engines.endpoint import Endpoint
from harness.engines.route import TRUST, refuse_secrets
from harness.engines.session import open_session
from harness.errors import ServiceError, UsageError
from harness.redaction import REDACTED

LOOK_TIMEOUT = 10.0  # seconds; pages about the service never wait for the model
MOST_BYTES = 16 << 20  # of a decoded body; a page of metrics with 20,000 series has 3 MB
_PIECE = 1 << 16


class NoAnswer(ServiceError):
    """Nobody answered, or not within the time, or not in HTTP."""


@dataclass(frozen=True)
class Reply:
    """One answer, whatever its status. headers: by name in any case. body: decoded from any content encoding."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    @property
    def document(self) -> Any:
        """The JSON value of a success; None for another status and for a body that is none."""
        try:
            return json.loads(self.body) if self.ok else None
        except (ValueError, RecursionError):
            return None


class Client:
    """Calls to one service; a context manager that closes its connections.

    url: where the service is, without a trailing slash or `/v1`; a redirect that was met has changed it.
    """

    def __init__(self, endpoint: Endpoint, timeout: float = LOOK_TIMEOUT) -> None:
        """Raises UsageError for a URL that is not valid or that holds a secret."""
        self.url = base_url(endpoint.url)
        self.timeout = timeout
        self._session = open_session(self.url)
        if endpoint.api_key is not None:
            self._session.headers["authorization"] = f"Bearer {endpoint.api_key.reveal()}"
        self._pages: dict[str, Reply] = {}

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """What __exit__ does, for whoever keeps it for long."""
        self._session.close()

    def headers(self) -> dict[str, str]:
        """The header that carries the key; empty without one."""
        key = self._session.headers.get("authorization")
        return {} if key is None else {"Authorization": str(key)}

    def page(self, path: str) -> Reply:
        """A GET that is made once: a later call for the same path gives the same answer. Raises NoAnswer."""
        if path not in self._pages:
            self._pages[path] = self.get(path)
        return self._pages[path]

    def get(self, path: str, *, timeout: float | None = None) -> Reply:
        """Raises NoAnswer, and UsageError for a redirect to another host while a key is sent."""
        return self._ask("GET", path, None, timeout)

    def post(self, path: str, document: Any, *, timeout: float | None = None) -> Reply:
        """A JSON document, posted. Raises like `get`."""
        return self._ask("POST", path, document, timeout)

    def _ask(self, method: str, path: str, document: Any, timeout: float | None) -> Reply:
        try:
            with self._session.request(
                method, self.url + path, json=document, timeout=timeout or self.timeout, stream=True
            ) as answer:
                reply = Reply(answer.status_code, answer.headers, _bounded_body(answer))
                if answer.history:
                    self._moved(answer.url, path)
                return reply
        except (requests.exceptions.InvalidURL, requests.exceptions.MissingSchema) as error:
            raise _not_valid(self.url) from error
        except requests.RequestException as error:
            doubted = isinstance(error, requests.exceptions.SSLError)
            advice = TRUST if doubted else "Is the service up, and the port right?"
            raise NoAnswer(
                f"no answer ({_reason(error, timeout or self.timeout)})", where=self.url, advice=advice
            ) from error
        except ValueError as error:  # urllib3's, which requests lets through: a host name that no name server takes
            raise _not_valid(self.url) from error

    def _moved(self, landed: str, path: str) -> None:
        """A redirect that kept the path says where the service is; any other is this page's own affair."""
        if not landed.endswith(path):
            return
        moved = landed[: len(landed) - len(path)].rstrip("/")
        elsewhere = urlsplit(moved).netloc != urlsplit(self.url).netloc
        if elsewhere and "authorization" in self._session.headers:
            raise UsageError(
                f"redirects to {moved}, and the key of one host is not sent to another",
                where=self.url,
                advice=f"Name the service where it is: --url {moved}.",
            )
        self.url = moved


def base_url(url: str) -> str:
    """What paths are put behind: without a trailing slash, and without the `/v1` that OpenAI clients write.

    Raises UsageError for a URL that is not valid or that holds a name or password.
    """
    if not url.startswith(("http://", "https://")):
        raise _not_valid(url)
    refuse_secrets(url)
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def _not_valid(url: str) -> UsageError:
    shown = re.sub(r"[^/@]*@", f"{REDACTED}@", re.sub(r"[?#].*", f"?{REDACTED}", url))  # what may be a key
    return UsageError(f"{shown!r} is not a valid URL", advice="Write http://host:port.")


def _bounded_body(answer: requests.Response) -> bytes:
    """At most MOST_BYTES, counted after decoding: a small compressed page may be a large one."""
    parts, size = [], 0
    for piece in answer.iter_content(_PIECE):
        parts.append(piece)
        size += len(piece)
        if size > MOST_BYTES:
            raise requests.exceptions.ContentDecodingError(f"a page of more than {MOST_BYTES >> 20} MiB")
    return b"".join(parts)


def _reason(error: requests.RequestException, timeout: float) -> str:
    if isinstance(error, requests.Timeout):
        return f"none within {timeout:.0f} s"
    if isinstance(error, requests.exceptions.SSLError):
        return _doubt(error)
    if isinstance(error, (requests.exceptions.ContentDecodingError, requests.exceptions.TooManyRedirects)):
        return str(error)
    return "connection refused" if "refused" in str(error) else type(error).__name__


def _doubt(error: BaseException) -> str:
    """What the TLS library says, without the wrapping of the libraries above it."""
    inner: object = error
    while isinstance(inner, BaseException) and not isinstance(inner, ssl.SSLError):
        reason = getattr(inner, "reason", None)
        inner = reason if isinstance(reason, BaseException) else next(iter(inner.args), None)
    return str(getattr(inner, "verify_message", "") or inner or error)
