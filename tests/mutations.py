"""Damage that files come to: bytes that flip or are lost, values that no program of ours would have written."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

# What readers of other tools fell over.
HOSTILE: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**63,
    2**64,
    -(2**70),
    10**30,
    0.0,
    -0.5,
    1e-320,
    1e308,
    float("inf"),
    float("-inf"),
    float("nan"),
    "",
    " ",
    "\0",
    "x",
    "0",
    "-1",
    "1e999",
    "nan",
    "\ud800",
    "\x1b[2J",
    "a\nb",
    "🦀" * 50,
    "x" * 5000,
    [],
    {},
    [None],
    [[]],
    {"": None},
    [[[[[1]]]]],
    {"a": {"b": {"c": 1}}},
    "9" * 400,
    "ramp:0:0",
    "steps:",
    "ramp:nan:1",
    "poisson",
)

HOSTILE_YAML = (
    "",
    "~",
    "[]",
    "{}",
    "- a",
    "!!binary x",
    "!!timestamp 2020-99-99",
    "2020-13-45",
    "9" * 5000,
    "0x" + "f" * 4000,
    "0o777",
    "-1",
    "0",
    ".inf",
    "-.inf",
    ".nan",
    "1e400",
    "1e-400",
    "1_000",
    "'",
    '"',
    '"\\U00110000"',
    '"\\ud800"',
    '"\\0"',
    "&a [*a]",
    "*a",
    "<<",
    "? x",
    "|",
    ">",
    "%YAML 9.9",
    "---",
    "...",
    "\t",
    "[" * 400,
    "{" * 400,
    "{a: " * 200,
    "\x00",
    "\u2028",
    "\ufeff",
    "no",
    "0123",
    "1:30",
    "${HOME}",
    "{{ x }}",
    "x" * 3000,
    "!!python/object:os.system x",
    "!<tag:yaml.org,2002:int> x",
    "!!int x",
    "!!float x",
    "!!bool x",
    "99999999999999999999",
    "4294967296",
    "2147483648",
    "999999999",
    "0.0000001",
    "'a",
    "a: b: c",
    "[a, b",
    "\x85",
    "\x1b[2J",
    "-9999999999999",
    "1e18",
    "on",
    "🦀",
)


def damaged_bytes(content: bytes, random_: random.Random) -> bytes:
    """Cut, flipped, doubled, zeroed, or with noise in the middle."""
    if not content:
        return random_.randbytes(20)
    at = random_.randrange(len(content))
    length = random_.choice((1, 1, 4, 100))
    kind = random_.randrange(6)
    if kind == 0:
        return content[:at]
    if kind == 1:
        return content[:at] + bytes([content[at] ^ 1 << random_.randrange(8)]) + content[at + 1 :]
    if kind == 2:
        return content[:at] + random_.randbytes(length) + content[at + length :]
    if kind == 3:
        return content[:at] + content[at + length :]
    if kind == 4:
        return content[:at] + b"\0" * length + content[at + length :]
    return content[:at] + content[at : at + length] * 3 + content[at + length :]


def damaged_document(document: Any, random_: random.Random) -> Any:
    """The same with one place of it changed: another value, gone, or doubled."""
    changed = copy.deepcopy(document)
    places: list[tuple[Any, Any]] = []
    waiting = [changed]
    while waiting:
        node = waiting.pop()
        children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, child in children:
            places.append((node, key))
            waiting.append(child)
    if not places or random_.random() < 0.02:
        return random_.choice(HOSTILE)
    node, key = random_.choice(places)
    kind = random_.randrange(8)
    if kind == 0:
        del node[key]
    elif kind == 1 and isinstance(node, list):
        node.append(copy.deepcopy(node[key]))
    elif kind == 2 and isinstance(node[key], (int, float)) and not isinstance(node[key], bool):
        node[key] = random_.choice((-node[key], node[key] * 1e9, node[key] * 1e-9, str(node[key]), node[key] + 0.5))
    else:
        node[key] = random_.choice(HOSTILE)
    return changed


def damaged_json(content: bytes, random_: random.Random) -> bytes:
    """Half of the time in a value, so that it is still JSON, else in its bytes."""
    kind = random_.randrange(10)
    if kind == 0:
        return b"[" * 100_000
    if kind == 1:
        return content.replace(b"0", b"9" * 5000, 1)
    if kind < 4:
        return damaged_bytes(content, random_)
    return json.dumps(damaged_document(json.loads(content), random_)).encode()


def damaged_yaml(text: str, random_: random.Random) -> str:
    """One to three lines changed: another value, another key, another depth, gone, doubled, swapped, or noise."""
    lines = text.split("\n")
    for _ in range(random_.choice((1, 1, 1, 2, 3))):
        at = random_.randrange(len(lines))
        line = lines[at]
        key, colon, _ = line.partition(":")
        kind = random_.randrange(9)
        if kind <= 3 and colon:
            lines[at] = f"{key}: {random_.choice(HOSTILE_YAML)}"
        elif kind == 4:
            lines[at] = random_.choice((" ", "  ", "\t", "- ")) + line
        elif kind == 5:
            del lines[at]
            lines = lines or [""]
        elif kind == 6:
            lines.insert(at, random_.choice(lines))
        elif kind == 7:
            place = random_.randrange(len(line) + 1)
            lines[at] = line[:place] + random_.choice((*HOSTILE_YAML, *"{}[]&*!|>'\"%@`,?:-#")) + line[place:]
        else:
            lines[at] = f"{random_.choice(HOSTILE_YAML)}: {line.strip()}"
    return "\n".join(lines)
