"""`harness probe` against launchers whose memory laws differ from our model, through real processes and HTTP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.commands.probe import ProbeOptions, probe
from harness.drive import probe_start as probing
from harness.errors import HarnessError, UsageError
from harness.serve.target import Target
from tests.probe.engines import FakeLauncher, fake_launcher

ANSWER = 128


def run(fake: FakeLauncher, folder: Path, **options: Any) -> dict[str, Any]:
    """One probe of the fake, as its report says."""
    target = Target("toy", runtime="local", launcher=str(fake.program), catalogue=str(fake.catalogue))
    report = probe(target, ProbeOptions(output=folder, **options))
    assert report.path.is_file()
    assert report.as_text()
    return report.as_json()


def left_behind(fake: FakeLauncher) -> list[psutil.Process]:
    """Processes that came from the fake and still run."""
    found = []
    for process in psutil.process_iter(["environ", "status"]):
        environment = process.info["environ"] or {}
        if environment.get("FAKE_TGI") == str(fake.starts_file) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


FLASH: dict[str, tuple[dict[str, Any], int]] = {  # the engine, and the tokens that requests can get at once
    "memory bounds the history": ({"context": 131_072}, 29_179),
    "without chunking": ({"chunking": False}, 28_386),
    "blocks of 256": ({"context": 131_072, "block_size": 256}, 28_672),
}


@pytest.mark.parametrize("name", FLASH)
def test_flash_engines_take_two_starts(name: str, tmp_path: Path) -> None:
    """The budget is read, the limits proved, both within one percent of the truth, in two starts."""
    spec, usable = FLASH[name]
    fake = fake_launcher(tmp_path / "engine", answer_tokens=ANSWER, **spec)
    found = run(fake, tmp_path / "out")
    assert found["starts"] == len(fake.starts()) == 2
    assert found["verified_under_load"]
    limits, flags = found["limits"], found["recommended_flags"]
    best = min(usable + 1, spec.get("context", 8192))
    assert best * 0.99 - ANSWER <= limits["max_input_tokens"] <= best - ANSWER
    assert flags == {name: value for name, value in fake.starts()[-1].items() if name != "MAX_BATCH_TOTAL_TOKENS"}
    # Two such chats that begin alike would block each other; without chunking prompts would pass for cached.
    near = {"PREFIX_CACHING"} if 2 * best > usable or not spec.get("chunking", True) else set()
    assert set(flags) == {
        "MAX_INPUT_TOKENS",
        "MAX_TOTAL_TOKENS",
        "MAX_BATCH_PREFILL_TOKENS",
        "MAX_CONCURRENT_REQUESTS",
        *near,
    }
    assert all(check["ran"] and check["held"] for check in found["checks"])
    assert set(found["goals"]) == {"balanced", "history", "chats", "latency"}
    assert int(flags["MAX_CONCURRENT_REQUESTS"]) >= usable // (ANSWER + 24) // 2
    for cell in found["capacity"]:
        blocks = -(-(cell["history_tokens"] + ANSWER - 1) // spec.get("block_size", 1))
        assert abs(cell["chats_fit"] - usable // spec.get("block_size", 1) // blocks) <= 1


PACE = {"decode_seconds": 0.005, "prefill_rate": 200_000.0}  # what is in flight must stay to be seen

PADDED: dict[str, tuple[dict[str, Any], float]] = {  # the engine, and the activations of a token that is read
    "each chat costs": ({"memory": 12_000, "row_cost": 60, "context": 4224}, 0.2),
    "linear": ({"memory": 12_000}, 0.2),
    "a bump at middle lengths": (
        {"memory": 12_000, "activation": "rows * longest * (0.36 if 1000 < longest < 2000 else 0.2)", "context": 4224},
        0.36,
    ),
}


@pytest.mark.parametrize("name", PADDED)
def test_padded_engines_are_searched_under_load(name: str, tmp_path: Path) -> None:
    """The budget that survives every load is met within 1.5 % from below, in five starts at most; within 3 % where each
    chat costs something, because of many chats not every token is in flight on a busy machine.
    """
    spec, share = PADDED[name]
    fake = fake_launcher(tmp_path / "engine", answer_tokens=ANSWER, kind="padded", **PACE, **spec)
    found = run(fake, tmp_path / "out")
    assert len(fake.starts()) <= 5
    assert found["verified_under_load"]
    budget = found["limits"]["max_batch_total_tokens"]
    flags = found["recommended_flags"]
    assert flags == fake.starts()[-1], "proved with these flags and no others"
    chats = int(flags["MAX_CONCURRENT_REQUESTS"])
    true = 12_000 - share * int(flags["MAX_BATCH_PREFILL_TOKENS"]) - spec.get("row_cost", 0) * chats
    assert true * (0.97 if "row_cost" in spec else 0.985) <= budget <= true
    assert found["recommended_flags"]["MAX_BATCH_TOTAL_TOKENS"] == str(budget)
    bracket = found["boundary"]["max_batch_total_tokens"]
    assert bracket["smallest_failed"] is not None
    assert "memory" in bracket["failure"]


@pytest.mark.parametrize("heeds", [True, False])
def test_padding_that_multiplies_is_bounded_by_the_batch(tmp_path: Path, heeds: bool) -> None:
    """Where one long prompt makes its batch as long, no more chats run than fit at full length: MAX_BATCH_SIZE says so
    where it is heeded, else no more are let in.
    """
    fake = fake_launcher(
        tmp_path / "engine",
        answer_tokens=ANSWER,
        kind="padded",
        padded_rows=True,
        memory=12_000,
        heeds_batch_size=heeds,
        context=4224,
        **PACE,
    )
    found = run(fake, tmp_path / "out")
    flags = found["recommended_flags"]
    most = 12_000 // int(flags["MAX_TOTAL_TOKENS"])
    assert flags["MAX_CONCURRENT_REQUESTS"] == ("128" if heeds else str(most))
    assert flags.get("MAX_BATCH_SIZE") == (str(most) if heeds else None)
    assert found["limits"]["max_batch_size"] == most
    assert found["verified_under_load"]


def test_what_dies_of_many_chats_gets_fewer_permits(tmp_path: Path) -> None:
    """A death under load lowers the permits, to not less than half of what survives."""
    fake = fake_launcher(tmp_path / "engine", answer_tokens=ANSWER, rows_die=40)
    found = run(fake, tmp_path / "out")
    assert 20 <= int(found["recommended_flags"]["MAX_CONCURRENT_REQUESTS"]) < 40
    assert found["boundary"]["max_concurrent_requests"]["smallest_failed"] >= 40


def test_what_dies_of_a_full_cache_gets_less_memory(tmp_path: Path) -> None:
    """An engine that starts and then dies with its cache full is told to take less of the GPU."""
    fake = fake_launcher(tmp_path / "engine", answer_tokens=ANSWER, context=131_072, memory=12_000, tokens_die=8_000)
    found = run(fake, tmp_path / "out")
    assert found["verified_under_load"]
    assert float(found["recommended_flags"]["CUDA_MEMORY_FRACTION"]) < 1
    assert 0.99 * 7_999 <= found["limits"]["max_batch_total_tokens"] <= 7_999
    assert 0.99 * 7_999 <= found["limits"]["max_total_tokens"] <= 7_999
    assert any("of what was in flight" in line for line in found["advice"])


def test_what_hangs_beyond_a_size_is_bounded_below_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that gives no token any more is as dead as one that ended; the boundary is found all the same."""
    monkeypatch.setattr(probing, "_STALL", 2.0)
    fake = fake_launcher(
        tmp_path / "engine", answer_tokens=ANSWER, kind="padded", context=4224, hang_tokens=10_000, **PACE
    )
    found = run(fake, tmp_path / "out")
    assert found["verified_under_load"]
    assert 0.97 * 10_000 <= found["limits"]["max_batch_total_tokens"] <= 10_000
    assert not left_behind(fake)


