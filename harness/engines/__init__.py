"""All that differs between one serving engine and another, and between one HTTP API and another; one file each.

In: a Request or the engine's own log lines. Out: bytes to send, token events, limits. Bytes only: no clock, no socket.
"""

from __future__ import annotations

from harness.engines.api_openai import OpenAiChatApi, OpenAiCompletionsApi
from harness.engines.api_tgi import TgiApi
from harness.engines.base import Api

_EACH: tuple[Api, ...] = (TgiApi(), OpenAiChatApi(), OpenAiCompletionsApi())
APIS: dict[str, Api] = {api.name: api for api in _EACH}
"""The HTTP APIs by the names that `--api` takes."""
