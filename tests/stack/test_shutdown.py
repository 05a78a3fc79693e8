"""Ctrl-C while a service is being stopped: a real launcher that ignores SIGTERM."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from harness.catalog.models import Model
from harness.stack.launch import local_launch
from harness.stack.process import ProcessService
from harness.stack.process_tree import marked
from harness.stack.shutdown import stop_in_order, whole_grace

pytestmark = pytest.mark.usefixtures("no_process_left")
FOR_EVER = 3600.0


@pytest.fixture
def stubborn(launcher: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[ProcessService]:
    """Ready, and not willing to end."""
    monkeypatch.setenv("STAND_IN", "stubborn")
    service = ProcessService(local_launch(Model("tiny", "a/b"), program=launcher))
    service.start()
    deadline = time.monotonic() + 20
    while not any("Connected" in line for line in service.all_log_lines()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    yield service
    service.stop(0)


class Telling(ProcessService):
    """Tells the harness to end while it is being stopped."""

    def __init__(self, service: ProcessService, *numbers: signal.Signals) -> None:
        self.__dict__ = service.__dict__
        self.numbers = numbers

    def stop(self, grace: float = 100.0) -> None:
        threading.Thread(target=self._tell).start()
        super().stop(grace)

    def _tell(self) -> None:
        for number in self.numbers:
            time.sleep(0.2)  # two at once would be one
            os.kill(os.getpid(), number)
        self.numbers = ()


def gone(service: ProcessService) -> bool:
    assert service.record is not None
    return service.state().exit_code == 137 and not marked(service.record.marker)


def test_interrupt_while_stopping_is_not_lost(stubborn: ProcessService) -> None:
    """The engine gets its grace and its end; then the command learns that it is to end."""
    with pytest.raises(KeyboardInterrupt):
        stop_in_order(Telling(stubborn, signal.SIGINT), 2.0)
    assert gone(stubborn)


def test_second_interrupt_cuts_the_grace_off(stubborn: ProcessService) -> None:
    """Nobody waits for an engine that does not want to end."""
    with pytest.raises(KeyboardInterrupt):
        stop_in_order(Telling(stubborn, signal.SIGINT, signal.SIGINT), FOR_EVER)
    assert gone(stubborn)


def test_interrupt_after_the_one_that_led_here_is_the_second(stubborn: ProcessService) -> None:
    """SIGTERM and Ctrl-C count alike where both end the harness."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def interrupted() -> None:
        try:
            raise KeyboardInterrupt("the first")
        finally:
            stop_in_order(Telling(stubborn, signal.SIGTERM), FOR_EVER)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt, match="the first"):
            interrupted()
        assert signal.getsignal(signal.SIGTERM) is interrupt
    finally:
        signal.signal(signal.SIGTERM, before)
    assert gone(stubborn)


def test_without_an_interrupt_nothing_is_raised(stubborn: ProcessService) -> None:
    """The handlers are what they were."""
    before = signal.getsignal(signal.SIGINT)
    stop_in_order(stubborn, 0.2)
    assert gone(stubborn)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    ("engine", "told", "grace", "waited"),
    [
        ("tgi", None, 100, 100),
        ("tgi", 30, 100, 100),
        ("tgi", 300, 100, 310),
        ("llamacpp", None, 100, 10),
        ("llamacpp", 0, 15, 15),
        ("litellm", None, 100, 100),
    ],
)
def test_engine_is_given_the_time_that_it_gives_its_requests(
    engine: str, told: int | None, grace: float, waited: float
) -> None:
    """Whoever has served gets ten seconds more than it drains; a shorter grace and a sidecar's stay."""
    assert whole_grace(grace, engine, told) == waited
