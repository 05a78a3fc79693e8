"""What is said of prompts whose length in tokens is not sure."""

from __future__ import annotations

import pytest

from harness.drive.probe_prompts import Counter, Lengths, requests_of
from harness.probe import loads
from harness.probe.prompts import Ruler


def test_prompts_that_were_counted_before_they_were_sent_need_no_excuse() -> None:
    """The ruler does not fit, but each prompt was counted and corrected."""
    lengths, counter = Lengths(), Counter(lambda text: len(text.split()), by_route=True)
    (wave,) = requests_of(loads.rows(5), Ruler(), salt="1", counter=counter, lengths=lengths)
    assert [len(each.prompt.split()) for each in wave] == [each.input_tokens for each in wave]
    assert (lengths.corrected, lengths.missed) == (5, 0)
    assert lengths.sentence(Ruler()) is None


def test_a_length_that_cannot_be_had_is_said() -> None:
    """No prompt has an odd number of tokens where each word has two."""
    lengths, counter = Lengths(), Counter(lambda text: 2 * len(text.split()), by_route=True)
    requests_of(loads.rows(4), Ruler(0.0, 2.0), salt="1", counter=counter, lengths=lengths)
    assert lengths.sentence(Ruler(0.0, 2.0)) == "2 of 4 prompts could not be made as long as was meant."


@pytest.mark.parametrize("exact", [True, False])
def test_what_nobody_counted_is_assumed_and_said(exact: bool) -> None:
    """A word is then taken for a token."""
    said = Lengths().sentence(Ruler(exact=exact))
    assert said is None if exact else said is not None and "each word was taken for 1 tokens" in said
