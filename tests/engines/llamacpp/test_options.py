"""The command line of llama-server for an entry: what each key becomes, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.catalog.limits import Limits
from harness.catalog.models import EngineChoice, Model, parse_catalogue
from harness.engines import accepted, engine_named
from harness.engines.arguments import is_flag
from harness.engines.base import Invocation, Place
from harness.engines.llamacpp import flags
from harness.errors import UsageError

ENGINE = engine_named("llamacpp")
HERE = Place("127.0.0.1", 8123)
CHAT = Model("chat", "/srv/chat.gguf", engine=EngineChoice("llamacpp", "b11347"))


def started(model: Model, place: Place = HERE, version: str = "b11347", **changes: str) -> Invocation:
    return ENGINE.invocation(model, ENGINE.version(version), place, changes=changes)


def command(model: Model, place: Place = HERE, version: str = "b11347") -> str:
    return " ".join(started(model, place, version).args)


def with_args(*args: str, **keys: object) -> Model:
    return replace(CHAT, engine=replace(CHAT.engine, args=args), **keys)  # type: ignore[arg-type]


def test_entry_without_limits_leaves_them_to_llama_cpp() -> None:
    """Address, model, name and metrics are set; slots, cache and fitting are its own."""
    assert command(CHAT) == (
        "--host 127.0.0.1 --port 8123 --model /srv/chat.gguf --alias chat --metrics --no-ui --split-mode none"
    )


def test_limits_and_cache_type() -> None:
    """-c is the cache of all slots; a size that was asked for is not fitted to what is there."""
    limits = Limits(max_total_tokens=4000, max_batch_size=8, max_batch_prefill_tokens=1024)
    assert command(replace(CHAT, limits=limits, kv_cache_dtype="q8_0")).endswith(
        "--ctx-size 32768 --parallel 8 --fit off --batch-size 1024 --cache-type-k q8_0 --cache-type-v q8_0"
    )


def test_arguments_of_the_entry_come_last_as_they_stand() -> None:
    """Also one that llama.cpp alone knows."""
    assert command(with_args("-ub", "256", "--some-new-option")).endswith(" -ub 256 --some-new-option")


def test_entry_may_have_it_fitted() -> None:
    """Its own word about fitting is the last one."""
    limits = Limits(max_total_tokens=4096)
    words = started(with_args("-fit", "on", limits=limits)).args
    assert "off" not in words
    assert "off" not in started(replace(CHAT, limits=limits, env={"LLAMA_ARG_FIT": "on"})).args


def test_one_cache_when_the_entry_asks_for_it() -> None:
    """Each slot is still held to max_total_tokens."""
    limits = Limits(max_total_tokens=1000, max_batch_size=3)
    model = with_args("--kv-unified", limits=limits)
    assert "--ctx-size 3072 --parallel 3 --kv-unified-per-slot 1000 --fit off" in command(model)
    by_variable = replace(CHAT, limits=limits, env={"LLAMA_ARG_KV_UNIFIED": "1"})
    assert "--kv-unified-per-slot 1000" in command(by_variable)
    with pytest.raises(UsageError, match="11063 has it"):
        command(model, version="b10566")


def test_own_cache_when_the_entry_says_so_last() -> None:
    """An argument wins over a variable."""
    limits = Limits(max_total_tokens=1000, max_batch_size=3)
    model = with_args("--no-kv-unified", limits=limits, env={"LLAMA_ARG_KV_UNIFIED": "1"})
    assert "--kv-unified-per-slot" not in command(model)


def test_slots_by_argument_size_the_cache() -> None:
    """`--parallel` is given once, by the entry."""
    words = command(with_args("-np", "6", limits=Limits(max_total_tokens=1024)))
    assert "--ctx-size 6144" in words
    assert "--parallel" not in words


@pytest.mark.parametrize(
    ("limits", "nearest"),
    [
        (Limits(max_input_tokens=100), "max_total_tokens"),
        (Limits(max_concurrent_requests=100), "max_batch_size"),
        (Limits(cuda_memory_fraction=0.9), "--fit-target"),
    ],
)
def test_limit_that_it_lacks_is_refused_with_the_nearest(limits: Limits, nearest: str) -> None:
    """In an entry and as a recommendation."""
    (name,) = limits.known()
    for ask in (lambda: started(replace(CHAT, limits=limits)), lambda: ENGINE.flags(limits, ENGINE.version("latest"))):
        with pytest.raises(UsageError, match=name) as refused:
            ask()
        assert nearest in str(refused.value)


def test_step_must_hold_a_token_of_each_running_request() -> None:
    """With -b 3 -np 4 llama-server aborts at its start, with -b 1 always."""
    with pytest.raises(UsageError, match="at least 4"):
        started(replace(CHAT, limits=Limits(max_batch_size=4, max_batch_prefill_tokens=3)))
    with pytest.raises(UsageError, match="at least 2"):
        started(replace(CHAT, limits=Limits(max_batch_prefill_tokens=1)))
    with pytest.raises(UsageError, match="at least 8"):
        started(with_args("-np", "8", limits=Limits(max_batch_prefill_tokens=7)))


@pytest.mark.parametrize(
    ("args", "keys", "said"),
    [
        (("-c", "4096"), {"limits": Limits(max_total_tokens=2048)}, "limits/max_total_tokens"),
        (("--ctx_size", "4096"), {"limits": Limits(max_batch_total_tokens=8192)}, "limits/max_batch_total_tokens"),
        (("-np", "2"), {"limits": Limits(max_batch_size=2)}, "limits/max_batch_size"),
        (("-b", "64"), {"limits": Limits(max_batch_prefill_tokens=64)}, "limits/max_batch_prefill_tokens"),
        (("-ctk", "q8_0"), {"kv_cache_dtype": "f16"}, "kv_cache_dtype"),
        (("-m", "/x.gguf"), {}, "`repo`"),
        (("-hf", "a/b"), {}, "`repo`"),
        (("--port", "1"), {}, "its own address"),
        (("--metrics",), {}, "sets it in every start"),
        (("--api-key", "k"), {}, "secret"),
        (("--api-key-file", "/k"), {}, "without a key"),
        (("--hf-token", "hf_x"), {}, "HF_TOKEN"),
    ],
)
def test_argument_that_is_not_the_entrys_to_set(args: tuple[str, ...], keys: dict[str, object], said: str) -> None:
    """Refused with the key that sets it, or why."""
    with pytest.raises(UsageError) as refused:
        started(with_args(*args, **keys))
    assert said in str(refused.value)


def test_argument_for_a_key_that_is_not_set_is_passed_on() -> None:
    """Whoever writes llama.cpp's own word gets it."""
    assert command(with_args("-c", "4096", limits=Limits(max_batch_size=2))).endswith("--parallel 2 -c 4096")


