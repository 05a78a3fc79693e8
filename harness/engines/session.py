"""requests' Session for plain calls to a service, by the same way as its load."""

from __future__ import annotations

from typing import Any

import requests
from requests.adapters import HTTPAdapter

from harness.engines.route import proxy, trusted


class _Trusting(HTTPAdapter):
    """Verifies certificates with our own context: requests would trust its own list besides."""

    def init_poolmanager(self, *args: Any, **settings: Any) -> None:
        super().init_poolmanager(*args, **settings, ssl_context=trusted())

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> Any:
        return super().proxy_manager_for(proxy, **proxy_kwargs, ssl_context=trusted())

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        conn.cert_reqs = "CERT_REQUIRED"


def open_session(url: str) -> requests.Session:
    """For calls to this URL: through HARNESS_PROXY, where it is set, and heeding nothing else of the environment."""
    session = requests.Session()
    session.trust_env = False
    if url.startswith("https://"):  # to read all authorities takes longer than a call
        session.mount("https://", _Trusting())
    if through := proxy():
        session.proxies = {"http": through, "https": through}
    return session
