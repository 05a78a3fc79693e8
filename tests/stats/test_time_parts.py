"""Where the time goes, against requests and counters whose parts are known beforehand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness.engines import engine_named
from harness.measure.records import Records
from harness.measure.server import ServerSamples
from harness.stats.time_parts import time_parts
from tests.runs import failed, ticking

# 10 requests: sent 10 ms late, the head 20 ms later, the first token 1 s after that, the last one 0.5 s later.
_PLAIN = [ticking(n, float(n), first=1.03, gap=0.1, tokens=6, lag=0.01) for n in range(10)]
ASKED = [replace(each, first_byte_at=n + 0.03, finished_at=n + 1.55) for n, each in enumerate(_PLAIN)]

PAGES = {  # of each engine: what one request adds to its counters. 0.4 s of queue, 0.5 s of prefill
    "tgi": "tgi_request_queue_duration_sum {0.4}\ntgi_request_queue_duration_count {1}\n"
    "tgi_request_inference_duration_sum {1.0}\ntgi_request_inference_duration_count {1}\n",
    "vllm": 'vllm:request_queue_time_seconds_sum{{engine="0"}} {0.4}\nvllm:request_queue_time_seconds_count {1}\n'
    "vllm:request_prefill_time_seconds_sum {0.5}\nvllm:request_prefill_time_seconds_count {1}\n",
    "sglang": "sglang:queue_time_seconds_sum {0.4}\nsglang:queue_time_seconds_count {1}\n"
    "sglang:time_to_first_token_seconds_sum {0.9}\nsglang:time_to_first_token_seconds_count {1}\n",
    "llamacpp": "llamacpp:prompt_seconds_total {0.5}\n",
}


def page(engine: str, requests: int) -> str:
    """What an engine tells after so many requests, and seven of earlier levels."""
    text = PAGES[engine].replace('{{engine="0"}}', "LABEL")
    for share in ("0.4", "0.5", "0.9", "1.0", "1"):
        text = text.replace(f"{{{share}}}", repr(float(share) * (7 + requests)))
    return text.replace("LABEL", '{engine="0"}')


def told(engine: str, requests: int = 10) -> ServerSamples:
    """Read before and after the level."""
    known = [engine_named(engine).read_gauges(page(engine, count)).known() for count in (0, requests)]
    return ServerSamples(
        {name: (np.array([-0.5, 12.0]), np.array([each[name] for each in known])) for name in known[0]}
    )


@pytest.mark.parametrize("engine", sorted(PAGES))
def test_parts_of_every_engine_add_up(engine: str) -> None:
    """Client 10 ms, network 20 ms, queue 400 ms, prefill 500 ms; of 1.03 s 100 ms are left, where the queue is told."""
    parts = time_parts(Records.from_list([*ASKED, failed(99, 3.0)]), told(engine), 0.0, 11.0)
    assert parts is not None
    queue = None if engine == "llamacpp" else pytest.approx(0.4)
    assert (parts.client, parts.network_and_router) == (pytest.approx(0.01), pytest.approx(0.02))
    assert (parts.queue, parts.prefill) == (queue, pytest.approx(0.5))
    assert parts.rest == pytest.approx(0.5 if queue is None else 0.1)
    assert parts.ttft == pytest.approx(1.03)
    assert parts.total == pytest.approx(1.55)
    assert (parts.generation, parts.rest_of_total) == (pytest.approx(0.52), pytest.approx(parts.rest))
    document = parts.as_dict()
    for whole in ("ttft", "e2e"):
        assert sum(value or 0.0 for name, value in document[whole].items() if name != "mean") == pytest.approx(
            document[whole]["mean"]
        )


def test_a_head_that_comes_with_the_first_token_is_not_counted_twice() -> None:
    """Its time holds the queue and the prefill: the network is then not told, and stands in the rest."""
    records = Records.from_list([replace(each, first_byte_at=each.token_at[0] - 1e-4) for each in ASKED])
    parts = time_parts(records, told("vllm"), 0.0, 11.0)
    assert parts is not None
    assert (parts.network_and_router, parts.rest) == (None, pytest.approx(0.12))


def test_an_engine_that_tells_nothing_leaves_the_rest() -> None:
    """Nothing is made up: what the client knows stands, and the rest is the rest."""
    parts = time_parts(Records.from_list(ASKED), ServerSamples(), 0.0, 11.0)
    assert parts is not None
    assert (parts.queue, parts.prefill, parts.tells) == (None, None, False)
    assert parts.rest == pytest.approx(1.0)


def test_a_queue_that_answers_tell_themselves_is_of_these_very_requests() -> None:
    """TGI tells the wait of an answer that is not streamed in its head; its work is the engine's mean."""
    whole = [
        replace(
            each, token_at=each.token_at[-1:], token_count=[6], queue_time=0.25, notes="not_streamed:application/json"
        )
        for each in ASKED
    ]
    parts = time_parts(Records.from_list(whole), told("tgi"), 0.0, 11.0)
    assert parts is not None
    assert (parts.ttft, parts.rest, parts.queue, parts.computing) == (None, None, 0.25, pytest.approx(1.0))
    assert parts.rest_of_total == pytest.approx(1.55 - 0.01 - 0.25 - 1.0)


@pytest.mark.parametrize(("counted", "others"), [(10, False), (30, True)])
def test_an_engine_that_served_others_too_is_seen(counted: int, others: bool) -> None:
    """Its means are then not of our requests alone."""
    parts = time_parts(Records.from_list(ASKED), told("vllm", counted), 0.0, 11.0)
    assert parts is not None
    assert parts.with_others is others