def test_variable_that_an_argument_would_overrule() -> None:
    """It would do nothing."""
    for name in ("LLAMA_ARG_PORT", "LLAMA_ARG_MODEL", "LLAMA_ARG_ALIAS"):
        with pytest.raises(UsageError, match=name):
            started(replace(CHAT, env={name: "1"}))
    assert started(replace(CHAT, env={"LLAMA_ARG_THREADS": "3"})).environment == {"LLAMA_ARG_THREADS": "3"}


def test_changes_are_variables() -> None:
    """They go over the entry's own; an empty one takes it away."""
    model = replace(CHAT, env={"LLAMA_ARG_UBATCH": "256", "LLAMA_ARG_POLL": "0"})
    assert started(model, LLAMA_ARG_UBATCH="", A="b").environment == {"LLAMA_ARG_POLL": "0", "A": "b"}


@pytest.mark.parametrize("key", ["dtype", "quantize"])
def test_type_of_the_weights_is_the_files(key: str) -> None:
    """Neither in an entry of the catalogue nor in one made elsewhere."""
    with pytest.raises(UsageError, match=key):
        started(replace(CHAT, **{key: "bfloat16"}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("variant", "gpus", "inside", "words"),
    [
        ("cuda", 1, True, "--device CUDA0"),
        ("cuda13", 2, True, "--device CUDA0,CUDA1"),
        ("rocm", 2, True, "--device ROCm0,ROCm1"),
        ("vulkan", 1, True, "--device Vulkan0"),
        ("cuda", 1, False, "--split-mode none"),
        ("cuda", 3, False, "--tensor-split 1,1,1"),
    ],
)
def test_as_many_gpus_as_the_entry_says(variant: str, gpus: int, inside: bool, words: str) -> None:
    """In a container by name, so that none is a failure; on this host whatever the build calls them."""
    model = replace(CHAT, gpus=gpus, engine=replace(CHAT.engine, variant=variant))
    place = replace(HERE, container=inside, model_path="/models/chat/chat.gguf")
    assert words in command(model, place)
    own = replace(model, engine=replace(model.engine, args=("-sm", "row")))
    assert words not in command(own, place)


def test_no_gpu_is_asked_for_on_the_cpu() -> None:
    """Of any image or build."""
    model = replace(CHAT, engine=replace(CHAT.engine, variant="cpu"))
    for place in (HERE, replace(HERE, container=True, model_path="/models/chat/chat.gguf")):
        assert "--device" not in command(model, place)
        assert "--split-mode" not in command(model, place)


def test_page_is_switched_off_by_the_name_of_the_release() -> None:
    """--no-ui was --no-webui."""
    assert "--no-webui" in command(CHAT, version="b9093")
    assert "--no-ui" in command(CHAT, version="v0.4.1")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("b11347", 11347),
        ("11549", 11549),
        ("latest", 11347),
        ("v0.5.0", 11146),
        ("0.4.1", 11063),
        ("v0.3.2", 10566),
        ("0.9.0", 11146),
    ],
)
def test_releases(text: str, number: int) -> None:
    """A release is the build that it was made of, or at least the first that was seen before it."""
    assert ENGINE.version(text) == flags.build(number)


