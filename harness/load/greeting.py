"""Who answers at Locust's host, asked from a process that runs Locust: with the standard library's client, which Locust
has made cooperative.
"""

from __future__ import annotations

import json
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

from harness.engines import tgi
from harness.engines.base import EngineInfo, EngineLimits
from harness.engines.route import TRUST, proxy, refuse_secrets, trusted
from harness.errors import ServiceError, UsageError

_TIMEOUT = 10.0  # seconds; none of these routes waits for the model


def greet(url: str) -> EngineInfo:
    """TGI's /info where it is one, else the first model of /v1/models. Raises UsageError, ServiceError."""
    refuse_secrets(url)
    opener = _opener(url)
    info = _document(opener, url, "/info")
    if isinstance(info, Mapping) and tgi.is_info(info):
        return tgi.read_info(info)
    listed = _document(opener, url, "/v1/models")
    entries = listed.get("data") if isinstance(listed, Mapping) else None
    if isinstance(entries, list) and entries and isinstance(entries[0], Mapping) and entries[0].get("id"):
        return EngineInfo("openai-compatible", None, str(entries[0]["id"]), False, EngineLimits())
    found = "something answers, but neither /info is TGI's nor does /v1/models name a model"
    raise ServiceError(found, where=url, advice="Check --host.")


def tokenizer(url: str) -> Callable[[str], list[tuple[int, int]]] | None:
    """Text -> characters [start, stop) of its tokens, by the service's /tokenize; None where it has none."""

    opener = _opener(url)

    def tokenize(text: str) -> list[tuple[int, int]]:
        tokens = _document(opener, url, "/tokenize", {"inputs": text})
        return [(token["start"], token["stop"]) for token in tokens or ()]

    try:
        return tokenize if tokenize("time year") else None
    except (ServiceError, KeyError, TypeError):
        return None


def _document(opener: urllib.request.OpenerDirector, url: str, path: str, body: object = None) -> Any:
    """The JSON document at this path, None where there is none."""
    headers = {"content-type": "application/json"}
    if key := os.environ.get("HARNESS_API_KEY"):
        headers["authorization"] = f"Bearer {key}"
    content = None if body is None else json.dumps(body).encode()
    try:
        request = urllib.request.Request(f"{url}{path}", content, headers)
        with opener.open(request, timeout=_TIMEOUT) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (401, 403):
            advice = "Set HARNESS_API_KEY to the service's key."
            raise UsageError(f"{path} answers {error.code}", where=url, advice=advice) from error
        return None
    except OSError as error:
        doubted = isinstance(getattr(error, "reason", error), ssl.SSLError)
        advice = TRUST if doubted else "Is the service up, and the port right?"
        raise ServiceError(f"no answer ({_reason(error)})", where=url, advice=advice) from error
    except ValueError as error:
        if url.startswith(("http://", "https://")):
            return None
        raise UsageError(f"{url!r} is no URL", advice="Write --host http://host:port.") from error


def _opener(url: str) -> urllib.request.OpenerDirector:
    """On the same way as the load. To read all authorities takes longer than a call, hence once for many."""
    through = proxy()
    proxies = urllib.request.ProxyHandler({} if through is None else {"http": through, "https": through})
    context = trusted() if url.startswith("https://") else None
    return urllib.request.build_opener(proxies, *([urllib.request.HTTPSHandler(context=context)] if context else []))


def _reason(error: OSError) -> str:
    inner = error.reason if isinstance(error, urllib.error.URLError) else error
    return f"none within {_TIMEOUT:.0f} s" if isinstance(inner, TimeoutError) else str(inner)
