"""The files beside a model's weights that decide how it is asked: tokenizer, chat template, sampling defaults."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

TOKENIZER, GENERATION = "tokenizer_config.json", "generation_config.json"

_TOKENIZERS = ("tokenizer.json", "tekken.json", "tokenizer.model", "tiktoken.model", "vocab.json", "spiece.model")
_TEMPLATES = ("chat_template.jinja", "chat_template.json")
_SAMPLING = (
    "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "max_new_tokens",
)  # fmt: skip
_UNLIMITED = 10**9
"""Transformers writes 1e30 for a tokenizer without a bound of its own."""


@dataclass(frozen=True)
class TextFiles:
    """tokenizer: the file that holds it, None where there is none. chat_template: whether there is one, None where the
    files do not tell. longest: tokens that the tokenizer takes, None without a bound. sampling: what
    generation_config.json sets, by its names.
    """

    tokenizer: str | None = None
    chat_template: bool | None = None
    longest: int | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {
            "tokenizer": self.tokenizer,
            "chat_template": self.chat_template,
            "longest": self.longest,
            "sampling": dict(self.sampling),
        }

    def notes(self, context: int | None) -> tuple[str, ...]:
        """What whoever serves or measures it should know. context: of the model, in tokens."""
        said = []
        if self.tokenizer is None:
            said.append("It holds no tokenizer: engines do not start without one.")
        if self.tokenizer is not None and self.chat_template is False:
            said.append("It has no chat template: chat routes refuse it; ask it with --api tgi or openai-completions.")
        if self.longest is not None and context is not None and self.longest < context:
            said.append(f"Its tokenizer says {self.longest:,} tokens at most, its config.json {context:,}.")
        if self.sampling:
            told = ", ".join(f"{name} {value}" for name, value in self.sampling.items())
            said.append(
                f"Its generation_config.json sets {told}: vLLM and SGLang use that where a request says nothing, TGI"
                " does not."
            )
        return tuple(said)


def read_text_files(
    names: Collection[str], tokenizer: Mapping[str, Any] | None, generation: Mapping[str, Any] | None
) -> TextFiles:
    """names: of all files. tokenizer, generation: the two JSON files, None where they are not there."""
    holder = next((name for name in _TOKENIZERS if name in names), None)
    # Mistral's tekken.json holds the template in code of mistral-common, which the engines bring along.
    template: bool | None = True if "tekken.json" in names or any(name in names for name in _TEMPLATES) else None
    if template is None and tokenizer is not None:
        template = bool(tokenizer.get("chat_template"))
    longest = None if tokenizer is None else tokenizer.get("model_max_length")
    bounded = isinstance(longest, int) and not isinstance(longest, bool) and 0 < longest < _UNLIMITED
    chosen = {} if generation is None else {key: generation[key] for key in _SAMPLING if _plain(generation.get(key))}
    return TextFiles(holder, template, longest if bounded else None, chosen)


def _plain(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


NOTHING_READ = TextFiles()
