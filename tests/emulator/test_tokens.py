"""Words are tokens, and answers are words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from harness.emulator.tokens import Speech, Tokenizer, alternatives, logprob
from harness.emulator.vocabulary import ModelTokenizer, read_tokenizer

WORDS = st.lists(st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=24), min_size=1, max_size=50)


@given(WORDS)
def test_n_plain_words_are_n_tokens_and_one_more(words: list[str]) -> None:
    """A prompt of n words has n tokens after `<s>`."""
    assert len(Tokenizer().encode(" ".join(words))) == len(words) + 1


@given(st.text())
def test_no_text_is_lost(text: str) -> None:
    """The pieces of any text, joined, are the text; so are its offsets, read from its bytes."""
    tokenizer = Tokenizer()
    assert "".join(tokenizer.encode(text, special_tokens=False).pieces) == text
    data = text.encode("utf-8", "surrogatepass")
    tokens = tokenizer.offsets(text, special_tokens=False)
    assert b"".join(data[token.start : token.stop] for token in tokens) == data


@given(st.text("abc XYZ.,!\n", max_size=60))
def test_decoding_gives_back_what_was_encoded(text: str) -> None:
    """Identities are enough to get the text back, unless two of its pieces share one: a vocabulary is finite."""
    tokenizer = Tokenizer()
    encoded = tokenizer.encode(text)
    assume(len(set(encoded.ids)) == len(set(encoded.pieces)))
    assert tokenizer.decode(encoded.ids, skip_special=True) == text


def test_identities_are_those_of_every_process() -> None:
    """The same word has the same identity in every tokenizer, known to the table or not."""
    text = "the river is zyxwv and 4711"
    assert Tokenizer().encode(text).ids == Tokenizer().encode(text).ids
    ids = Tokenizer(vocabulary=32000).encode(text).ids
    assert all(0 <= number < 32000 for number in ids)


def test_special_tokens_are_one_token_each() -> None:
    """`<s>` and `</s>` in a text are the special tokens, as they are in a rendered chat."""
    assert Tokenizer().encode("<s>hi</s>", special_tokens=False).pieces == ["<s>", "hi", "</s>"]


def test_what_is_said_again_has_the_tokens_that_were_counted() -> None:
    """An answer appended to its prompt is tokenised into the same tokens: multi-turn counts add up."""
    tokenizer = Tokenizer()
    speech = Speech(tokenizer)
    said = [speech.at(700 + index) for index in range(200)]
    prompt = tokenizer.encode("tell me more")
    grown = tokenizer.encode("tell me more" + "".join(token.text for token in said))
    assert grown.ids == prompt.ids + [token.id for token in said]


def test_where_an_answer_begins_depends_on_prompt_and_seed() -> None:
    """The same prompt and seed give the same answer; another seed another one."""
    speech = Speech(Tokenizer())
    assert speech.start([1, 2, 3], 7) == speech.start([1, 2, 3], 7)
    assert len({speech.start([1, 2, 3], seed) for seed in range(20)}) > 15


def test_alternatives_begin_with_what_was_taken_and_fall() -> None:
    """Top tokens: the taken one first, log probabilities falling, as many as asked."""
    speech = Speech(Tokenizer())
    top = alternatives(speech.at(5), 5, 4, speech)
    assert top[0] == speech.at(5)
    assert [token.logprob for token in top] == sorted((token.logprob for token in top), reverse=True)
    assert len(top) == 4


def test_ready_json_says_what_the_token_is() -> None:
    """The JSON that is sent for a token is that of its fields."""
    token = Speech(Tokenizer()).at(9)
    assert json.loads(token.json) == {
        "id": token.id, "text": token.text, "logprob": logprob(token.id, 9), "special": False,
    }  # fmt: skip


LETTERS = {chr(code): code - 33 for code in range(33, 127)} | {"\u0120": 94, "\u010a": 95, "\u00c3": 96, "\u00a9": 97}
BYTE_LEVEL = {
    "model": {
        "type": "BPE",
        "vocab": {**LETTERS, "th": 100, "the": 101, "\u0120the": 102, "\u0120t": 103, "he": 104},
        "merges": ["t h", "h e", "th e", "\u0120 the"],
    },
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
    "added_tokens": [{"id": 200, "content": "<s>", "special": True}, {"id": 201, "content": "</s>", "special": True}],
    "post_processor": {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    },
}


def test_byte_level_merges_are_made_in_their_order() -> None:
    """`the the` is two tokens by the merges t+h, th+e, space+the; others fall back to their letters."""
    tokenizer = ModelTokenizer(BYTE_LEVEL, "<s>", "</s>")
    encoding = tokenizer.encode("the the tea")
    assert encoding.ids == [200, 101, 102, 94, LETTERS["t"], LETTERS["e"], LETTERS["a"]]
    assert encoding.pieces[1:3] == ["the", " the"]
    assert tokenizer.decode(encoding.ids, skip_special=True) == "the the tea"
    assert (tokenizer.bos_id, tokenizer.eos_id) == (200, 201)


def test_a_character_in_parts_has_the_whole_characters_place() -> None:
    """Both bytes of `é` are shown at the whole character, as the tokenizers library does."""
    tokens = ModelTokenizer(BYTE_LEVEL, "<s>", "</s>").offsets("\u00e9", special_tokens=False)
    assert [(token.start, token.stop) for token in tokens] == [(0, 2), (0, 2)]


@given(st.text("the ", max_size=30))
def test_byte_level_loses_no_text(text: str) -> None:
    """Decoding gives back what was encoded."""
    tokenizer = ModelTokenizer(BYTE_LEVEL, "<s>", "</s>")
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special=True) == text


@pytest.mark.parametrize("content", [None, "{", '{"model": {"type": "Unigram", "vocab": []}}'])
def test_a_tokenizer_that_cannot_be_read_is_none(tmp_path: Path, content: str | None) -> None:
    """Words stand in for a tokenizer.json that is missing, broken, or of a kind that is not read."""
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    assert read_tokenizer(tmp_path, None, None) is None
