"""Mixed lengths in virtual time."""

from __future__ import annotations

from harness.engines.base import EngineFacts
from harness.measure.record import RequestRecord
from harness.probe.mixing import Speed, blocked_share, mix
from harness.probe.setting import Setting


def test_short_chats_wait_less_when_sent_shortest_first() -> None:
    """Shares add up to one, and order helps the short ones."""
    started = EngineFacts("flash", True, 30_000, 1, 30_000, 4096)
    found = mix(Setting(max_batch_prefill_tokens=4096), started, 128, Speed(1e-4, 0.02, 1e-4), 29_000)
    assert found is not None
    assert abs(sum(each.share_of_cache for each in found.classes) - 1) < 1e-9
    assert abs(sum(each.share_of_requests for each in found.classes) - 1) < 1e-9
    assert found.classes[0].ttft_shortest_first < found.classes[0].ttft_fifo
    assert 0 < found.blocked < 1


def test_one_length_is_no_mix() -> None:
    """Where only the shortest history is allowed there is nothing to mix."""
    started = EngineFacts("flash", True, 3000, 1, 3000, 4096)
    assert mix(Setting(), started, 128, Speed(1e-4, 0.02, 0.0), 400) is None


def test_time_behind_a_long_head_is_counted() -> None:
    """A runs from 0 to 10; B, too long beside it, waits at the head, C behind it would fit: blocked all the time."""

    def record(name: str, due: float, taken: float, end: float, tokens: int) -> RequestRecord:
        return RequestRecord(
            name, 0, due, "completed", queue_time=taken - due, finished_at=end, asked_input_tokens=tokens,
            asked_output_tokens=1,
        )  # fmt: skip

    records = [record("a", 0, 0, 10, 60), record("b", 0.1, 10, 20, 60), record("c", 0.2, 10, 20, 20)]
    assert blocked_share(records, 100) == 1.0
    assert blocked_share(records, 79) == 0.0
