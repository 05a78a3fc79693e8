"""The shape of an entry's model, and the bytes of its weights as files and as loaded."""

from __future__ import annotations

from pathlib import Path

from harness.catalog.config_json import shape_from_config
from harness.catalog.models import Model
from harness.catalog.shapes import ModelShape, find_shape, weight_bytes
from harness.engines import engine_of, stored_as
from harness.errors import UsageError
from harness.input_files import read_json_object


def shape_of(model: Model) -> ModelShape:
    """From the entry, harness's own table, the directory, or the Hub, in this order. Raises like hub.describe."""
    known = known_shape(model)
    if known is not None:
        return known
    from harness.catalog import hub  # half a second that the models of the table need not wait

    found = hub.describe(model.repo, model.revision)
    if found.shape is None:
        raise UsageError(found.no_shape or "its shape is not known", where=model.repo)
    return found.shape


def known_shape(model: Model) -> ModelShape | None:
    """Without asking the Hub. Raises UsageError for a directory whose config.json cannot be read."""
    if model.shape is not None:
        return model.shape
    if not model.is_local:
        return find_shape(model.repo)
    config = Path(model.repo).expanduser() / "config.json"
    return shape_from_config(read_json_object(config), model.repo) if config.is_file() else None


def size_of_files(model: Model) -> int | None:
    """Bytes of the weights' files, as far as it can be said without asking the Hub."""
    if model.weight_bytes is not None:
        return model.weight_bytes
    shape = known_shape(model)
    return None if shape is None else weight_bytes(shape, stored_as(model, shape), model.dtype)


def loaded_bytes(model: Model, shape: ModelShape) -> int | None:
    """Bytes of the weights on the GPUs where the entry says it; None where arithmetic must do.

    That is what the files hold, unless the engine makes them smaller: by a method of quantize, or from 32 bits to 16.
    """
    if model.weight_bytes is None:
        return None
    law = engine_of(model).memory_law(model)
    converts = law is not None and model.quantize in law.lighter
    computed = weight_bytes(shape, stored_as(model, shape), model.dtype)
    return None if model.weight_bytes > (1.2 if converts else 1.8) * computed else model.weight_bytes
