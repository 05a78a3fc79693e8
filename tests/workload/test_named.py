"""Workloads by name: files of locustfiles/, read and not run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.workload.lengths import parse_lengths
from harness.workload.named import known, named
from harness.workload.workload import drawn

SHIPPED = ("chat", "code", "summarise")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """locustfiles/ of a working directory of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "locustfiles").mkdir()
    return tmp_path / "locustfiles"


def write(path: Path, body: str, base: str = "StreamUser") -> None:
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    path.write_text(f"from harness.load.user import StreamUser\n\nclass MyUser({base}):\n{lines}\n")


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_workloads_fit_what_most_services_allow(name: str) -> None:
    """At most 4,096 tokens in all, answers that TGI does not cut into pieces, and a reason; each makes requests."""
    found = named(name)
    inputs, outputs = parse_lengths(found.input_tokens), parse_lengths(found.output_tokens)
    assert inputs.longest is not None
    assert outputs.longest is not None
    assert inputs.longest + outputs.longest <= 4096
    assert outputs.longest <= 1024
    assert len(found.reason) > 40
    assert drawn(found.name, found.input_tokens, found.output_tokens, seed=1).request(0).prompt


def test_unknown_name_is_answered_with_the_nearest(here: Path) -> None:
    """Names of the working directory are among those offered."""
    with pytest.raises(UsageError, match="Did you mean summarise"):
        named("sumarize")
    write(here / "haiku.py", 'input_tokens = 8\noutput_tokens = "24"')
    with pytest.raises(UsageError, match="Did you mean haiku"):
        named("haikus")
    assert known() == ["haiku", *SHIPPED]


def test_working_directory_wins(here: Path) -> None:
    """A file of one's own stands for the shipped one of the same name."""
    write(here / "chat.py", 'input_tokens = "7"\noutput_tokens = "9"')
    assert (named("chat").input_tokens, named("chat").output_tokens) == ("7", "9")


def test_what_is_left_out_comes_from_the_workload_that_is_named(here: Path) -> None:
    """Over several files, and from constants and classes of the same file."""
    write(here / "short.py", 'workload = "chat"\noutput_tokens = "uniform:1:9"')
    write(here / "shorter.py", 'workload: str = "short"\ninput_tokens = "5"')
    assert named("short").input_tokens == named("chat").input_tokens
    assert (named("shorter").input_tokens, named("shorter").output_tokens) == ("5", "uniform:1:9")
    (here / "derived.py").write_text(
        "from harness.load import user\nfrom harness.load.user import StreamUser as Base\nLONG = 'normal:9:2'\n"
        "class Common(Base):\n    abstract = True\n    input_tokens = LONG\n    output_tokens = 3\n"
        "class Mine(Common):\n    'Why.'\n    output_tokens = 4\n"
    )
    assert named("derived").input_tokens == "normal:9:2"
    assert (named("derived").output_tokens, named("derived").reason) == ("4", "Why.")
    assert named(str(here / "derived.py")).name == "derived"


@pytest.mark.parametrize(
    ("body", "where", "said"),
    [
        ('input_tokens = "5"', "mine.py:3", "no output_tokens"),
        ('workload = "mine"\ninput_tokens = "5"', "mine.py:4", "no output_tokens"),
        ('input_tokens = "5"\noutput_tokens = "many"', "mine.py:5", "'many'"),
        ('input_tokens = size()\noutput_tokens = "5"', "mine.py:4", "'size()'"),
        ('input_tokens = True\noutput_tokens = "5"', "mine.py:4", "'True'"),
        ('input_tokens = "5"\noutput_tokens = "5"\nwait_time = constant(1)', "mine.py:6", "wait_time"),
        ('input_tokens = "5"\noutput_tokens = "5"\ndef ask(self): pass', "mine.py:6", "ask()"),
        ('workload = "chats"', "mine.py", "Did you mean chat"),
        ("workload = ", "mine.py:4", "is no Python"),
    ],
)
def test_mistake_in_a_file_is_named_with_its_line(here: Path, body: str, where: str, said: str) -> None:
    """What bench cannot know without running the file, or would pass over, is refused."""
    write(here / "mine.py", body)
    with pytest.raises(UsageError) as caught:
        named("mine")
    assert caught.value.where == f"locustfiles/{where}"
    assert said in str(caught.value)


def test_file_must_hold_one_user(here: Path) -> None:
    """None, or two of which bench could only ask one."""
    write(here / "plain.py", 'input_tokens = "5"', base="HttpUser")
    with pytest.raises(UsageError, match="no class derived from StreamUser"):
        named("plain")
    write(here / "two.py", 'input_tokens = "5"')
    with (here / "two.py").open("a") as file:
        file.write("\nclass Other(StreamUser):\n    input_tokens = 6\n")
    with pytest.raises(UsageError, match=r"MyUser \(line 3\), Other \(line 6\)"):
        named("two")


def test_two_files_that_name_each_other_are_refused(here: Path) -> None:
    """The search for the missing length ends."""
    write(here / "one.py", 'workload = "two"')
    write(here / "two.py", 'workload = "one"')
    with pytest.raises(UsageError, match="gives no input_tokens"):
        named("one")


def test_reading_runs_nothing_of_the_file(here: Path) -> None:
    """Locust stays out of the process, and so does what the file would do."""
    write(here / "loud.py", 'input_tokens = "5"\noutput_tokens = "5"')
    with (here / "loud.py").open("a") as file:
        file.write("\nraise SystemExit('it ran')\n")
    script = "import sys; from harness.workload.named import named; named('loud'); print('locust' in sys.modules)"
    seen = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=here.parent)
    assert seen.stdout.strip() == "False", seen.stderr
