"""Somebody else's service at a URL: it can be asked, but neither started nor stopped; its log cannot be read."""

from __future__ import annotations

from collections.abc import Iterator

from harness.engines.endpoint import Endpoint
from harness.measure.run_folder import stack_of_url
from harness.stack.service import ServiceFacts, State


class UrlService:
    """Service at a URL. Its state is `running` always: whether it answers is for whoever asks it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.name = endpoint.url
        self.endpoint = endpoint

    def start(self) -> None:
        """Nothing: it is somebody else's."""

    def state(self) -> State:
        return State(True)

    def log_lines(self) -> Iterator[str]:
        return iter(())

    def stop(self, grace: float = 100.0) -> None:
        """Nothing: it is somebody else's."""

    def facts(self) -> ServiceFacts:
        return ServiceFacts(runtime="url", engine="unknown", stack=stack_of_url(self.endpoint.url))
