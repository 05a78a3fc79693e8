"""KEYS: what each key of models.yaml may hold, and how it is read.

A layer (the defaults, or one entry) becomes nested Settings, which know where they were written, so that a
contradiction between two of them can be reported at its line. Every mistake is noted; nothing here stops at the first.
"""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.catalog.accepts import Accepts
from harness.catalog.document import Mistake, Value
from harness.catalog.gpus import find_gpu
from harness.catalog.shapes import ModelShape
from harness.catalog.slo import parse_bound
from harness.errors import UsageError
from harness.redaction import is_secret, remember_secret
from harness.units import parse_duration

DEFAULT_ENGINE = "tgi"  # of an entry that names none

NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?")
NAME_EXPECTED = (
    "expected lower-case letters, digits, '.', '_' and '-', at most 63 and starting and ending with a letter or digit, "
    "because the name becomes a Compose service, a host name and part of a folder's name"
)
_HUB_ID = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?")
_LOCAL = re.compile(r"(?:/|~|\.\.?/).*", re.DOTALL)
_IMAGE_TAG = re.compile(r"\w[\w.-]{0,127}")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HUB_TOKEN = re.compile(r"(?i)HF_TOKEN|HF_API_TOKEN|HUGGING_?FACE_HUB_TOKEN")


@dataclass(frozen=True)
class Setting:
    """One value with the place where it was written. value None: the key was given with nothing, which unsets it."""

    value: Any
    key: str
    line: int


Layer = dict[str, Any]  # Setting, or a Layer for engine, limits, slo, env and shape


_MOST = 2**31 - 1  # of what an engine counts
_MOST_DIGITS = 19  # int() takes time that grows with the square of the digits, and refuses some thousands


class _Wrong(Exception):
    """What was expected, as the message says it; the place is added by the reader."""


Parser = Callable[[Value], Any]


def read_layer(value: Value, key: str, mistakes: list[Mistake]) -> Layer:
    """The settings of one layer; what is wrong is added to `mistakes` and left out."""
    return _read_mapping(value, key, KEYS, mistakes)


def merge(below: Layer, above: Layer) -> Layer:
    """`above` over `below`, mappings merged key by key; of keys that exclude each other, only the upper one stays.

    The version, image and command of one engine say nothing of another: an entry with another engine gets none of them.
    """
    merged = dict(below)
    if engine_name(above, engine_name(below)) != engine_name(below):
        merged.pop("engine", None)
    for rivals in _RIVALS:
        if any(key in above for key in rivals):
            merged = {key: setting for key, setting in merged.items() if key not in rivals}
    for key, setting in above.items():
        under = merged.get(key)
        merged[key] = merge(under, setting) if isinstance(under, dict) and isinstance(setting, dict) else setting
    return merged


def plain(layer: Layer) -> dict[str, Any]:
    """The values alone, without those that were unset."""
    values = {key: plain(each) if isinstance(each, dict) else each.value for key, each in layer.items()}
    return {key: value for key, value in values.items() if value is not None}


def engine_name(layer: Layer, default: str = DEFAULT_ENGINE) -> str:
    """The engine that a layer names, else the default."""
    setting = layer.get("engine", {}).get("name")
    return default if setting is None or setting.value is None else str(setting.value)


def unknown_words(layer: Layer, accepts: Accepts) -> list[Mistake]:
    """Values that the entry's engine does not know, of keys whose words are the engine's own."""
    engine = layer.get("engine", {})
    asked = (
        (layer.get("dtype"), accepts.dtypes),
        (layer.get("quantize"), accepts.quantize),
        (layer.get("kv_cache_dtype"), tuple(sorted((*accepts.kv_cache_dtypes, *accepts.kv_cache_aliases)))),
        (engine.get("variant"), accepts.variants),
    )
    return [
        Mistake(setting.line, setting.key, expected_one_of(choices, setting.value))
        for setting, choices in asked
        if setting is not None and setting.value is not None and setting.value not in choices
    ]


def contradictions(layer: Layer, accepts: Accepts | None) -> list[Mistake]:
    """What cannot hold at once in one entry, defaults applied. accepts: None where that is not known of its engine."""
    found = [_dtype_and_quantize(layer)] if accepts is None or accepts.dtype_or_quantize else []
    limits = layer.get("limits", {})
    order = accepts.limit_order if accepts else ()
    found += [_order(limits, lower, upper, strict) for lower, upper, strict in order]
    found.append(_bounded(limits.get("max_total_tokens"), layer.get("context_length"), strict=False))
    answer = layer.get("answer_tokens")
    if answer is not None and not answer.key.startswith("defaults/"):  # a default is not a claim about this model
        found.append(_bounded(answer, limits.get("max_total_tokens"), strict=True))
    for name, setting in layer.get("env", {}).items():
        found.append(_set_twice(name, setting, layer, accepts.twins if accepts else {}))
    return [mistake for mistake in found if mistake is not None]


