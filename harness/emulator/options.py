"""The launcher's options: its flags, its environment variables, and how clap reads and refuses them.

A flag wins over its variable. Values of variables are refused with the flag's name, as clap does it. The options of
the emulator itself come on top; they have variables too (HARNESS_EMULATOR_...), so that a container can be told.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from harness.emulator import rust

PROGRAM = "text-generation-launcher"

QUANTIZATIONS = (
    "awq", "compressed-tensors", "eetq", "exl2", "gptq", "marlin",
    "bitsandbytes", "bitsandbytes-nf4", "bitsandbytes-fp4", "fp8",
)  # fmt: skip


@dataclass
class Options:
    """All options with their values. Names are TGI's; the last group is the emulator's own."""

    model_id: str = "bigscience/bloom-560m"
    revision: str | None = None
    validation_workers: int = 2
    sharded: bool | None = None
    num_shard: int | None = None
    quantize: str | None = None
    speculate: int | None = None
    dtype: str | None = None
    kv_cache_dtype: str | None = None
    trust_remote_code: bool = False
    max_concurrent_requests: int = 128
    max_best_of: int = 2
    max_stop_sequences: int = 4
    max_top_n_tokens: int = 5
    max_input_tokens: int | None = None
    max_input_length: int | None = None
    max_total_tokens: int | None = None
    waiting_served_ratio: float = 0.3
    max_batch_prefill_tokens: int | None = None
    max_batch_total_tokens: int | None = None
    max_waiting_tokens: int = 20
    max_batch_size: int | None = None
    cuda_graphs: list[int] | None = None
    hostname: str = "0.0.0.0"
    port: int = 3000
    prometheus_port: int = 9000
    shard_uds_path: str = "/tmp/text-generation-server"
    master_addr: str = "localhost"
    master_port: int = 29500
    huggingface_hub_cache: str | None = None
    weights_cache_override: str | None = None
    disable_custom_kernels: bool = False
    cuda_memory_fraction: float = 1.0
    rope_scaling: str | None = None
    rope_factor: float | None = None
    json_output: bool = False
    otlp_endpoint: str | None = None
    otlp_service_name: str = "text-generation-inference.router"
    cors_allow_origin: list[str] | None = None
    api_key: str | None = None
    watermark_gamma: float | None = None
    watermark_delta: float | None = None
    ngrok: bool = False
    ngrok_authtoken: str | None = None
    ngrok_edge: str | None = None
    tokenizer_config_path: str | None = None
    disable_grammar_support: bool = False
    env: bool = False
    max_client_batch_size: int = 4
    lora_adapters: str | None = None
    usage_stats: str = "on"
    payload_limit: int = 2000000
    enable_prefill_logprobs: bool = False
    graceful_termination_timeout: int = 90

    gpu: str | None = None
    gpus: int | None = None
    truth: str | None = None
    scenario: str | None = None
    boot_seconds: str | None = None
    speed: float = 1.0
    given: frozenset[str] = frozenset()


class UsageProblem(Exception):
    """A command line that clap refuses. text: all of stderr. The exit code is 2."""


class Finished(Exception):
    """--help or --version: text for stdout, exit code 0."""


class _Invalid(ValueError):
    """A value that does not parse; the text is Rust's."""


def _integer(text: str) -> int:
    if not text:
        raise _Invalid("cannot parse integer from empty string")
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise _Invalid("invalid digit found in string")
    return int(text)


def _unsigned(text: str) -> int:
    """usize and u64: parsed as such."""
    if text.startswith("-"):
        raise _Invalid("invalid digit found in string")
    number = _integer(text)
    if number >= 2**64:
        raise _Invalid("number too large to fit in target type")
    return number


def _ranged(highest: int) -> Callable[[str], int]:
    """u16 and u32: parsed as i64, then held against the range."""

    def parse(text: str) -> int:
        number = _integer(text)
        if not -(2**63) <= number < 2**63:
            raise _Invalid(f"number too {'large' if number > 0 else 'small'} to fit in target type")
        if not 0 <= number <= highest:
            raise _Invalid(f"{number} is not in 0..={highest}")
        return number

    return parse


