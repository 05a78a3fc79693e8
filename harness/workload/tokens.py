"""Parses numbers of tokens as people write them: `4096`, `4k`.

k is 1,024 and m is 1,024 * 1,024, in either case. Tokens are counted in powers of two wherever the field names a size:
a 4k, 8k or 128k model has a context of 4,096, 8,192 or 131,072 tokens, and benchmarks that are named by their lengths
(1k/1k, 8k/1k) ask for 1,024 and 8,192. vLLM's `--max-model-len` takes k for 1,000 and K for 1,024; we know one k.
"""

from __future__ import annotations

import re
from fractions import Fraction

MOST_TOKENS = 10_000_000
"""More than any model reads; a larger number is a mistake, and a prompt of that size would fill the client's memory."""

_NUMBER = re.compile(r"(\d{1,20}(?:\.\d{0,20})?|\.\d{1,20})(?:[eE]([+-]?\d{1,2}))?\s*([kKmM])?", re.ASCII)
_FACTORS = {"": 1, "k": 1024, "m": 1024 * 1024}


def parse_number(text: str) -> Fraction:
    """`200`, `1.5`, `1e3`, `4k`, exactly. Raises ValueError."""
    match = _NUMBER.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"expected a number such as 200 or 4k, found {text!r}")
    digits, exponent, factor = match.groups()
    return Fraction(digits) * Fraction(10) ** int(exponent or 0) * _FACTORS[(factor or "").lower()]


def parse_tokens(text: str) -> int:
    """A whole number of tokens, from 1 to MOST_TOKENS. Raises ValueError."""
    return whole_tokens(parse_number(text))


def whole_tokens(number: Fraction) -> int:
    if number.denominator != 1 or not 1 <= number <= MOST_TOKENS:
        raise ValueError(f"expected a whole number of tokens from 1 to {MOST_TOKENS:,}, found {float(number):g}")
    return int(number)