@pytest.mark.parametrize("text", ["b8671", "b6000", "newest", "master"])
def test_no_release(text: str) -> None:
    """Texts that are none, and builds whose defaults were others."""
    with pytest.raises(UsageError):
        ENGINE.version(text)


@pytest.mark.parametrize(
    ("printed", "version"),
    [
        ("version: 8672 (0123abcd)\nbuilt with GNU 14 for Linux x86_64\n", "b8672"),
        ("version: 0.5.0 (build 11146, commit 0123abcd)\nbuilt with GNU 14 for Linux x86_64\n", "b11146"),
        ("version: 0.6.0-dev (build 0, commit unknown)\n", None),
        ("version: 0 (unknown)\n", None),
        ("text-generation-launcher 3.3.7\n", None),
    ],
)
def test_program_tells_its_build(printed: str, version: str | None) -> None:
    """In both forms; a build that does not know itself tells nothing."""
    assert ENGINE.told_version(printed) == version


def test_flags_are_complete_on_their_own() -> None:
    """As a user sets them: sizes, slots, and that nothing is fitted."""
    limits = Limits(max_total_tokens=2000, max_batch_size=4, max_batch_prefill_tokens=512)
    assert ENGINE.flags(limits, ENGINE.version("b11347")) == {
        "--ctx-size": "8192",
        "--parallel": "4",
        "--fit": "off",
        "--batch-size": "512",
    }
    assert ENGINE.flags(Limits(), ENGINE.version("b11347")) == {}


def test_names_of_limits_are_those_that_it_has() -> None:
    """For showing; each of them is accepted as a limit."""
    names = ENGINE.limit_names(ENGINE.version("latest"))
    assert "max_input_tokens" not in names
    for name in names:
        started(replace(CHAT, limits=replace(Limits(), **{name: 8192})))


def test_arguments_that_set_a_limit_can_be_taken_out() -> None:
    """By any spelling, with their values; what else the entry says stays."""
    args = ("-c", "4096", "--parallel", "2", "-ub", "64", "--batch_size", "128", "--kv-unified")
    taken = flags.FLAGS.without(args, ("--ctx-size", "--parallel", "--batch-size"))
    assert taken == ("-ub", "64", "--kv-unified")
    assert ENGINE.without_limits(args, {"max_total_tokens", "max_batch_size"}) == (  # type: ignore[attr-defined]
        "-ub", "64", "--batch_size", "128", "--kv-unified",
    )  # fmt: skip


def test_what_else_moves_memory_is_kept() -> None:
    """The cache's type and the entry's own options, by their first spelling."""
    model = with_args("-ngl", "20", "-kvu", "--threads", "4", kv_cache_dtype="q8_0", env={"LLAMA_ARG_UBATCH": "64"})
    assert ENGINE.memory_flags(model) == {
        "--cache-type-k": "q8_0",
        "--cache-type-v": "q8_0",
        "--n-gpu-layers": "20",
        "--kv-unified": "",
        "LLAMA_ARG_UBATCH": "64",
    }


def test_variables_of_the_user_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them would count as an argument, whichever it is."""
    monkeypatch.setenv("LLAMA_ARG_CTX_SIZE", "1")
    monkeypatch.setenv("LLAMA_ARG_OF_THE_FUTURE", "1")
    forgotten = ENGINE.forgotten_variables()
    assert {"LLAMA_ARG_CTX_SIZE", "LLAMA_ARG_OF_THE_FUTURE", "LLAMA_API_KEY"} <= forgotten
    assert "HF_TOKEN" not in forgotten


CATALOGUE = """
models:
  chat:
    repo: org/Chat-GGUF
    file: chat.gguf
    engine: {name: llamacpp}
"""


def test_catalogue_takes_its_words() -> None:
    """An entry gets the newest published build; its cache's types are GGML's."""
    model = parse_catalogue(CATALOGUE + "    kv_cache_dtype: q8_0\n", engines=accepted()).find("chat")
    assert (model.engine.version, model.kv_cache_dtype) == (flags.NEWEST, "q8_0")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("kv_cache_dtype: fp8", "q8_0"),
        ("quantize: awq", "no such setting"),
        ("dtype: bfloat16", "no such setting"),
        ("limits: {max_total_tokens: 100, max_batch_total_tokens: 50}", "at most"),
        ("env: {LLAMA_ARG_MODEL: x}", "repo"),
    ],
)
def test_catalogue_refuses_what_it_does_not_know(line: str, said: str) -> None:
    """With its line."""
    with pytest.raises(UsageError, match=said):
        parse_catalogue(f"{CATALOGUE}    {line}\n", engines=accepted())


def test_table_has_each_spelling_once() -> None:
    """Two flags of one spelling would be a matter of luck; all are flags, and every variable belongs to one."""
    spellings = [each for first, flag in flags.FLAGS.known.items() for each in (first, *flag.also)]
    assert len(spellings) == len(set(spellings))
    assert all(is_flag(each) for each in spellings)
    assert set(flags.VARIABLES) <= set(flags.FLAGS.known)
