"""Fields of a config.json as its class in Transformers reads them: nested ones, other names, defaults.

The defaults and the names are in config_classes.json.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

Config = Mapping[str, Any]

_NESTED = ("text_config", "llm_config", "language_config", "thinker_config")
"""Where configurations of models with towers keep the language model's."""


def text_config(config: Config) -> dict[str, Any]:
    """The language model's fields, with its class's defaults; what the file says outside of them holds too."""
    nested = config
    while isinstance(inner := next((nested[key] for key in _NESTED if nested.get(key)), None), Mapping):
        nested = inner
    classes, outer = config_classes(), str(config.get("model_type", ""))
    said = nested.get("model_type") if nested is not config else None  # else the language model's fields are outside
    family = str(said or classes.get(outer, {}).get("text") or outer)
    # A null is said too: `"sliding_window": null` switches a default off.
    own = {**{key: value for key, value in config.items() if key not in _NESTED}, **nested, "model_type": family}
    known = classes.get(family, {})
    # A file may use another name than the class does; the class's default must not be added to it.
    renamed = {name: own[other] for other, name in known.get("names", {}).items() if other in own and name not in own}
    return {**known.get("defaults", {}), **own, **renamed}


@cache
def config_classes() -> dict[str, dict[str, Any]]:
    """By model type: the defaults of its configuration class, other names that it takes for them, and the type of its
    language model where it is nested.
    """
    document: dict[str, Any] = json.loads(
        files("harness.catalog").joinpath("config_classes.json").read_text(encoding="utf-8")
    )
    table: dict[str, dict[str, Any]] = document["classes"]
    return table


def integer(config: Config, *names: str) -> int | None:
    """The first of these that is a whole number."""
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return None


def width_of(text: Config, *names: str) -> int | None:
    """A width; of one per layer the mean, which gives the same sum."""
    for name in names:
        value = text.get(name)
        if isinstance(value, list) and value and all(isinstance(each, int) for each in value):
            return sum(value) // len(value)
    return integer(text, *names)