_FLOAT = re.compile(r"[+-]?(inf|infinity|nan|([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?)", re.IGNORECASE)


def _float(text: str) -> float:
    if not text:
        raise _Invalid("cannot parse float from empty string")
    if not _FLOAT.fullmatch(text):
        raise _Invalid("invalid float literal")
    return float(text)


def _text(text: str) -> str:
    return text


_U16, _U32 = _ranged(2**16 - 1), _ranged(2**32 - 1)


@dataclass(frozen=True)
class Option:
    """One option. kind: value, switch (no value on the command line), list (comma) or repeat (given more than once)."""

    name: str
    parse: Callable[[str], Any]
    help: str
    kind: str = "value"
    values: tuple[str, ...] = ()
    short: str | None = None
    own: bool = False
    has_env: bool = True

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def shown(self) -> str:
        """The flag with its value, as clap names it."""
        return self.flag if self.kind == "switch" else f"{self.flag} <{self.name.upper()}>"

    @property
    def variable(self) -> str:
        return f"HARNESS_EMULATOR_{self.name.upper()}" if self.own else self.name.upper()


def _bool(text: str) -> bool:
    return text == "true"


_BOOLS = ("true", "false")


def _switch(name: str, help: str) -> Option:
    return Option(name, _bool, help, kind="switch", values=_BOOLS)


OPTIONS = (
    Option("model_id", _text, "Model on the Hub, or a directory with its files"),
    Option("revision", _text, "Revision of the model on the Hub"),
    Option("validation_workers", _unsigned, "Tokenizer threads of the router"),
    Option("sharded", _bool, "Whether to split the model over GPUs", values=_BOOLS),
    Option("num_shard", _unsigned, "Number of shards"),
    Option("quantize", _text, "Quantisation of the weights", values=QUANTIZATIONS),
    Option("speculate", _unsigned, "Tokens to speculate on"),
    Option("dtype", _text, "Data type of the weights", values=("float16", "bfloat16")),
    Option("kv_cache_dtype", _text, "Data type of the KV cache", values=("fp8_e4m3fn", "fp8_e5m2")),
    _switch("trust_remote_code", "Run modelling code of the repository"),
    Option("max_concurrent_requests", _unsigned, "Requests in the server at once; more are refused"),
    Option("max_best_of", _unsigned, "Largest best_of of a request"),
    Option("max_stop_sequences", _unsigned, "Most stop sequences of a request"),
    Option("max_top_n_tokens", _U32, "Largest top_n_tokens of a request"),
    Option("max_input_tokens", _unsigned, "Most tokens of a prompt"),
    Option("max_input_length", _unsigned, "Older name of --max-input-tokens"),
    Option("max_total_tokens", _unsigned, "Most tokens of a prompt and its answer"),
    Option("waiting_served_ratio", _float, "Waiting to running requests at which running ones are paused"),
    Option("max_batch_prefill_tokens", _U32, "Most prompt tokens of one forward"),
    Option("max_batch_total_tokens", _U32, "Token budget of the batch; only padded models obey"),
    Option("max_waiting_tokens", _unsigned, "Decode steps after which a waiting request joins"),
    Option("max_batch_size", _unsigned, "Most requests of a batch"),
    Option("cuda_graphs", _unsigned, "Batch sizes to capture CUDA graphs for", kind="list"),
    Option("hostname", _text, "Address to listen on"),
    Option("port", _U16, "Port to listen on", short="p"),
    Option("prometheus_port", _U16, "Port of the metrics exporter"),
    Option("shard_uds_path", _text, "Socket between router and shards"),
    Option("master_addr", _text, "Address of the first shard"),
    Option("master_port", _unsigned, "Port of the first shard"),
    Option("huggingface_hub_cache", _text, "Cache of the Hub"),
    Option("weights_cache_override", _text, "Directory of weights"),
    _switch("disable_custom_kernels", "Use no kernels of TGI's own"),
    Option("cuda_memory_fraction", _float, "Share of the GPU's memory to use"),
    Option("rope_scaling", _text, "How to scale rotary embeddings", values=("linear", "dynamic")),
    Option("rope_factor", _float, "By how much to scale them"),
    _switch("json_output", "Log in JSON"),
    Option("otlp_endpoint", _text, "OpenTelemetry collector"),
    Option("otlp_service_name", _text, "Name in OpenTelemetry"),
    Option("cors_allow_origin", _text, "Origin that browsers may come from", kind="repeat"),
    Option("api_key", _text, "Key that requests must carry"),
    Option("watermark_gamma", _float, "Watermark: share of favoured tokens"),
    Option("watermark_delta", _float, "Watermark: strength"),
    _switch("ngrok", "Tunnel through ngrok"),
    Option("ngrok_authtoken", _text, "Token of ngrok"),
    Option("ngrok_edge", _text, "Edge of ngrok"),
    Option("tokenizer_config_path", _text, "Tokenizer configuration with the chat template"),
    _switch("disable_grammar_support", "Refuse grammars"),
    Option("env", _bool, "Show the run-time environment", kind="switch", short="e", has_env=False),
    Option("max_client_batch_size", _unsigned, "Most prompts of one call"),
    Option("lora_adapters", _text, "LoRA adapters to load"),
    Option("usage_stats", _text, "Usage statistics", values=("on", "off", "no-stack")),
    Option("payload_limit", _unsigned, "Most bytes of a request"),
    _switch("enable_prefill_logprobs", "Offer log probabilities of the prompt"),
    Option("graceful_termination_timeout", _unsigned, "Seconds to let requests finish", short="g"),
    Option("gpu", _text, "Emulated: GPU by its name in the catalogue", own=True),
    Option("gpus", _unsigned, "Emulated: number of GPUs that nvidia-smi would list", own=True),
    Option("truth", _text, "Emulated: file to write the hidden truth to", own=True),
    Option("scenario", _text, "Emulated: YAML or JSON file with a different world and with faults", own=True),
    Option(
        "boot_seconds", _text, "Emulated: seconds of download, loading and warm-up (one number, or three)", own=True
    ),
    Option("speed", _float, "Emulated: factor by which everything runs faster", own=True),
)

