"""Recognises who answers at an endpoint: asks each engine of ENGINES, then servers known only by their answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from harness.catalog.limits import Limits
from harness.engines import ENGINES
from harness.engines.api import NO_EXTRAS, Extras
from harness.engines.base import EngineInfo
from harness.engines.client import Client, NoAnswer
from harness.engines.endpoint import Endpoint, Secret
from harness.engines.openai_engine import is_emulated, served_models
from harness.engines.other_servers import llama_cpp_python, transformers_serve
from harness.engines.route import service_key
from harness.errors import ServiceError, UsageError

NO_KEY = (401, 403)
_LOOKED_AT = ("/info", "/v1/models")  # pages whose refusal says that a key is wanted


def endpoint_at(url: str, model_name: str | None = None) -> Endpoint:
    """Somebody else's service, with the key of HARNESS_API_KEY where there is one."""
    key = service_key()
    return Endpoint(url, Secret(key) if key else None, model_name)


def default_api(info: EngineInfo) -> str:
    """The name of the HTTP API that the service speaks best."""
    return next((engine.default_api for engine in ENGINES if engine.name == info.engine), "openai-chat")


def extras_of(info: EngineInfo) -> Extras:
    """Fields of a request's body that the service knows beside the common ones."""
    return next((engine.extras for engine in ENGINES if engine.name == info.engine), NO_EXTRAS)


def identify(endpoint: Endpoint) -> tuple[EngineInfo, Endpoint]:
    """Who answers, and the endpoint as it really is: redirects followed, and a name that the service takes for its
    model where none was given.

    Raises UsageError for a URL that is not valid and a key that is missing, ServiceError where nobody that is known
    answers.
    """
    with Client(endpoint) as client:
        found = recognise(client) or _by_its_name_alone(client, endpoint)
        if found is None:
            raise _unknown(client)
        return found, replace(endpoint, url=client.url, model_name=asked_name(endpoint, found))


def recognise(client: Client) -> EngineInfo | None:
    """The first of ENGINES, or of the other kinds, that finds itself in the service's pages. Raises NoAnswer."""
    for engine in ENGINES:
        if (found := engine.recognise(client)) is not None:
            return found
    for kind in OTHER_KINDS:
        if (found := kind(client)) is not None:
            return found
    return None


def look(endpoint: Endpoint, timeout: float) -> EngineInfo | None:
    """The same for a service that may not answer yet: None then, and where nobody that is known does."""
    try:
        with Client(endpoint, timeout) as client:
            return recognise(client)
    except (NoAnswer, UsageError):
        return None


def asked_name(endpoint: Endpoint, found: EngineInfo) -> str | None:
    """By which the model is asked for. Raises UsageError where the service has several and nobody chose."""
    if endpoint.model_name is not None:
        return endpoint.model_name
    if len(found.model_names) > 1:
        raise UsageError(
            f"serves several models: {', '.join(found.model_names)}",
            where=endpoint.url,
            advice="Name one with --model-name.",
        )
    return found.model_names[0] if found.model_names else found.model_id


def _by_its_name_alone(client: Client, endpoint: Endpoint) -> EngineInfo | None:
    """A server that lists nothing may be asked all the same where somebody says what for."""
    refused = any(client.page(path).status in NO_KEY for path in _LOOKED_AT)
    if endpoint.model_name is None or refused:
        return None
    return EngineInfo("openai-compatible", None, endpoint.model_name, False, Limits())


def _unknown(client: Client) -> ServiceError | UsageError:
    for path in _LOOKED_AT:
        status = client.page(path).status
        if status in NO_KEY:
            found, advice = f"{path} answers {status}", "Set HARNESS_API_KEY to the service's key."
            return UsageError(found, where=client.url, advice=advice)
    statuses = ", ".join(f"{path}: HTTP {client.page(path).status}" for path in _LOOKED_AT)
    return ServiceError(
        f"something answers, but is not a server that is known here ({statuses})",
        where=client.url,
        advice="Check host and port; --model-name makes it be asked as an OpenAI-style server.",
    )


def _openai_like(client: Client) -> EngineInfo | None:
    """Whatever lists models as OpenAI does."""
    names = tuple(each.name for each in served_models(client))
    if not names:
        return None
    return EngineInfo("openai-compatible", None, names[0], is_emulated(client), Limits(), model_names=names)


OTHER_KINDS: tuple[Callable[[Client], EngineInfo | None], ...] = (llama_cpp_python, transformers_serve, _openai_like)
"""Servers that are asked but never started here."""
