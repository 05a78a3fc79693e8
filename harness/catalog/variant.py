"""An entry of the catalogue with some keys changed, as `harness ab` compares it (`limits.max_batch_size=16`), or on
another GPU.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import yaml

from harness.catalog.models import Engines, Model, catalogue_text, parse_catalogue
from harness.catalog.prices import prices
from harness.errors import UsageError


def variant(path: str | None, name: str, changes: Sequence[str], called: str, engines: Engines) -> Model:
    """The entry `name` of the catalogue with each KEY=VALUE applied, under the name `called`.

    A key may be a path with dots; the value is YAML. `engine=vllm` takes that engine in its newest release; `repo=...`
    drops what belonged to the other weights. Raises UsageError as models.yaml itself would.
    """
    text, shown = catalogue_text(path)
    entry_name = parse_catalogue(text, shown, engines).find(name).name
    document = yaml.safe_load(text)  # the stricter reader has just found nothing wrong with it
    defaults = document.get("defaults") or {}
    entry: dict[str, Any] = copy.deepcopy(document["models"][entry_name])
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"expected KEY=VALUE such as limits.max_batch_size=16, found {change!r}", where=called)
        try:
            _put(entry, key.strip(), yaml.safe_load(value))
        except yaml.YAMLError as error:
            raise UsageError(f"{key}: not valid YAML: {value!r}", where=called) from error
    dumped = yaml.safe_dump({"defaults": defaults, "models": {called: entry}}, sort_keys=False, allow_unicode=True)
    return parse_catalogue(dumped, f"{entry_name} with {' '.join(changes)}" if changes else shown, engines).models[
        called
    ]


def _put(entry: dict[str, Any], key: str, value: Any) -> None:
    if key == "engine" and isinstance(value, str):
        entry["engine"] = {"name": value, "version": None}  # not the version that the defaults give another engine
        return
    if key == "repo":
        for own in ("revision", "shape", "weight_bytes", "context_length", "file"):
            entry.pop(own, None)
    *path, last = key.split(".")
    place: Any = entry
    for part in path:
        if not isinstance(place.get(part), Mapping):
            place[part] = {}
        place = place[part]
    place[last] = value


def on_gpu(model: Model, gpu: str) -> Model:
    """The entry as it is served on this kind of GPU. Its own price is that of its own card: on another one the table's
    holds, or none.
    """
    if model.gpu in (None, gpu) and model.price_per_gpu_hour is not None:
        return replace(model, gpu=gpu)
    price = prices().get(gpu)
    return replace(
        model,
        gpu=gpu,
        price_per_gpu_hour=None if price is None else price.usd_per_hour,
        price_source=None if price is None else price.text,
    )