def test_what_hangs_though_it_says_that_it_is_healthy_is_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With blocks to wait for too: where not even a short chat is served any more, no chat was too long."""
    monkeypatch.setattr(probing, "_STALL", 1.0)
    fake = fake_launcher(tmp_path / "engine", answer_tokens=ANSWER, context=4224, memory=12_000, hang_tokens=8_000)
    found = run(fake, tmp_path / "out")
    assert found["verified_under_load"]
    assert len(fake.starts()) == 3
    assert 0.98 * 8_000 <= found["limits"]["max_batch_total_tokens"] <= 8_000
    assert not left_behind(fake)


def test_a_process_that_outlives_its_death_is_not_asked_again(tmp_path: Path) -> None:
    """Out of memory ends a start, whether or not the launcher notices: fewer permits in the next one."""
    fake = fake_launcher(tmp_path / "engine", answer_tokens=ANSWER, rows_die=40, stays_after_death=True)
    found = run(fake, tmp_path / "out")
    assert found["verified_under_load"]
    assert len(fake.starts()) == 2
    assert 20 <= int(found["recommended_flags"]["MAX_CONCURRENT_REQUESTS"]) < 40


def test_a_chat_that_is_never_scheduled_is_not_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The longest chat waits for ever although the engine is healthy: the largest that does not is the limit."""
    monkeypatch.setattr(probing, "_STALL", 1.0)
    fake = fake_launcher(tmp_path / "engine", answer_tokens=ANSWER, context=131_072, memory=12_000, stuck_slots=10_500)
    found = run(fake, tmp_path / "out")
    assert found["verified_under_load"]
    assert 0.96 * 10_500 <= found["limits"]["max_total_tokens"] <= 10_500
    assert "CUDA_MEMORY_FRACTION" not in found["recommended_flags"]


