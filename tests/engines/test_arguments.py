"""Command lines: words of a table, our limits as flags, and what an entry's own arguments may say."""

from __future__ import annotations

import argparse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.catalog.limits import Limits
from harness.engines.arguments import Flag, Flags, ReservedFlags, limit_flags, read_flags, release, require_own, words
from harness.errors import UsageError

FLAGS = Flags(
    "Engine",
    {
        "--max-len": Flag(),
        "--max-seqs": Flag(since=(2, 0, 0)),
        "--tensor-parallel-size": Flag(also=("-tp",)),
        "--swap": Flag(until=(1, 9, 0)),
        "--api-key": Flag(),
        "--port": Flag(),
        "--eager": Flag(),
        "--config": Flag(),
    },
    releases=((1, 0, 0), (1, 9, 0), (2, 0, 0)),
    instead={"--swap": "Leave it out: there is no swap any more."},
    flexible=True,
)
BARE = Flags("Bare", {"-c": Flag(also=("--ctx-size",)), "-ctk": Flag()}, like_argparse=False)
TAKEN = ReservedFlags(
    keys={"--max-len": "limits/max_total_tokens"},
    places={"--port": "Write `port` in the entry."},
    secrets={"--api-key": "Set HARNESS_API_KEY."},
)


def test_table_becomes_words() -> None:
    """Values follow their flags, switches have none, and what is unset is left out."""
    options = {
        "--max-len": 8192,
        "--share": 0.9,
        "--eager": True,
        "--off": False,
        "--none": None,
        "--sizes": ["1", "2"],
    }
    assert words(options) == ("--max-len", "8192", "--share", "0.9", "--eager", "--sizes", "1", "2")


@pytest.mark.parametrize(
    ("word", "flag"),
    [
        ("--max-len", "--max-len"),
        ("--max_len", "--max-len"),
        ("--max-len=5", "--max-len"),
        ("--max-l", "--max-len"),  # argparse takes a unique beginning
        ("--max", None),  # of two flags
        ("-tp", "--tensor-parallel-size"),
        ("--tensor", "--tensor-parallel-size"),
        ("--no-eager", "--eager"),
        ("--config.mode", "--config"),
        ("-t", None),
        ("-1", None),
        ("8192", None),
        ("--nobody-knows", None),
    ],
)
def test_flag_is_found_in_every_spelling(word: str, flag: str | None) -> None:
    """Underscores, `=`, other names and unique beginnings are the same flag; numbers and values are none."""
    assert FLAGS.flag_of(word) == flag


def test_engine_without_argparse_knows_no_beginnings() -> None:
    """Where the parser takes whole names alone, `-ct` is not `-ctk`, and `--ctx-size=5` is nothing."""
    assert [BARE.flag_of(word) for word in ("-c", "--ctx-size", "--ctx", "--ctx-size=5", "-ct")] == ["-c", "-c"] + [
        None
    ] * 3


@given(
    st.lists(
        st.sampled_from(
            [("--max-len", "1"), ("--max_len", "2"), ("--max-len=3",), ("-tp", "4"), ("--eager",), ("--max-s", "5")]
        )
    )
)
def test_values_are_what_argparse_reads(parts: list[tuple[str, ...]]) -> None:
    """The last value of each flag is the one that Python's own parser would take."""
    line = [word for part in parts for word in part]
    parser = argparse.ArgumentParser()
    parser.add_argument("--max-len", "--max_len", dest="length")
    parser.add_argument("--max-seqs", dest="seqs")
    parser.add_argument("--tensor-parallel-size", "-tp", dest="shards")
    parser.add_argument("--eager", action="store_true")
    read = parser.parse_args(line)
    found = [FLAGS.value(line, flag) for flag in ("--max-len", "--max-seqs", "--tensor-parallel-size")]
    assert found == [read.length, read.seqs, read.shards]


def test_flags_are_taken_out_with_their_values() -> None:
    """What is left of a line is every other flag with its own values."""
    line = ("--eager", "--max_len", "5", "-tp", "2", "--max-seqs=3", "--other", "x")
    assert FLAGS.without(line, ["--max-len", "--max-seqs"]) == ("--eager", "-tp", "2", "--other", "x")


