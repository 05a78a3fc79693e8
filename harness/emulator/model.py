"""The served model: its config.json (or one made from the shape table), chat template and name."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.catalog.config_json import config_from_shape, shape_from_config
from harness.catalog.models import Model, load_catalogue
from harness.catalog.shapes import SHAPE_VARIABLE, ModelShape, find_shape
from harness.emulator.template import BUILT_IN, ChatTemplate
from harness.emulator.tokens import AnyTokenizer, Tokenizer
from harness.emulator.vocabulary import read_tokenizer
from harness.errors import HarnessError

BUILT_IN_MODEL = "Qwen/Qwen2.5-0.5B-Instruct"
BUILT_IN_GPU = "L4"


@dataclass(frozen=True)
class ServedModel:
    """config: what the launcher reads; None where there is nothing readable. template: None for a model without one.

    tokenizer: the directory's own, or words.
    """

    name: str
    shape: ModelShape
    config: Mapping[str, Any] | None
    template: ChatTemplate | None
    tokenizer: AnyTokenizer
    local: bool

    @property
    def directory(self) -> Path | None:
        return Path(self.name) if self.local else None


class NoSuchModel(Exception):
    """Nothing is known of the model: what a download that finds no repository is to TGI."""


def load_model(name: str, tokenizer_config: str | None = None) -> ServedModel:
    """The model of this Hub id or directory. Raises NoSuchModel."""
    directory = Path(name)
    if directory.is_dir():
        return _from_directory(directory, name, tokenizer_config)
    shape = _told_shape(name) or find_shape(name)
    if shape is None:
        raise NoSuchModel(
            f"{name}: the emulator knows no shape of this model. Name one of harness/catalog/shapes.yaml, add it to the"
            " catalogue with `harness models add`, or give a directory with its config.json."
        )
    return ServedModel(
        name, shape, config_from_shape(shape), _template(None, tokenizer_config), Tokenizer(shape.vocab), local=False
    )


def _told_shape(name: str) -> ModelShape | None:
    """The `shape:` of the entry that is played: as whoever starts the emulator hands it over, or by models.yaml."""
    told = os.environ.get(SHAPE_VARIABLE)
    if told:
        try:
            return ModelShape(**json.loads(told))
        except (ValueError, TypeError) as error:
            raise NoSuchModel(f"{SHAPE_VARIABLE} is not a shape: {error}") from None
    entry = _entry(name)
    return entry.shape if entry is not None else None


def _from_directory(directory: Path, name: str, tokenizer_config: str | None) -> ServedModel:
    config = _read_json(directory / "config.json")
    if config is None:
        raise NoSuchModel(f"{name}: no readable config.json in this directory")
    try:
        shape = shape_from_config(config, name)
    except HarnessError as error:
        raise NoSuchModel(f"{name}/config.json: {error}") from None
    settings = _read_json(directory / "tokenizer_config.json")
    settings = settings if isinstance(settings, dict) else {}
    own = read_tokenizer(directory, _special(settings.get("bos_token")), _special(settings.get("eos_token")))
    template = _template(directory, tokenizer_config)
    return ServedModel(name, shape, config, template, own or Tokenizer(shape.vocab), local=True)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _template(directory: Path | None, tokenizer_config: str | None) -> ChatTemplate | None:
    """A directory's own template, or none if it has none; a model known by name only has the built-in one."""
    if directory is None and tokenizer_config is None:
        return ChatTemplate(BUILT_IN)
    path = Path(tokenizer_config) if tokenizer_config else Path(str(directory)) / "tokenizer_config.json"
    settings = _read_json(path)
    settings = settings if isinstance(settings, dict) else {}
    alone = _read_json(directory / "chat_template.json") if directory is not None else None
    source = alone.get("chat_template") if isinstance(alone, dict) else settings.get("chat_template")
    if isinstance(source, list):
        source = next((each.get("template") for each in source if each.get("name") == "default"), None)
    if not isinstance(source, str):
        return None
    return ChatTemplate(source, _special(settings.get("bos_token")), _special(settings.get("eos_token")))


def _special(token: Any) -> str | None:
    return token.get("content") if isinstance(token, dict) else token


def choose(name: str | None, gpu: str | None) -> tuple[str, str]:
    """Model and GPU to serve. name: a Hub id, a directory, or the name of a catalogue entry; None where none was given.

    A catalogue is models.yaml of the working directory; without a name its first entry is taken, and without a
    catalogue a built-in small model.
    """
    entry = None if name is not None and Path(name).is_dir() else _entry(name)
    if entry is not None:
        return entry.repo, gpu or entry.gpu or BUILT_IN_GPU
    return name or BUILT_IN_MODEL, gpu or BUILT_IN_GPU


def _entry(name: str | None) -> Model | None:
    try:
        if not Path("models.yaml").is_file():
            return None
        catalogue = load_catalogue("models.yaml")
        if name is None or name in catalogue.models:
            return catalogue.first() if name is None else catalogue.models[name]
        return next((model for model in catalogue.models.values() if model.repo == name), None)
    except HarnessError:
        return None