@pytest.mark.parametrize(
    "words", ["something went wrong", "torch.distributed.DistBackendError: NCCL error in: /opt/x.cpp:1970"]
)
def test_a_start_that_fails_by_chance_is_repeated(tmp_path: Path, words: str) -> None:
    """A failure without a reason, or with one that may pass, costs one start; it is counted."""
    fake = fake_launcher(tmp_path / "engine", answer_tokens=ANSWER, fail_starts=1, fail_words=words)
    found = run(fake, tmp_path / "out")
    assert found["starts"] == len(fake.starts()) == 3
    assert found["verified_under_load"]


FATAL: dict[str, tuple[dict[str, Any], int, int, str]] = {  # engine, starts, exit code, a word of the message
    "weights too large": ({"load_memory_fails": True}, 1, 4, "weights"),
    "no such model": ({"fail_text": "RepositoryNotFoundError: 404 Client Error"}, 1, 2, "repo"),
    "no CUDA device": ({"fail_text": "RuntimeError: No CUDA GPUs are available"}, 1, 3, "nvidia-smi"),
    "never comes up": ({"hang_starts": 9}, 2, 4, "not ready after"),
    "fails every time": ({"fail_starts": 9}, 2, 4, "loaded"),
}


@pytest.mark.parametrize("name", FATAL)
def test_what_no_flag_can_mend_is_named_at_once(name: str, tmp_path: Path) -> None:
    """The search ends with the cause, the right exit code, and nothing left running."""
    spec, starts, code, word = FATAL[name]
    fake = fake_launcher(tmp_path / "engine", start_timeout="2s", **spec)
    with pytest.raises(HarnessError) as failure:
        run(fake, tmp_path / "out")
    assert failure.value.exit_code == code
    assert word in str(failure.value)
    assert len(fake.starts()) == starts
    assert not left_behind(fake)


LOGS: dict[str, dict[str, Any]] = {
    "coloured": {"logs": "colour"},
    "JSON, four characters a token, no /tokenize": {"logs": "json", "tokens_of": "characters", "tokenize": False},
}


@pytest.mark.parametrize("name", LOGS)
def test_every_form_of_log_is_read(name: str, tmp_path: Path) -> None:
    """Colours and JSON records hide nothing."""
    fake = fake_launcher(tmp_path / "engine", answer_tokens=ANSWER, **LOGS[name])
    found = run(fake, tmp_path / "out", quick=True)
    assert found["limits"]["max_batch_total_tokens"] == 29_180


def test_quick_starts_once_and_says_what_it_did_not_do(tmp_path: Path) -> None:
    """`--quick` reads the limits of one start and proves nothing."""
    fake = fake_launcher(tmp_path / "engine", answer_tokens=ANSWER)
    found = run(fake, tmp_path / "out", quick=True)
    assert found["starts"] == len(fake.starts()) == 1
    assert found["verified_under_load"] is False
    assert any("--quick" in line for line in found["advice"])


def test_quick_writes_no_limit_that_it_did_not_search(tmp_path: Path) -> None:
    """Without chunking or flash attention one start is at the engine's own lengths: the entry stays as it was."""
    for kind in ({"chunking": False}, {"kind": "padded"}):
        fake = fake_launcher(tmp_path / str(kind) / "engine", answer_tokens=ANSWER, **kind)
        before = fake.catalogue.read_text()
        found = run(fake, tmp_path / str(kind) / "out", quick=True, write=True)
        assert fake.catalogue.read_text() == before
        assert any("nothing was written" in line.lower() for line in found["advice"])


