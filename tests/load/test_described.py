"""What a load process says of a locustfile that it runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.load.worker_pool import WorkerPool
from harness.workload.chat import Chat
from harness.workload.named import find, known
from harness.workload.user_spec import UserSpec


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    """One load process for all tests of this module."""
    with WorkerPool(1) as one:
        yield one


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory, which the load process does not share."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, body: str, base: str = "StreamUser") -> Path:
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    imports = "from locust import task, between, HttpUser\nfrom harness.load.user import StreamUser\n"
    path.write_text(f"{imports}class MyUser({base}):\n{lines}\n")
    return path


def one(pool: WorkerPool, path: Path) -> UserSpec:
    (spec,) = pool.describe(str(path)).users
    return spec


@pytest.mark.parametrize("name", known())
def test_shipped_workloads_fit_what_most_services_allow(pool: WorkerPool, name: str) -> None:
    """Answers that TGI does not cut into pieces, a reason for the lengths, and questions that fit a small service."""
    for spec in pool.describe(str(find(name))).users:
        workload = spec.workload(seed=1)
        base = workload.base if isinstance(workload, Chat) else workload
        assert base.input_lengths.longest is not None
        assert base.output_lengths.longest is not None
        assert base.output_lengths.longest <= 1024
        assert isinstance(workload, Chat) or base.input_lengths.longest + base.output_lengths.longest <= 4096
        assert len(spec.reason) > 40
        assert next(workload.start(0)).prompt


def test_what_a_class_leaves_out_comes_from_the_workload_that_it_names(pool: WorkerPool, here: Path) -> None:
    """Lengths that the file computes are as good as written ones; what is inherited counts."""
    base = write(here / "base.py", 'input_tokens = 2 + 3\noutput_tokens = "uniform:1:9"\nabstract = False')
    user = one(pool, write(here / "derived.py", f'"""Why."""\nworkload = {str(base)!r}\noutput_tokens = 4\nweight = 3'))
    assert (user.name, user.user, user.reason, user.weight) == ("derived", "MyUser", "Why.", 3.0)
    assert (user.input_tokens, user.output_tokens) == ("5", "4")
    assert not user.converses


def test_conversations_are_told_by_attributes_and_by_tasks_that_yield(pool: WorkerPool, here: Path) -> None:
    """Two ways of writing one, and what is neither."""
    body = "input_tokens = 5\noutput_tokens = 5\n"
    attributes = one(pool, write(here / "a.py", body + 'turns = "uniform:2:9"\nhistory = "last(3)"\nthink_time = "2s"'))
    assert (attributes.turns, attributes.history, attributes.think_time) == ("uniform:2:9", "last(3)", "2s")
    tasks = "@task(2)\ndef look(self):\n    yield self.ask()\n@task\ndef plain(self): pass\nwait_time = between(1, 2)"
    yielding = one(pool, write(here / "b.py", body + tasks))
    assert (yielding.scripts, yielding.tasks, yielding.waits) == (("look", "look"), ("plain",), True)
    assert attributes.converses
    assert yielding.converses


@pytest.mark.parametrize(
    ("body", "where", "said"),
    [
        ('input_tokens = "5"\noutput_tokens = "many"', ": MyUser.output_tokens", "'many'"),
        ("input_tokens = True\noutput_tokens = 5", ": MyUser.input_tokens", "True"),
        ("input_tokens = size()\noutput_tokens = 5", ":4", "NameError: name 'size' is not defined"),
        ('workload = "chats"', ": MyUser", "Did you mean chat"),
        ('workload = "mine"\ninput_tokens = 5', ": MyUser", "no output_tokens"),
        ('history = "last"', ": MyUser.history", "expected last(TURNS)"),
        ('history = "tail(6)"', ": MyUser.history", "unknown history 'tail(6)'. Known: keep_all"),
        ('think_time = "soon"', ": MyUser.think_time", "'soon'"),
        ('turns = "0"', ": MyUser.turns", "from 1"),
        ('system_tokens = "some"', ": MyUser.system_tokens", "'some'"),
        ("workload = ", ":4", "not valid Python"),
        ("raise SystemExit('it ended')", ":4", "it ended"),
    ],
)
def test_mistake_in_a_file_is_named_with_its_place(
    pool: WorkerPool, here: Path, body: str, where: str, said: str
) -> None:
    """The file, and the line or the attribute; the load process lives on."""
    path = write(here / "mine.py", body)
    with pytest.raises(UsageError) as caught:
        pool.describe(str(path))
    assert caught.value.where == f"{path}{where}"
    assert said in str(caught.value)


def test_file_must_hold_users_of_ours_alone(pool: WorkerPool, here: Path) -> None:
    """What other users send would be recorded by nobody."""
    with pytest.raises(UsageError, match="no class derived from StreamUser"):
        pool.describe(str(write(here / "plain.py", "pass", base="HttpUser")))
    with write(here / "two.py", "input_tokens = 5").open("a") as file:
        file.write("\nclass Other(HttpUser):\n    pass\n")
    with pytest.raises(UsageError, match="holds Other, not derived from StreamUser"):
        pool.describe(str(here / "two.py"))


def test_what_a_file_prints_harms_nobody(pool: WorkerPool, here: Path) -> None:
    """Lines of its own do not stand between those of the load process."""
    path = write(here / "loud.py", 'input_tokens = 5\noutput_tokens = 5\nprint(\'{"say": "level_ended"}\', flush=True)')
    assert one(pool, path).input_tokens == "5"


SHAPE = """
from locust import LoadTestShape

class Steps(LoadTestShape):
    def tick(self):
        at = self.get_run_time()
        return None if at >= 12 else (4 if 5 <= at < 8 else 1, 10)
"""


def test_a_load_shape_is_told_as_steps(pool: WorkerPool, here: Path) -> None:
    """As far as time alone decides; what asks for more belongs under Locust."""
    path = write(here / "shaped.py", "input_tokens = output_tokens = 5")
    plain = path.read_text()
    path.write_text(plain + SHAPE)
    assert pool.describe(str(path)).shape == ((1, 5.0), (4, 3.0), (1, 4.0))
    path.write_text(plain + SHAPE.replace("return None if at >= 12 else (4", "return (self.runner.user_count"))
    with pytest.raises(UsageError, match=r"shaped.py:11: tick\(\) asks for more than the time of the run"):
        pool.describe(str(path))
    path.write_text(plain + SHAPE.replace("None if at >= 12 else ", ""))
    with pytest.raises(UsageError, match="does not end within a day"):
        pool.describe(str(path))