# `--model` is the emulator's short name of --model-id.
_ALIASES = {"--model": "--model-id"}
_BY_FLAG = {option.flag: option for option in OPTIONS}
_BY_SHORT = {"-" + option.short: option for option in OPTIONS if option.short}
_TGI = tuple(option for option in OPTIONS if not option.own)
_MORE = "\n\nFor more information, try '--help'.\n"


def parse(arguments: Sequence[str], environment: Mapping[str, str]) -> Options:
    """The options. Raises UsageProblem, or Finished for --help and --version."""
    raw = _command_line(arguments)
    values = {name: _value(_named(name), texts) for name, texts in raw.items()}
    for option in OPTIONS:
        text = environment.get(option.variable)
        if option.name not in raw and option.has_env and text is not None:
            values[option.name] = _from_environment(option, text)
    return Options(**values, given=frozenset(values))


def _named(name: str) -> Option:
    return next(option for option in OPTIONS if option.name == name)


def _command_line(arguments: Sequence[str]) -> dict[str, list[str]]:
    """Raw values by option, in the order in which they came.

    A value is looked at when the next option begins, so that its mistake comes before that one's, but after that of
    something unknown.
    """
    found: dict[str, list[str]] = {}
    rest = list(arguments)
    last: Option | None = None
    while rest:
        token = rest.pop(0)
        flag, equals, attached = token.partition("=")
        flag = _ALIASES.get(flag, flag)
        if flag in ("--help", "-h"):
            raise Finished(help_text(long=flag == "--help"))
        if flag in ("--version", "-V"):
            raise Finished(f"{PROGRAM} 3.3.6-dev0\n")
        option = _BY_FLAG.get(flag) or _BY_SHORT.get(flag)
        if option is None and len(token) > 2 and token[:2] in _BY_SHORT and token[1] != "-":
            option = _BY_SHORT[token[:2]]
            if option.kind == "switch":
                rest.insert(0, f"-{token[2:]}")
                equals, attached = "", ""
            else:
                equals, attached = "=", token[2:].removeprefix("=")
        if option is None:
            raise _unexpected(rest.pop(0) if token == "--" and rest else token, found)
        if last is not None:
            _value(last, found[last.name])
        if option.name in found and option.kind != "repeat":
            raise UsageProblem(
                f"error: the argument '{option.shown}' cannot be used multiple times\n\n{_usage(())}{_MORE}"
            )
        found.setdefault(option.name, []).append(_raw_value(option, equals, attached, rest))
        last = option
    return found


