"""A language model of random weights in a GGUF file: small enough to start in a second and to answer fast on one core.

The text is predictable by construction. Output row n(t) is the embedding of token t, where n walks one closed ring
through all words; with attention and feed-forward layers that add only a little, the model therefore says the words of
the ring one after the other, whatever the prompt, and the ring holds the end-of-turn token once. Tokens that a reader
would not see (bytes, marks of the chat template, pieces of words) have output rows of zero and are never the likeliest.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, TokenType

from harness.probe.prompts import WORDS
from harness.workload.vocabulary import CANDIDATES

NAME = "harness-test-model"
CONTEXT = 8192
"""Training context in tokens."""
LAYERS, WIDTH, HEADS, KV_HEADS, FEED_FORWARD = 2, 128, 4, 2, 256
KV_BYTES_PER_TOKEN = LAYERS * 2 * KV_HEADS * (WIDTH // HEADS) * 2
"""Keys and values of all layers as f16: how much a token of context costs."""
BEGIN, END, TURN, TURN_END = "<|begin|>", "<|end|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_SEED = 20
_FAINT = 0.02


@dataclass(frozen=True)
class Tokenizer:
    """Byte-level BPE: tokens in the letters of GPT-2, merges in their order, and the ids that make up the ring."""

    tokens: tuple[str, ...]
    merges: tuple[str, ...]
    ring: tuple[int, ...]


def tokenizer() -> Tokenizer:
    """Each everyday word is one token, alone and behind a blank; other text falls apart into beginnings and bytes."""
    letters = _letters_of_bytes()
    words = sorted({*CANDIDATES, *WORDS})
    behind_blank = [letters[ord(" ")] + word for word in words]
    # Merges that build a word up from its left, letter by letter, so that every beginning of a word is a token too.
    beginnings = dict.fromkeys(spelling[:end] for spelling in behind_blank for end in range(2, len(spelling) + 1))
    merges = tuple(f"{piece[:-1]} {piece[-1]}" for piece in beginnings)
    alone = [word for word in words if len(word) > 1]
    tokens = (*letters, *beginnings, *alone, BEGIN, END, TURN, TURN_END)
    said = np.random.default_rng(_SEED).permutation([tokens.index(spelling) for spelling in behind_blank])
    return Tokenizer(tokens, merges, (*said.tolist(), tokens.index(TURN_END)))


def _letters_of_bytes() -> list[str]:
    """GPT-2's letter for each byte: printable ones stand for themselves, the others for code points from 256 on."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def write(path: Path) -> Path:
    """The same bytes each time; about two MB."""
    vocabulary = tokenizer()
    writer = GGUFWriter(path, "llama")
    _describe(writer, vocabulary)
    for name, values in _weights(vocabulary).items():
        # Norms are f32 in every GGUF: llama.cpp multiplies by them without a conversion.
        kind = GGMLQuantizationType.F32 if values.ndim == 1 else GGMLQuantizationType.F16
        writer.add_tensor(name, values.astype(np.float32 if values.ndim == 1 else np.float16), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _describe(writer: GGUFWriter, vocabulary: Tokenizer) -> None:
    writer.add_name(NAME)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(vocabulary.tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")  # Llama 3's: a word that is in the list needs no merges
    writer.add_token_list(list(vocabulary.tokens))
    marks = (BEGIN, END, TURN, TURN_END)
    writer.add_token_types([TokenType.CONTROL if token in marks else TokenType.NORMAL for token in vocabulary.tokens])
    writer.add_token_merges(list(vocabulary.merges))
    writer.add_bos_token_id(vocabulary.tokens.index(BEGIN))
    writer.add_eos_token_id(vocabulary.tokens.index(TURN_END))
    writer.add_add_bos_token(True)
    writer.add_chat_template(CHAT_TEMPLATE)


def _weights(vocabulary: Tokenizer) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(_SEED)
    embedding = draw.standard_normal((len(vocabulary.tokens), WIDTH))
    output = np.zeros_like(embedding)
    ring = np.array(vocabulary.ring)
    output[np.roll(ring, -1)] = embedding[ring]
    # A token outside the ring, such as a prompt's last, leads to a word by chance.
    weights = {"token_embd.weight": embedding, "output.weight": output, "output_norm.weight": np.ones(WIDTH)}
    shapes = {
        "attn_q": (WIDTH, WIDTH),
        "attn_k": (KV_HEADS * WIDTH // HEADS, WIDTH),
        "attn_v": (KV_HEADS * WIDTH // HEADS, WIDTH),
        "attn_output": (WIDTH, WIDTH),
        "ffn_gate": (FEED_FORWARD, WIDTH),
        "ffn_up": (FEED_FORWARD, WIDTH),
        "ffn_down": (WIDTH, FEED_FORWARD),
    }
    for layer in range(LAYERS):
        for name in ("attn_norm", "ffn_norm"):
            weights[f"blk.{layer}.{name}.weight"] = np.ones(WIDTH)
        for name, shape in shapes.items():
            weights[f"blk.{layer}.{name}.weight"] = _FAINT * draw.standard_normal(shape)
    return weights
