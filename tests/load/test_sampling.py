"""The thread that reads all samplers beside a load, and the file that it leaves."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from harness.engines.endpoint import Endpoint
from harness.load.samplers import SAMPLERS
from harness.load.samplers.base import NotMeasured, SampledService, SampledValue, own
from harness.load.samplers.host import HostSampler
from harness.load.sampling import SCHEMA, Samples, Sampling
from harness.measure.run_folder import RunFolder
from harness.measure.server import read_server
from tests.waiting import until

NOBODY = SampledService(Endpoint("http://127.0.0.1:9"))


class _Told:
    name = "told"
    closed = 0

    def __init__(self, service: SampledService) -> None:
        self.reads = 0

    def read(self) -> Sequence[SampledValue]:
        self.reads += 1
        return [own("told_ratio", self.reads / 4, of="a")]

    def close(self) -> None:
        type(self).closed += 1


class _Silent(_Told):
    name = "silent"
    asked = 0

    def read(self) -> Sequence[SampledValue]:
        type(self).asked += 1
        raise NotMeasured("there is none here")


def test_no_sample_still_gives_a_table(tmp_path: Path) -> None:
    """A run without any reading leaves a table with the columns and no rows."""
    Samples().write(tmp_path / "server.parquet")
    table = pq.read_table(tmp_path / "server.parquet")
    assert table.num_rows == 0
    assert table.schema.names == SCHEMA.names


def test_samplers_are_read_before_beside_and_after_a_load(tmp_path: Path) -> None:
    """All are read at once, again each interval and at the end; one that has nothing to tell says why, once."""
    _Told.closed = _Silent.asked = 0
    with Sampling(NOBODY, time.monotonic(), interval=3600.0, samplers=(_Silent, _Told)) as sampling:
        until(lambda: sampling.samples.value)
    folder = RunFolder(tmp_path)
    sampling.samples.write(folder.server)
    known = read_server(folder)
    assert known.series["told_ratio{of=a}"][1].tolist() == [0.25, 0.5]
    assert known.unmeasured == {"silent": "there is none here"}
    assert _Silent.asked == 1
    assert _Told.closed + _Silent.closed == 2


def test_every_sampler_of_the_list_bears_a_service_that_is_not_there() -> None:
    """What cannot be read ends nothing; the machine's own figures are there all the same."""
    with Sampling(NOBODY, time.monotonic(), interval=0.01) as sampling:
        until(lambda: "harness:host_cpu_ratio" in sampling.samples.metric)
    assert {each.split("_")[0] for each in sampling.samples.metric} == {"harness:host", "harness:gpu"}
    assert len(SAMPLERS) == 3


def test_a_host_that_computes_is_busy() -> None:
    """Shares are of the time between two readings, and lie between none and all."""
    sampler = HostSampler(NOBODY)
    first = {each.metric for each in sampler.read()}
    ends = time.process_time() + 0.2
    while time.process_time() < ends:
        pass
    found = {each.metric.removeprefix("harness:"): each.value for each in sampler.read()}
    assert "harness:host_cpu_ratio" not in first
    assert found["host_cpu_ratio"] > 0.0
    shares = {name: value for name, value in found.items() if name != "host_load_ratio"}
    assert all(0.0 <= value <= 1.0 for value in shares.values())


def test_it_can_be_written_while_readings_still_come(tmp_path: Path) -> None:
    """After Ctrl-C the table holds whole readings, although the reading goes on beside the writing."""
    samples, enough = Samples(), threading.Event()
    six = [SampledValue("a", 1.0)] * 6

    def read() -> None:
        while not enough.wait(0.0002):
            samples.add(0.5, six)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(30):
            samples.write(tmp_path / "server.parquet")
            assert pq.read_table(tmp_path / "server.parquet").num_rows % 6 == 0
    finally:
        enough.set()
        reader.join()
