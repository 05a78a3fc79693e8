"""One OpenAI-style address for all models of a stack: LiteLLM's proxy and its list of models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.engines import engine_named
from harness.errors import UsageError
from harness.stack.document import to_yaml
from harness.stack.plan import CONTAINER_PORT
from harness.stack.sidecar import ConfigFile, Sidecar, body_of

NAME = "gateway"
FIRST_PORT = 4000  # LiteLLM's own
CONTAINER_FILE = "/etc/litellm/config.yaml"
REQUEST_TIMEOUT = 3600.0  # seconds; a long answer of a busy engine is not a failure


@dataclass(frozen=True)
class Route:
    """One running service. model: what clients write into the `model` field. host: its name on the stack's network.

    served: what the service itself takes for its model's name.
    """

    model: str
    host: str
    port: int = CONTAINER_PORT
    served: str = "tgi"


def route_to(model: str, host: str, engine: str) -> Route:
    """The route to a service of this entry that runs on this engine."""
    return Route(model, host, served=engine_named(engine).served_name(model))


def gateway(routes: Sequence[Route], *, host_port: int = FIRST_PORT, image: str | None = None) -> Sidecar:
    """The proxy for these services; several of one model share its requests. image: another one than the file's.

    Raises UsageError for a name that LiteLLM would read as a pattern.
    """
    config = ConfigFile("gateway.yaml", CONTAINER_FILE, config_text(routes))
    body = body_of(NAME, "gateway.yaml", image)
    return Sidecar(NAME, "litellm", body, 4000, host_port, (config,))


def config_text(routes: Sequence[Route]) -> str:
    """LiteLLM's configuration; no secret is in it, because no engine asks for one on the stack's own network."""
    ordered = sorted(set(routes), key=lambda route: (route.model, route.host))
    for route in ordered:
        if "*" in route.model or route.model.startswith("os.environ/"):
            raise UsageError(
                "the gateway would read this name as a pattern", where=route.model, advice="Rename the entry."
            )
    document = {
        "model_list": [_entry(route) for route in ordered],
        # What the engine refuses, the client is to see: a gateway that asks again hides an overload and doubles it, and
        # one that puts a service aside after a refusal turns the next request away that the engine would have taken.
        "router_settings": {"num_retries": 0, "disable_cooldowns": True, "routing_strategy": "least-busy"},
        "litellm_settings": {"num_retries": 0, "request_timeout": REQUEST_TIMEOUT, "drop_params": False},
    }
    return to_yaml(document)


def _entry(route: Route) -> dict[str, object]:
    """The client library insists on some key."""
    parameters = {
        "model": f"openai/{route.served}",
        "api_base": f"http://{route.host}:{route.port}/v1",
        "api_key": "none",
    }
    return {"model_name": route.model, "litellm_params": parameters}
