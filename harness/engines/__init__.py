"""All that differs between serving engines, and between HTTP APIs.

In: a model, a Request, or the engine's own log lines and pages. Out: how to start it, bytes to send, token events,
limits. Bytes and values only: no clock, no process. An engine is a folder here and a line in ENGINES; nobody outside
knows one by its name.
"""

from __future__ import annotations

from pathlib import Path

from harness.catalog import models
from harness.catalog.shapes import QUANTIZATIONS, ModelShape, find_shape
from harness.engines.api import Api
from harness.engines.api_openai import OpenAiChatApi, OpenAiCompletionsApi
from harness.engines.base import Engine
from harness.engines.llamacpp import LlamaCpp
from harness.engines.sglang import Sglang
from harness.engines.support import Architecture, Support, answer, who_can
from harness.engines.tgi import Tgi
from harness.engines.tgi.api import TgiApi
from harness.engines.vllm import Vllm
from harness.errors import UsageError

ENGINES: list[Engine] = [Tgi(), Vllm(), Sglang(), LlamaCpp()]
"""Every engine, in the order in which a service is held against them."""

_EACH: tuple[Api, ...] = (TgiApi(), OpenAiChatApi(), OpenAiCompletionsApi())
APIS: dict[str, Api] = {api.name: api for api in _EACH}
"""The HTTP APIs by the names that `--api` takes."""


def engine_named(name: str, where: str | None = None) -> Engine:
    """Raises UsageError for a name that is not in ENGINES, naming those that are. where: the entry that has it."""
    for engine in ENGINES:
        if engine.name == name:
            return engine
    known = ", ".join(engine.name for engine in ENGINES)
    raise UsageError(f"unknown engine {name!r}", where=where, advice=f"Known: {known}.")


def engine_of(model: models.Model) -> Engine:
    """The engine that serves an entry. Raises UsageError for an unknown one."""
    return engine_named(model.engine.name, model.name)


def stored_as(model: models.Model, shape: ModelShape | None = None) -> str | None:
    """How the entry's weights are stored, by the catalogue's names; None for its dtype.

    shape: of the model; without `quantize` its own checkpoints' method counts, which engines find out by themselves.
    """
    if model.quantize is None:
        shape = shape or model.shape or find_shape(model.repo)
        return shape.stored if shape is not None and shape.stored in QUANTIZATIONS else None
    return engine_of(model).accepts.stored_as.get(model.quantize, model.quantize)


def support_of(model: models.Model, asked: Architecture | None = None) -> Support:
    """Whether the entry's engine, in the entry's version, serves its architecture. asked: that, where the entry and the
    table do not have it. On a no the reason names the engines that can.
    """
    shape, engine = asked or model.shape or find_shape(model.repo), engine_of(model)
    if shape is None:
        return Support("unknown", "the model's architecture is not known here")
    if model.engine.image or model.engine.command:
        return Support("unknown", f"what {model.engine.image or model.engine.command[0]} serves is not known here")
    found = answer(engine.architectures, engine.title, engine.version(model.engine.version), shape)
    if found.kind != "no":
        return found
    if model.trust_remote_code:
        # Engines that load with Transformers then run the code that comes with the weights.
        return Support("unknown", f"{found.reason}; whether it does by the model's own code is not known here")
    others = who_can(shape, ENGINES)
    return Support("no", f"{found.reason}; {', '.join(others)} can" if others else found.reason)


def accepted() -> models.Engines:
    """What an entry may say to each engine."""
    return {engine.name: engine.accepts for engine in ENGINES}


def load_catalogue(path: str | Path | None = None) -> models.Catalogue:
    """A catalogue, its entries held against their engines. Raises like catalog.models.load_catalogue."""
    return models.load_catalogue(path, accepted())
