"""Errors of a request, in the router's words (router/src/infer/mod.rs, validation.rs)."""

from __future__ import annotations

from dataclasses import dataclass

from harness.emulator import rust


@dataclass(frozen=True)
class ErrorKind:
    """status: of a non-stream answer. prefix: before the detail in the text."""

    status: int
    error_type: str
    prefix: str


GENERATION = ErrorKind(424, "generation", "Request failed during generation: ")
OVERLOADED = ErrorKind(429, "overloaded", "Model is overloaded")
VALIDATION = ErrorKind(422, "validation", "Input validation error: ")
TEMPLATE = ErrorKind(422, "template_error", "Template error: ")
TOOL = ErrorKind(422, "tool_error", "Tool error: ")


class Refused(Exception):
    """A request that fails. detail: what follows the kind's prefix; logged: the router's log line."""

    def __init__(self, kind: ErrorKind, detail: str = "") -> None:
        self.kind, self.detail = kind, detail
        super().__init__(f"{kind.prefix}{detail}")

    @property
    def text(self) -> str:
        return f"{self.kind.prefix}{self.detail}"

    def native(self) -> bytes:
        """The body of an error answer, and the event of a native stream."""
        return rust.dumps({"error": self.text, "error_type": self.kind.error_type})

    def openai(self) -> bytes:
        """The event of an OpenAI-style stream; the status is 422 whatever went wrong."""
        return rust.dumps({"error": {"message": self.text, "http_status_code": 422}})


def invalid(detail: str) -> Refused:
    return Refused(VALIDATION, detail)