def _raw_value(option: Option, equals: str, attached: str, rest: list[str]) -> str:
    if option.kind == "switch":
        if equals:
            raise UsageProblem(
                f"error: unexpected value '{attached}' for '{option.flag}' found; no more were expected\n\n"
                f"Usage: {PROGRAM} {option.flag}{_MORE}"
            )
        return "true"
    if equals:
        return attached
    if not rest or _looks_like_flag(rest[0]):
        if rest and re.match(r"-[0-9.]", rest[0]):
            raise _unexpected(rest[0], ())
        raise _required(option)
    return rest.pop(0)


def _looks_like_flag(token: str) -> bool:
    return token.startswith("-") and token != "-"


def _required(option: Option) -> UsageProblem:
    return UsageProblem(
        f"error: a value is required for '{option.shown}' but none was supplied{_possible(option)}{_MORE}"
    )


def _possible(option: Option) -> str:
    return f"\n  [possible values: {', '.join(option.values)}]" if option.values else ""


def _value(option: Option, texts: list[str]) -> Any:
    if option.kind == "list":
        return [_one(option, part) for text in texts for part in text.split(",")]
    if option.kind == "repeat":
        return [_one(option, text) for text in texts]
    return _one(option, texts[-1])


def _one(option: Option, text: str) -> Any:
    if option.values:
        if not text:
            raise _required(option)
        if text not in option.values:
            near = _similar(text, option.values)
            tip = f"\n\n  tip: a similar value exists: '{near}'" if near else ""
            raise UsageProblem(f"error: invalid value '{text}' for '{option.shown}'{_possible(option)}{tip}{_MORE}")
        return option.parse(text)
    try:
        return option.parse(text)
    except _Invalid as error:
        raise UsageProblem(f"error: invalid value '{text}' for '{option.shown}': {error}{_MORE}") from None


def _from_environment(option: Option, text: str) -> Any:
    if option.kind == "repeat":
        return [_one(option, text)]
    return _value(option, [text])


def _unexpected(token: str, found: Mapping[str, object] | Sequence[str]) -> UsageProblem:
    shown = token.partition("=")[0] if token.startswith("--") else token[:2] if _is_short(token) else token
    names = [*(option.flag[2:] for option in _TGI), "help", "version"]
    near = _similar(shown[2:], names) if shown.startswith("--") and len(shown) > 2 else None
    tip = f"\n\n  tip: a similar argument exists: '--{near}'" if near else ""
    usage = _usage(found if token.startswith("-") else ())
    if near in ("help", "version"):
        usage = f"Usage: {PROGRAM} --{near}"
    elif near:
        usage = _usage(("tip",))
    return UsageProblem(f"error: unexpected argument '{shown}' found{tip}\n\n{usage}{_MORE}")


def _is_short(token: str) -> bool:
    return token.startswith("-") and len(token) > 1 and token[1].isalpha()


def _usage(found: Mapping[str, object] | Sequence[str]) -> str:
    """clap names every option once one of them was recognised."""
    if not found:
        return f"Usage: {PROGRAM} [OPTIONS]"
    return f"Usage: {PROGRAM} <{'|'.join(option.shown for option in _TGI)}>"