# TGI refuses both, except with bitsandbytes (server/text_generation_server/cli.py:110-118).
_RIVALS = (("dtype", "quantize"),)


def _order(limits: Layer, lower: str, upper: str, strict: bool) -> Mistake | None:
    return _bounded(limits.get(lower), limits.get(upper), strict=strict)


def _bounded(lower: Setting | None, upper: Setting | None, *, strict: bool) -> Mistake | None:
    if lower is None or upper is None or lower.value is None or upper.value is None:
        return None
    if lower.value < upper.value or (not strict and lower.value == upper.value):
        return None
    bound = "less than" if strict else "at most"
    return Mistake(lower.line, lower.key, f"expected {bound} {_last(upper.key)} ({upper.value}), found {lower.value}")


def _dtype_and_quantize(layer: Layer) -> Mistake | None:
    dtype, quantize = layer.get("dtype"), layer.get("quantize")
    if dtype is None or quantize is None or dtype.value is None or quantize.value is None:
        return None
    if str(quantize.value).startswith("bitsandbytes"):
        return None
    return Mistake(
        quantize.line, quantize.key, f"expected either dtype or quantize, found both (dtype in line {dtype.line})"
    )


def _set_twice(name: str, setting: Setting, layer: Layer, twins: Mapping[str, tuple[str, ...]]) -> Mistake | None:
    """A variable that another key of the entry sets too: which of them holds would be a matter of luck."""
    twin = twins.get(name)
    if twin is None or setting.value is None:
        return None
    other: Any = layer
    for key in twin:
        other = other.get(key) if isinstance(other, dict) else None
    if not isinstance(other, Setting) or other.value is None:
        return None
    return Mistake(setting.line, setting.key, f"expected once, found also as {'/'.join(twin)} in line {other.line}")


def _last(key: str) -> str:
    return key.rpartition("/")[2]


def _read_mapping(value: Value, key: str, keys: Mapping[str, Any], mistakes: list[Mistake]) -> Layer:
    if value.kind == "null":
        return {}
    if value.kind != "mapping":
        mistakes.append(Mistake(value.line, key, f"expected a mapping of {_some(keys)}, found {value.found}"))
        return {}
    layer: Layer = {}
    for name, entry in value.entries.items():
        path = f"{key}/{name}"
        expected = keys.get(name)
        if expected is None:
            mistakes.append(Mistake(entry.line, path, f"unknown key{_offer(name, keys)}"))
        elif isinstance(expected, Mapping):
            layer[name] = _read_mapping(entry, path, expected, mistakes)
        elif expected in _SECTIONS:
            layer[name] = _SECTIONS[expected](entry, path, mistakes)
        else:
            _read_setting(layer, name, entry, path, expected, mistakes)
    return layer


def _read_setting(layer: Layer, name: str, entry: Value, path: str, parser: Parser, mistakes: list[Mistake]) -> None:
    target = _RENAMED.get(name, name)
    if target in layer:
        first = layer[target]
        text = f"expected one of {_last(first.key)} and {name}, found both: two names of one limit (line {first.line})"
        mistakes.append(Mistake(entry.line, path, text))
        return
    try:
        parsed = None if entry.kind == "null" else parser(entry)
    except _Wrong as wrong:
        mistakes.append(Mistake(entry.line, path, str(wrong)))
    else:
        layer[target] = Setting(parsed, path, entry.line)


def _some(keys: Mapping[str, Any]) -> str:
    return ", ".join(list(keys)[:3]) + (", ..." if len(keys) > 3 else "")


def _offer(name: str, keys: Mapping[str, Any]) -> str:
    """` (did you mean ...?)`, from these keys and from where the key would be right; else the keys there are."""
    near = difflib.get_close_matches(name.lower().replace("-", "_"), keys, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]}?"
    deeper = _OFTEN.get(name) or next((path for path in _all_paths() if _last(path) == name), None)
    if deeper:
        return f"; did you mean {deeper}?"
    return f"; known: {', '.join(keys)}"


_OFTEN = {
    "model": "repo",
    "model_id": "repo",
    "num_shard": "gpus",
    "tensor_parallel": "gpus",
    "tp": "gpus",
    "price": "price_per_gpu_hour",
}


def _all_paths() -> list[str]:
    return [
        f"{key}/{inner}" if inner else key
        for key, expected in KEYS.items()
        for inner in ("", *(expected if isinstance(expected, Mapping) else ()))
    ]


