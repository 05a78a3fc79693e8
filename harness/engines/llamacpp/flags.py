"""llama-server's arguments by build: their spellings, the variables that say the same, and what a start gave them.

From common/arg.cpp of llama.cpp 0c1e57098 and the help texts of the builds b8672 to b11549.
"""

from __future__ import annotations

from collections.abc import Mapping

from harness.catalog.version import NEWEST_OF_LINE, Version, parse_version, version_text
from harness.engines.arguments import Flag, Flags
from harness.engines.base import Invocation
from harness.errors import UsageError

TITLE = "llama.cpp"


def build(number: int) -> Version:
    """The version that a build counts as."""
    return number, NEWEST_OF_LINE, NEWEST_OF_LINE


OLDEST = build(8672)  # before it the slots' defaults were others
NEWEST = "b11347"  # images are published of some builds only, this one among them
# Which build a release is, or at least: v0.5.0 is b11146, the others are the first that were seen to lead to them.
_RELEASES: Mapping[Version, int] = {(0, 1, 0): 10069, (0, 2, 0): 10566, (0, 4, 1): 11063, (0, 5, 0): 11146}

FLAGS = Flags(
    TITLE,
    {
        "--model": Flag(("-m",)),
        "--model-url": Flag(("-mu",)),
        "--hf-repo": Flag(("-hf", "-hfr")),
        "--hf-file": Flag(("-hff",)),
        "--docker-repo": Flag(("-dr",)),
        "--alias": Flag(("-a",)),
        "--host": Flag(),
        "--port": Flag(),
        "--reuse-port": Flag(),
        "--api-prefix": Flag(),
        "--metrics": Flag(),
        "--no-ui": Flag(since=build(9538)),
        "--no-webui": Flag(),
        "--hf-token": Flag(("-hft",)),
        "--api-key": Flag(),
        "--api-key-file": Flag(),
        "--ssl-key-file": Flag(),
        "--ssl-cert-file": Flag(),
        "--ctx-size": Flag(("-c",)),
        "--parallel": Flag(("-np",)),
        "--kv-unified": Flag(("-kvu",)),
        "--no-kv-unified": Flag(("-no-kvu",)),
        "--kv-unified-per-slot": Flag(since=build(11063)),
        "--batch-size": Flag(("-b",)),
        "--ubatch-size": Flag(("-ub",)),
        "--cache-type-k": Flag(("-ctk",)),
        "--cache-type-v": Flag(("-ctv",)),
        "--cache-prompt": Flag(),
        "--no-cache-prompt": Flag(),
        "--cache-ram": Flag(("-cram",)),
        "--swa-full": Flag(),
        "--flash-attn": Flag(("-fa",)),
        "--fit": Flag(("-fit",)),
        "--fit-target": Flag(("-fitt",)),
        "--fit-ctx": Flag(("-fitc",)),
        "--n-gpu-layers": Flag(("-ngl", "--gpu-layers")),
        "--n-cpu-moe": Flag(("-ncmoe",)),
        "--cpu-moe": Flag(("-cmoe",)),
        "--override-tensor": Flag(("-ot",)),
        "--no-kv-offload": Flag(("-nkvo",)),
        "--split-mode": Flag(("-sm",)),
        "--tensor-split": Flag(("-ts",)),
        "--main-gpu": Flag(("-mg",)),
        "--device": Flag(("-dev",)),
        "--mmproj": Flag(("-mm",)),
        "--model-draft": Flag(("-md", "--spec-draft-model")),
        "--lora": Flag(),
    },
    like_argparse=False,
    flexible=True,
    instead={
        "--no-ui": "It is called --no-webui.",
        "--kv-unified-per-slot": "Bound all requests together instead: limits/max_batch_total_tokens.",
    },
)

VARIABLES: Mapping[str, str] = {
    "--model": "LLAMA_ARG_MODEL",
    "--model-url": "LLAMA_ARG_MODEL_URL",
    "--hf-repo": "LLAMA_ARG_HF_REPO",
    "--hf-file": "LLAMA_ARG_HF_FILE",
    "--alias": "LLAMA_ARG_ALIAS",
    "--host": "LLAMA_ARG_HOST",
    "--port": "LLAMA_ARG_PORT",
    "--ctx-size": "LLAMA_ARG_CTX_SIZE",
    "--parallel": "LLAMA_ARG_N_PARALLEL",
    "--kv-unified": "LLAMA_ARG_KV_UNIFIED",
    "--kv-unified-per-slot": "LLAMA_ARG_KV_UNIFIED_PER_SLOT",
    "--batch-size": "LLAMA_ARG_BATCH",
    "--ubatch-size": "LLAMA_ARG_UBATCH",
    "--cache-type-k": "LLAMA_ARG_CACHE_TYPE_K",
    "--cache-type-v": "LLAMA_ARG_CACHE_TYPE_V",
    "--fit": "LLAMA_ARG_FIT",
    "--split-mode": "LLAMA_ARG_SPLIT_MODE",
    "--tensor-split": "LLAMA_ARG_TENSOR_SPLIT",
    "--device": "LLAMA_ARG_DEVICE",
}
"""The environment variable that says the same as an argument, and is overruled by it."""


def release(text: str) -> Version:
    """`b11347`, `v0.5.0`, `latest` -> the build that it counts as. Raises UsageError, also for one that is too old."""
    told = parse_version(NEWEST if text in ("latest", "") else text)
    if told is None:
        raise UsageError(f"no version of {TITLE}: {text!r}", advice=f"Expected a build such as {NEWEST}, or v0.5.0.")
    if told[0] == 0:
        numbers = [number for first, number in _RELEASES.items() if first <= told]
        told = build(max(numbers, default=0))
    if told < OLDEST:
        raise UsageError(
            f"{TITLE} {text} is older than any that harness knows the options of",
            advice=f"Take b{version_text(OLDEST)} or newer, such as {NEWEST}.",
        )
    return told


def setting(started_with: Invocation, flag: str) -> str | None:
    """What a start gave an option, by argument or else by variable; None where it did not."""
    told = FLAGS.value(started_with.args, flag)
    return told if told is not None else started_with.environment.get(VARIABLES.get(flag, ""))


def number(started_with: Invocation, flag: str) -> int | None:
    """The same as a number; None also for -1, which leaves it to llama.cpp."""
    told = setting(started_with, flag)
    return int(told) if told is not None and told.isdigit() else None


def asks_for_one_cache(started_with: Invocation) -> bool:
    """Whether the slots are told to draw on one cache."""
    given = dict(FLAGS.given(started_with.args))
    told = started_with.environment.get(VARIABLES["--kv-unified"], "")
    return "--no-kv-unified" not in given and ("--kv-unified" in given or told.lower() in _TRUE)


_TRUE = ("on", "enabled", "true", "1")  # common/arg.cpp, is_truthy
