"""How long the parts of a finished request took, as TGI's router reports it in headers and log."""

from __future__ import annotations

from dataclasses import dataclass

from harness.emulator import rust


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds of one finished request."""

    total: float
    validation: float
    queue: float
    inference: float
    per_token: float

    @classmethod
    def of(cls, entered: float, queued: float, started: float, now: float, tokens: int) -> Timings:
        """From the moments of one clock; tokens: that were generated."""
        inference = max(0.0, now - started)
        return cls(now - entered, max(0.0, queued - entered), max(0.0, started - queued), inference, inference / tokens)

    def headers(self, compute_type: str, characters: int, prompt: int, generated: int) -> list[tuple[str, str]]:
        """As the router writes them. prompt, generated: tokens."""

        def whole(seconds: float) -> str:
            return str(int(seconds * 1000))

        return [
            ("x-compute-type", compute_type),
            ("x-compute-time", rust.seconds(self.total)),
            ("x-compute-characters", str(characters)),
            ("x-total-time", whole(self.total)),
            ("x-validation-time", whole(self.validation)),
            ("x-queue-time", whole(self.queue)),
            ("x-inference-time", whole(self.inference)),
            ("x-time-per-token", whole(self.per_token)),
            ("x-prompt-tokens", str(prompt)),
            ("x-generated-tokens", str(generated)),
        ]