def _whole(noun: str, least: int = 1, most: int = _MOST) -> Parser:
    bounds = f"from {least} to {most}" if most < _MOST else f"of at least {least}"

    def parse(value: Value) -> int:
        digits = value.text.replace("_", "")
        if value.kind != "int" or value.quoted or not re.fullmatch(r"[+-]?\d+", digits):
            raise _Wrong(f"expected a whole number of {noun}, found {_as_written(value)}")
        if len(digits) > _MOST_DIGITS or not least <= int(digits) <= most:
            above = len(digits) > _MOST_DIGITS or int(digits) > most
            asked = f"of at most {most}" if above and most == _MOST else bounds
            raise _Wrong(f"expected a whole number of {noun} {asked}, found {value.found}")
        return int(digits)

    return parse


def _money(value: Value) -> float:
    wrong = _Wrong(f"expected US dollars per GPU-hour such as 0.80, found {_as_written(value)}")
    if value.kind not in ("int", "float") or value.quoted:
        raise wrong
    try:
        amount = float(value.text.replace("_", ""))
    except ValueError:
        raise wrong from None
    if not 0 <= amount < math.inf:
        raise wrong
    return amount


def _fraction(value: Value) -> float:
    wrong = _Wrong(f"expected a share of the GPU's memory such as 0.95, found {_as_written(value)}")
    if value.kind not in ("int", "float") or value.quoted:
        raise wrong
    try:
        share = float(value.text.replace("_", ""))
    except ValueError:
        raise wrong from None
    if not 0 < share <= 1:
        raise wrong
    return share


def _duration(example: str) -> Parser:
    def parse(value: Value) -> float:
        try:
            if value.kind not in ("int", "float", "text"):
                raise ValueError
            seconds = parse_duration(float(value.text) if value.kind != "text" else value.text)
        except ValueError:
            raise _Wrong(f"expected a duration such as {example}, found {value.found}") from None
        if seconds <= 0:
            raise _Wrong(f"expected a duration above zero such as {example}, found {value.found}")
        return seconds

    return parse


def _truth(value: Value) -> bool:
    if value.kind != "bool":
        raise _Wrong(f"expected true or false, found {_as_written(value)}")
    return value.text.lower() == "true"


def _text(example: str) -> Parser:
    def parse(value: Value) -> str:
        if value.kind in ("list", "mapping") or not value.text.strip():
            raise _Wrong(f"expected {example}, found {value.found}")
        return _handed_on(value)

    return parse


def _handed_on(value: Value) -> str:
    """A text that a process will be given: no kernel takes a zero byte, and half a surrogate is not a character."""
    if "\0" in value.text or any("\ud800" <= each <= "\udfff" for each in value.text):
        raise _Wrong(f"expected text without zero bytes and lone surrogates, found {value.found}")
    return value.text


def _matching(pattern: re.Pattern[str], example: str) -> Parser:
    text = _text(example)

    def parse(value: Value) -> str:
        content: str = text(value)
        if not pattern.fullmatch(content):
            raise _Wrong(f"expected {example}, found {value.found}")
        return content

    return parse


def _address(value: Value) -> str:
    try:
        return str(ipaddress.IPv4Address(value.text))
    except ValueError:
        raise _Wrong(f"expected an IPv4 address of this host such as 127.0.0.1, found {value.found}") from None


def expected_one_of(choices: tuple[str, ...], value: str) -> str:
    """What was expected and found, with the nearest choice."""
    if not choices:
        return f"expected nothing, because this engine has no such setting, found '{value}'"
    near = difflib.get_close_matches(value.lower(), choices, n=1, cutoff=0.6)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"expected one of {', '.join(choices)}, found '{value}'{hint}"


def _repo(value: Value) -> str:
    text: str = _text(_REPO_EXPECTED)(value)
    if not (_HUB_ID.fullmatch(text) or _LOCAL.fullmatch(text)):
        raise _Wrong(f"expected {_REPO_EXPECTED}, found {value.found}")
    return text


_REPO_EXPECTED = "a Hub id such as Qwen/Qwen2.5-7B-Instruct, or a directory that starts with /, ./ or ~"


def _gpu(value: Value) -> str:
    text: str = _text("a GPU's name such as L4 or H100")(value)
    try:
        return find_gpu(text).name
    except UsageError as error:
        raise _Wrong(f"expected a GPU of the data sheets, found {value.found}. {error.advice}") from None


def _command(value: Value) -> tuple[str, ...]:
    """A program, or a list of a program and its arguments."""
    words = value.items if value.kind == "list" else (value,)
    text = _text("a program such as text-generation-launcher, or a list of it and its arguments")
    if not words:
        raise _Wrong("expected a program, found an empty list")
    return tuple(text(word) for word in words)


def _arguments(value: Value) -> tuple[str, ...]:
    """Options of the engine that harness has no name for, as a list of words."""
    text = _text("an argument of the engine such as --enforce-eager")
    if value.kind != "list":
        raise _Wrong(f"expected a list of arguments such as [--enforce-eager], found {value.found}")
    return tuple(text(item) for item in value.items)


