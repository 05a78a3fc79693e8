"""What a run's manifest says of the model and its revision."""

from __future__ import annotations

import pytest

from harness.catalog.limits import Limits
from harness.engines.base import EngineInfo
from harness.engines.endpoint import Endpoint
from harness.load.run_recorder import asked_model


@pytest.mark.parametrize(
    ("engine", "listed", "asked", "title"),
    [
        (
            "openai-compatible",
            "one",
            "two",
            "two",
        ),  # one of several behind a gateway, which lists them in its own order
        ("openai-compatible", "one", "one", "one"),
        ("tgi", "Qwen/Qwen2.5-7B-Instruct", "tgi", "Qwen/Qwen2.5-7B-Instruct"),  # takes any name for its one model
        ("tgi", None, "tgi", "unknown"),
    ],
)
def test_run_by_url_is_titled_by_the_model_that_was_asked(
    engine: str, listed: str | None, asked: str, title: str
) -> None:
    """Not by whatever the list of models begins with."""
    endpoint = Endpoint("http://127.0.0.1:1", model_name=asked)
    assert asked_model(EngineInfo(engine, None, listed, False, Limits()), endpoint) == title
