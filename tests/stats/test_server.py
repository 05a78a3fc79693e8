"""Figures of the engine's own gauges over a level."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.errors import UsageError
from harness.load.samplers.base import SampledValue, own, unmeasured
from harness.load.sampling import Samples
from harness.measure.records import Records
from harness.measure.run_folder import Level, RunFolder
from harness.measure.server import ServerSamples, read_server
from harness.report.run import engine
from harness.stats.server import ServerFigures, server_figures
from harness.stats.summary import summarise
from tests.runs import manifest, ticking


def series(**values: list[float]) -> ServerSamples:
    """One reading a second, from second 0 on."""
    return ServerSamples({name: (np.arange(len(each), dtype=float), np.array(each)) for name, each in values.items()})


def test_a_level_has_the_most_of_its_gauges_and_the_growth_of_its_counters() -> None:
    """Counters are taken from the reading before the level to the one after it; gauges only within."""
    known = series(running=[9, 1, 4, 2, 8], preempted=[5, 5, 6, 8, 8], cache_queries=[0, 100, 300, 500, 500])
    found = server_figures(known, 1.0, 3.0)
    assert (found.running, found.preempted, found.prompt_tokens_looked_up) == (4.0, 3.0, 400.0)
    assert (found.waiting, found.kv_used, found.cache_share) == (None, None, None)


def test_a_counter_that_began_anew_has_not_shrunk() -> None:
    """An engine that restarted counts from 0: what it counted since then is what is known."""
    assert series(preempted=[7, 9, 1, 2]).growth("preempted", 0.0, 3.0) == 4.0


@pytest.mark.parametrize("readings", [[], [3.0]])
def test_one_reading_tells_no_growth(readings: list[float]) -> None:
    """A difference needs two."""
    assert series(preempted=readings).growth("preempted", 0.0, 9.0) is None


def test_the_share_of_the_prefix_cache() -> None:
    """Of the tokens that were looked up; nothing can be said where none were."""
    assert ServerFigures(prompt_tokens_looked_up=200, prompt_tokens_from_cache=50).cache_share == 0.25
    assert ServerFigures(prompt_tokens_looked_up=0, prompt_tokens_from_cache=0).cache_share is None


def test_what_samplers_wrote_is_read(tmp_path: Path) -> None:
    """Shared names come back as series, one for each set of labels; the page's own metrics do not."""
    samples = Samples()
    samples.add(1.0, [SampledValue("tgi_queue_size", 4.0), own("running", 2), own("gpu_power_watts", 70, gpu="0")])
    samples.add(2.0, [own("running", 3), unmeasured("host", "nobody looks")])
    folder = RunFolder(tmp_path)
    samples.write(folder.server)
    known = read_server(folder)
    assert sorted(known.series) == ["gpu_power_watts{gpu=0}", "running"]
    assert known.values("running", 0.0, 9.0).tolist() == [2.0, 3.0]
    assert known.unmeasured == {"host": "nobody looks"}


def test_what_a_killed_run_had_read_is_read_from_its_journal(tmp_path: Path) -> None:
    """Cut at any byte it holds all readings before that one, and never a part of one; once written it is gone."""
    folder = RunFolder(tmp_path)
    samples = Samples(kept_in=folder.server_journal)
    ends = [0]
    for second in range(4):
        samples.add(float(second), [own("running", second), own("gpu_power_watts", 70 + second, gpu="0")])
        ends.append(folder.server_journal.stat().st_size)
    whole = folder.server_journal.read_bytes()
    for cut in range(0, len(whole), 17):
        folder.server_journal.write_bytes(whole[:cut])
        known = read_server(folder)
        count = sum(end <= cut for end in ends[1:])
        assert known.values("running", 0.0, 9.0).tolist() == [0.0, 1.0, 2.0, 3.0][:count]
        assert len(known.values("gpu_power_watts{gpu=0}", 0.0, 9.0)) == count
    samples.write(folder.server)
    assert [path.name for path in tmp_path.iterdir()] == ["server.parquet"]
    assert read_server(folder).values("gpu_power_watts{gpu=0}", 0.0, 9.0).tolist() == [70.0, 71.0, 72.0, 73.0]


def test_a_disk_without_room_for_the_journal_ends_no_reading(tmp_path: Path) -> None:
    """What is in memory is there all the same."""
    samples = Samples(kept_in=tmp_path / "no such folder" / "server.arrows")
    samples.add(1.0, [own("running", 2)])
    samples.add(2.0, [own("running", 3)])
    folder = RunFolder(tmp_path)
    samples.write(folder.server)
    assert read_server(folder).values("running", 0.0, 9.0).tolist() == [2.0, 3.0]


@pytest.mark.parametrize("content", [None, b"", b"PAR1 and no more"])
def test_a_file_that_cannot_be_read_tells_nothing(tmp_path: Path, content: bytes | None) -> None:
    """A run without engine metrics is whole all the same."""
    folder = RunFolder(tmp_path)
    if content is not None:
        folder.server.write_bytes(content)
    assert read_server(folder) == ServerSamples()


def test_readings_whose_text_is_damaged_are_refused_in_one_line(tmp_path: Path) -> None:
    """The file is whole as Parquet, but a name in it is no UTF-8; of a run that was cut off it tells nothing."""
    folder, samples = RunFolder(tmp_path), Samples()
    samples.add(1.0, [own("running", 2)])
    samples.write(folder.server)
    table = pq.read_table(folder.server)
    damaged = table["metric"][0].as_py().encode() + b"\xff"
    ends = np.array([0, len(damaged)], np.int32)
    name = pa.StringArray.from_buffers(1, pa.py_buffer(ends.tobytes()), pa.py_buffer(damaged))
    pq.write_table(table.set_column(table.column_names.index("metric"), "metric", name), folder.server)
    with pytest.raises(UsageError, match="cannot be read"):
        read_server(folder, complete=True)
    assert read_server(folder) == ServerSamples()


@pytest.mark.parametrize(
    ("told", "rules"),
    [
        (ServerFigures(preempted=0, prompt_tokens_looked_up=1000, prompt_tokens_from_cache=10), set()),
        (ServerFigures(preempted=3), {"put_back"}),
        (ServerFigures(prompt_tokens_looked_up=1000, prompt_tokens_from_cache=300), {"from_cache"}),
    ],
)
def test_what_an_engine_did_in_silence_is_said(told: ServerFigures, rules: set[str]) -> None:
    """Chats that were put back, and prompts that a cache answered, stand among what is to be read with care."""
    level = Level(0, users=1, duration=10.0, started_at=0.0, ended_at=10.0, ended_by="duration")
    moments = np.array([0.0, 10.0])
    names = {"preempted": told.preempted, "cache_queries": told.prompt_tokens_looked_up}
    names["cache_hits"] = told.prompt_tokens_from_cache
    known = {name: (moments, np.array([0.0, value])) for name, value in names.items() if value is not None}
    records = Records.from_list([ticking(n, n / 10) for n in range(100)])
    summary = summarise(records, manifest([level]), None, ServerSamples(known))
    assert {reason.rule for reason in summary.total.warnings} & {"put_back", "from_cache"} == rules
    assert engine.section(summary) is not None
    assert summary.as_dict()["server"]["preempted"] == told.preempted