def test_what_cannot_be_written_is_said_in_the_result(tmp_path: Path) -> None:
    """A prefix cache that must be off is no limit of the entry."""
    fake = fake_launcher(tmp_path / "engine", answer_tokens=ANSWER, context=131_072)
    found = run(fake, tmp_path / "out", quick=True, write=True)
    assert found["recommended_flags"]["PREFIX_CACHING"] == "0"
    assert any("PREFIX_CACHING=0" in line and "env:" in line for line in found["advice"])


def test_write_puts_the_limits_into_the_entry(tmp_path: Path) -> None:
    """Comments and other keys stay; the limits carry a short reason."""
    fake = fake_launcher(tmp_path / "engine", answer_tokens=ANSWER)
    found = run(fake, tmp_path / "out", quick=True, write=True)
    text = fake.catalogue.read_text()
    assert "# kept" in text
    assert f"max_total_tokens: {found['limits']['max_total_tokens']}  # probe: " in text


def test_older_versions_get_the_older_name(tmp_path: Path) -> None:
    """Before 2.0 the limit of the prompt is MAX_INPUT_LENGTH."""
    fake = fake_launcher(tmp_path / "engine", answer_tokens=ANSWER, version="1.4.5", chunking=False)
    flags = run(fake, tmp_path / "out", quick=True)["recommended_flags"]
    assert "MAX_INPUT_LENGTH" in flags
    assert "MAX_INPUT_TOKENS" not in flags


def test_an_answer_longer_than_a_chat_is_refused(tmp_path: Path) -> None:
    """Known before any start where the context is."""
    fake = fake_launcher(tmp_path / "engine", answer_tokens=9000, context=8192)
    with pytest.raises(UsageError, match="leaves no room"):
        run(fake, tmp_path / "out")
    assert not fake.starts()


def test_a_folder_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    """An older result is not overwritten."""
    fake = fake_launcher(tmp_path / "engine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x").touch()
    with pytest.raises(UsageError, match="not empty"):
        run(fake, tmp_path / "out")
    assert not fake.starts()


def test_resume_repeats_no_finished_start_and_interrupting_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C in the second start: exit 130, no process left; `--resume` needs that start alone."""
    fake = fake_launcher(tmp_path / "engine", answer_tokens=ANSWER, shard=True)
    command = [sys.executable, "-m", "harness", "probe", "toy", "--runtime", "local"]
    command += ["--launcher", str(fake.program), "--catalogue", str(fake.catalogue), "--output", str(tmp_path / "out")]
    environment = {**os.environ, "FAKE_TGI": str(fake.starts_file)}
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment)
    deadline = time.monotonic() + 60
    while len(fake.starts()) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert not left_behind(fake)
    done = subprocess.run(
        [*command, "--resume", "--json"], capture_output=True, env=environment, timeout=120, check=True
    )
    assert len(fake.starts()) == 3
    assert json.loads(done.stdout)["starts"] == 2
    assert not left_behind(fake)


def test_killed_at_once_it_leaves_nothing(tmp_path: Path) -> None:
    """SIGKILL lets no program stop its engine, nor the shard in a session of its own: somebody else does."""
    fake = fake_launcher(tmp_path / "engine", answer_tokens=ANSWER, shard=True)
    command = [sys.executable, "-m", "harness", "probe", "toy", "--runtime", "local"]
    command += ["--launcher", str(fake.program), "--catalogue", str(fake.catalogue), "--output", str(tmp_path / "out")]
    environment = {**os.environ, "FAKE_TGI": str(fake.starts_file)}
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment)
    deadline = time.monotonic() + 60
    while len(left_behind(fake)) < 4 and time.monotonic() < deadline:  # harness, watchdog, launcher, shard
        time.sleep(0.05)
    assert len(left_behind(fake)) >= 4
    process.kill()
    process.wait(60)
    while left_behind(fake) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left_behind(fake)


def test_resuming_with_other_options_is_refused(tmp_path: Path) -> None:
    """The starts of another search prove nothing for this one."""
    fake = fake_launcher(tmp_path / "engine", answer_tokens=ANSWER)
    run(fake, tmp_path / "out", quick=True)
    with pytest.raises(UsageError, match="answer_tokens"):
        run(fake, tmp_path / "out", quick=True, resume=True, answer_tokens=64)