def _similar(text: str, candidates: Sequence[str]) -> str | None:
    best, score = None, 0.7 + 1e-9
    for candidate in candidates:
        likeness = jaro(text, candidate)
        if likeness >= score:
            best, score = candidate, likeness
    return best


def jaro(left: str, right: str) -> float:
    """Similarity between 0 and 1 (M. A. Jaro 1989), by which clap offers a near name."""
    if not left or not right:
        return float(left == right)
    reach = max(0, max(len(left), len(right)) // 2 - 1)
    taken = [False] * len(right)
    matched = []
    for i, letter in enumerate(left):
        for j in range(max(0, i - reach), min(len(right), i + reach + 1)):
            if not taken[j] and right[j] == letter:
                taken[j] = True
                matched.append(letter)
                break
    if not matched:
        return 0.0
    other = [letter for letter, used in zip(right, taken, strict=True) if used]
    swapped = sum(a != b for a, b in zip(matched, other, strict=True)) / 2
    count = len(matched)
    return (count / len(left) + count / len(right) + (count - swapped) / count) / 3


def help_text(*, long: bool) -> str:
    """The help in clap's form. Values of variables are not shown: a key could be among them."""
    defaults = {each.name: each.default for each in fields(Options) if each.name != "given"}
    lines = ["Text Generation Launcher (emulated)", "", f"Usage: {PROGRAM} [OPTIONS]", "", "Options:"]
    for option in OPTIONS:
        short = f"  -{option.short}, " if option.short else "      "
        notes = [f"[env: {option.variable}=]"] if option.has_env else []
        default = defaults[option.name]
        if default is not None and option.kind != "switch":
            notes.append(f"[default: {default}]")
        if option.values and option.kind != "switch":
            notes.append(f"[possible values: {', '.join(option.values)}]")
        body = [option.help, *notes]
        lines.append(f"{short}{option.shown}")
        lines += [f"          {part}" for part in body] if long else [f"          {' '.join(body)}"]
    for flag, text in (("-h, --help", "Print help"), ("-V, --version", "Print version")):
        lines += [f"  {flag}", f"          {text}"]
    return "\n".join(lines) + "\n"


_SECRET = ("api_key", "ngrok_authtoken")  # TGI prints them; here a log holds no secret
_NOT_OPTIONAL_LISTS = ("cors_allow_origin",)
_ENUMS = {
    "on": "On", "off": "Off", "no-stack": "NoStack", "float16": "Float16", "bfloat16": "BFloat16",
    "fp8_e4m3fn": "Fp8e4m3fn", "fp8_e5m2": "Fp8e5m2", "linear": "Linear", "dynamic": "Dynamic",
}  # fmt: skip
_ENUM_NAMES = ("quantize", "dtype", "kv_cache_dtype", "rope_scaling", "usage_stats")


def describe(options: Options) -> str:
    """The first log line: all of TGI's options in Rust's `{:#?}` form."""
    lines = ["Args {"]
    defaults = {each.name: each.default for each in fields(Options)}
    for option in _TGI:
        value = getattr(options, option.name)
        optional = defaults[option.name] is None and option.name not in _NOT_OPTIONAL_LISTS
        lines += [f"    {line}" for line in _field(option.name, value, optional)]
    return "\n".join([*lines, "}"])


def _field(name: str, value: Any, optional: bool) -> list[str]:
    if value is None:
        return [f"{name}: {'None' if optional else '[]'},"]
    if isinstance(value, list):
        inner = [f"    {rust.debug(each)}," for each in value]
        shown = ["[", *inner, "]"] if inner else ["[]"]
    elif name in _ENUM_NAMES:
        shown = [_ENUMS.get(value) or "".join(part.capitalize() for part in value.split("-"))]
    else:
        shown = ['"[REDACTED]"' if name in _SECRET else rust.debug(value)]
    if not optional:
        return [f"{name}: {shown[0]}", *shown[1:-1], f"{shown[-1]},"] if len(shown) > 1 else [f"{name}: {shown[0]},"]
    return [f"{name}: Some(", *[f"    {line}" for line in shown[:-1]], f"    {shown[-1]},", "),"]