def _as_written(value: Value) -> str:
    """Shows the quotes where they are the mistake."""
    return f"'{value.text}' in quotes" if value.quoted else value.found


def _read_slo(value: Value, key: str, mistakes: list[Mistake]) -> Layer:
    if value.kind not in ("mapping", "null"):
        mistakes.append(Mistake(value.line, key, f"expected a mapping such as {{ttft_p95: 1s}}, found {value.found}"))
    layer: Layer = {}
    for name, entry in value.entries.items():
        path = f"{key}/{name}"
        try:
            parse_bound(name, 1)
        except ValueError as error:
            mistakes.append(Mistake(entry.line, path, f"{error}, found '{name}'"))
        else:
            _read_setting(layer, name, entry, path, _duration("500ms or 1s"), mistakes)
    return layer


def _read_env(value: Value, key: str, mistakes: list[Mistake]) -> Layer:
    if value.kind not in ("mapping", "null"):
        text = f'expected a mapping such as {{CUDA_GRAPHS: "1,2,4,8"}}, found {value.found}'
        mistakes.append(Mistake(value.line, key, text))
    layer: Layer = {}
    for name, entry in value.entries.items():
        path = f"{key}/{name}"
        if not _ENV_NAME.fullmatch(name):
            mistakes.append(Mistake(entry.line, path, "expected a variable's name of letters, digits and '_'"))
        elif _HUB_TOKEN.fullmatch(name):
            text = "a secret does not belong in this file; set it in harness's own environment instead"
            mistakes.append(Mistake(entry.line, path, text))
        else:
            if entry.kind not in ("list", "mapping") and is_secret(name, entry.text):
                remember_secret(entry.text)
            _read_setting(layer, name, entry, path, _variable, mistakes)
    return layer


def _variable(value: Value) -> str:
    if value.kind in ("list", "mapping"):
        raise _Wrong(f"expected one value, found {value.found}")
    return _handed_on(value)


_SHAPE_WORDS = {
    "model_type": "a model type such as llama",
    "stored": "a checkpoint's method such as mxfp4",
    "architecture": "a class such as LlamaForCausalLM",
}


def _shape_keys() -> dict[str, Parser]:
    """The fields of ModelShape, so that both cannot drift apart."""
    parsers: dict[str, Parser] = {}
    for each in dataclasses.fields(ModelShape):
        if each.name == "name":
            continue
        if each.type == "bool":
            parsers[each.name] = _truth
        elif each.type == "int":
            # What other fields count too much is taken away again.
            least = -(2**50) if each.name == "other_parameters" else 0
            parsers[each.name] = _whole(each.name, least=least, most=2**60)
        else:
            parsers[each.name] = _text(_SHAPE_WORDS[each.name])
    return parsers


_RENAMED = {"max_input_length": "max_input_tokens"}
_SECTIONS: Mapping[str, Callable[[Value, str, list[Mistake]], Layer]] = {"slo": _read_slo, "env": _read_env}
_TOKENS = _whole("tokens")

KEYS: Mapping[str, Any] = {
    "repo": _repo,
    "revision": _text("a commit, tag or branch of the Hub"),
    "gpu": _gpu,
    "gpus": _whole("GPUs", most=1024),
    "file": _text("the name of one file of the repo such as model-Q4_K_M.gguf"),
    "dtype": _text("a dtype such as bfloat16"),
    "quantize": _text("a method such as awq"),
    "kv_cache_dtype": _text("a dtype of the KV cache such as fp8"),
    "engine": {
        "name": _matching(re.compile(r"[a-z][a-z0-9_-]*"), "an engine's name such as tgi"),
        "version": _matching(_IMAGE_TAG, "a version such as 3.3.7"),
        "image": _text("an image such as ghcr.io/huggingface/text-generation-inference:3.3.7"),
        "command": _command,
        "variant": _text("a kind of the engine's image such as cuda"),
        "args": _arguments,
    },
    "limits": {
        "max_input_tokens": _TOKENS,
        "max_input_length": _TOKENS,
        "max_total_tokens": _TOKENS,
        "max_batch_prefill_tokens": _TOKENS,
        "max_batch_total_tokens": _TOKENS,
        "max_concurrent_requests": _whole("requests"),
        "max_batch_size": _whole("requests"),
        "cuda_memory_fraction": _fraction,
    },
    "slo": "slo",
    "env": "env",
    "price_per_gpu_hour": _money,
    "price_source": _text("where the price is from, and when"),
    "context_length": _TOKENS,
    "answer_tokens": _TOKENS,
    "start_timeout": _duration("20m"),
    "replicas": _whole("replicas", most=1024),
    "port": _whole("a port", least=1, most=65535),
    "listen": _address,
    "trust_remote_code": _truth,
    "weight_bytes": _whole("bytes", most=2**60),
    "shape": _shape_keys(),
}
