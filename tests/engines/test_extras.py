"""Fields of a request that only some engines know: exact lengths, and counts in each event."""

from __future__ import annotations

import json

import pytest

from harness.engines import APIS, ENGINES
from harness.engines.api import NO_EXTRAS, Extras
from harness.workload.request import Request

ASKED = Request("time year", 2, 7)


def body(api: str, extras: Extras, *, stream: bool = True) -> dict[str, object]:
    call = APIS[api].encode(ASKED, "00000000-0000-0000-0000-000000000000", "toy", stream=stream, extras=extras)
    document: dict[str, object] = json.loads(call.body)
    return document


@pytest.mark.parametrize("api", [name for name in APIS if name != "tgi"])
def test_exact_lengths_and_counts_are_asked_for(api: str) -> None:
    """As many tokens at least as at most; usage at the end and on the way; a whole answer needs none."""
    extras = Extras({"ignore_eos": True}, "min_tokens", {"stream_options": {"continuous_usage_stats": True}})
    asked = body(api, extras)
    assert (asked["ignore_eos"], asked["min_tokens"], asked["max_tokens"]) == (True, 7, 7)
    assert asked["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
    assert "stream_options" not in body(api, extras, stream=False)


@pytest.mark.parametrize("api", APIS)
def test_nothing_is_added_for_an_engine_that_knows_nothing_more(api: str) -> None:
    """Byte for byte what it was."""
    plain = APIS[api].encode(ASKED, "r", "toy", stream=True)
    assert APIS[api].encode(ASKED, "r", "toy", stream=True, extras=NO_EXTRAS) == plain


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_what_an_engine_knows_survives_the_way_to_a_load_process(engine: object) -> None:
    """It travels as JSON."""
    extras: Extras = engine.extras  # type: ignore[attr-defined]
    assert Extras(**json.loads(json.dumps(extras.as_dict()))) == extras