@pytest.mark.parametrize(
    ("args", "found", "advice"),
    [
        (["--max_len", "5"], "`limits/max_total_tokens` sets already", "Keep one"),
        (["--max-le=5"], "`limits/max_total_tokens` sets already", "Keep one"),
        (["--port", "5"], "has --port", "Write `port`"),
        (["--api-key", "x"], "a secret", "HARNESS_API_KEY"),
        (["--max-seqs", "5"], "Engine 1.2.3 has no option --max-seqs: 2.0.0 has it", "another engine version"),
    ],
)
def test_arguments_that_are_refused(args: list[str], found: str, advice: str) -> None:
    """What a key or the harness sets, a secret, and a flag of another release are each refused with what to do."""
    with pytest.raises(UsageError, match=found) as error:
        require_own(args, FLAGS, (1, 2, 3), TAKEN, "tiny")
    assert advice in (error.value.advice or "")


def test_flag_that_ended_names_what_is_there_instead() -> None:
    """A flag of older releases is refused with its end and what took its place."""
    with pytest.raises(UsageError, match=r"1\.9\.0 was the last that has it") as error:
        require_own(["--swap", "4"], FLAGS, (2, 0, 0), ReservedFlags(), "tiny")
    assert error.value.advice == "Leave it out: there is no swap any more."


@pytest.mark.parametrize(
    ("flag", "version", "known"),
    [
        ("--max-seqs", (2, 1, 0), True),
        ("--max-seqs", (1, 9, 0), False),
        ("--max-seqs", (1, 9, 5), True),  # between a release without and one with it: nobody can say
        ("--swap", (1, 9, 5), True),
        ("--swap", (2, 0, 0), False),
        ("--swap", (0, 5, 0), True),
    ],
)
def test_what_was_not_read_is_not_refused(flag: str, version: tuple[int, int, int], known: bool) -> None:
    """A flag is refused only by releases that were seen without it, or lie on that side of them."""
    assert FLAGS.known_in(flag, version) is known


def test_table_is_read_from_its_file() -> None:
    """Spellings, first and last release, and comments."""
    flags = read_flags("# a comment\nreleases 1.0.0 2.0.0\n--a,-b\n--c 2.0.0\n--d - 1.0.0\n", "Engine", {})
    assert flags.known == {"--a": Flag(("-b",)), "--c": Flag(since=(2, 0, 0)), "--d": Flag(until=(1, 0, 0))}
    assert flags.releases == ((1, 0, 0), (2, 0, 0))


def test_other_arguments_stay_as_they_stand() -> None:
    """Nothing is reordered, respelled or dropped, and the engine judges what nobody here knows."""
    args = ("--nobody-knows", "--eager", "-tp=2", "{}")
    assert require_own(args, FLAGS, (2, 0, 0), TAKEN, "tiny") == args


def test_limits_become_flags() -> None:
    """Each limit that is set stands under the engine's name; shares keep their digits."""
    names = {"max_total_tokens": "--max-len", "cuda_memory_fraction": "--share"}
    limits = Limits(max_total_tokens=8192, cuda_memory_fraction=0.9)
    assert limit_flags(limits, names, {}, "Engine") == {"--max-len": "8192", "--share": "0.9"}


def test_limit_that_is_lacking_is_refused_with_the_nearest() -> None:
    """A limit that the engine does not have is never dropped in silence."""
    with pytest.raises(UsageError, match="Engine has no limit such as max_input_tokens") as error:
        limit_flags(Limits(max_input_tokens=5), {}, {"max_input_tokens": "Take max_total_tokens."}, "Engine", "tiny")
    assert error.value.advice == "Take max_total_tokens."


@pytest.mark.parametrize(
    ("text", "version"), [("0.5.3", (0, 5, 3)), ("v1.2.0-cu126", (1, 2, 0)), ("latest", (9, 0, 0))]
)
def test_release_is_read(text: str, version: tuple[int, int, int]) -> None:
    """Image tags and `latest` are releases."""
    assert release(text, (9, 0, 0), "Engine") == version


def test_text_that_is_no_release_is_refused() -> None:
    """The message says what was expected."""
    with pytest.raises(UsageError, match="no version of Engine: 'nightly'"):
        release("nightly", (9, 0, 0), "Engine")
