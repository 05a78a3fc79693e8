"""Options are read and refused as clap does it for TGI's launcher."""

from __future__ import annotations

import pytest

from harness.emulator.options import OPTIONS, Finished, UsageProblem, describe, help_text, jaro, parse

MORE = "\n\nFor more information, try '--help'.\n"
PLAIN_USAGE = "Usage: text-generation-launcher [OPTIONS]"


def refusal(arguments: list[str], environment: dict[str, str] | None = None) -> str:
    with pytest.raises(UsageProblem) as caught:
        parse(arguments, environment or {})
    return str(caught.value)


FLAGS = [
    (["--nope"], f"error: unexpected argument '--nope' found\n\n{PLAIN_USAGE}"),
    (["foo"], f"error: unexpected argument 'foo' found\n\n{PLAIN_USAGE}"),
    (["--max-input-tokens", "-1"], f"error: unexpected argument '-1' found\n\n{PLAIN_USAGE}"),
    (["--port"], "error: a value is required for '--port <PORT>' but none was supplied"),
    (
        ["--port", "1", "--port", "2"],
        f"error: the argument '--port <PORT>' cannot be used multiple times\n\n{PLAIN_USAGE}",
    ),
    (["--port="], "error: invalid value '' for '--port <PORT>': cannot parse integer from empty string"),
    (
        ["--max-input-tokens=-1"],
        "error: invalid value '-1' for '--max-input-tokens <MAX_INPUT_TOKENS>': invalid digit found in string",
    ),
    (
        ["--trust-remote-code=true"],
        "error: unexpected value 'true' for '--trust-remote-code' found; no more were expected\n\n"
        "Usage: text-generation-launcher --trust-remote-code",
    ),
    (
        ["--sharded"],
        "error: a value is required for '--sharded <SHARDED>' but none was supplied\n  [possible values: true, false]",
    ),
    (["-pabc"], "error: invalid value 'abc' for '--port <PORT>': invalid digit found in string"),
]


@pytest.mark.parametrize(("arguments", "text"), FLAGS)
def test_a_wrong_flag_is_refused_in_claps_words(arguments: list[str], text: str) -> None:
    """Each wrong command line and all of its message."""
    assert refusal(arguments) == text + MORE


VARIABLES = [
    (
        {"MAX_INPUT_TOKENS": ""},
        "error: invalid value '' for '--max-input-tokens <MAX_INPUT_TOKENS>': cannot parse integer from empty string",
    ),
    ({"PORT": "70000"}, "error: invalid value '70000' for '--port <PORT>': 70000 is not in 0..=65535"),
    (
        {"WAITING_SERVED_RATIO": "x"},
        "error: invalid value 'x' for '--waiting-served-ratio <WAITING_SERVED_RATIO>': invalid float literal",
    ),
    (
        {"TRUST_REMOTE_CODE": "1"},
        "error: invalid value '1' for '--trust-remote-code'\n  [possible values: true, false]",
    ),
    (
        {"QUANTIZE": ""},
        "error: a value is required for '--quantize <QUANTIZE>' but none was supplied\n  [possible values: awq,"
        " compressed-tensors, eetq, exl2, gptq, marlin, bitsandbytes, bitsandbytes-nf4, bitsandbytes-fp4, fp8]",
    ),
    (
        {"DTYPE": "float32"},
        "error: invalid value 'float32' for '--dtype <DTYPE>'\n  [possible values: float16, bfloat16]\n\n"
        "  tip: a similar value exists: 'float16'",
    ),
    (
        {"CUDA_GRAPHS": "1,,2"},
        "error: invalid value '' for '--cuda-graphs <CUDA_GRAPHS>': cannot parse integer from empty string",
    ),
    (
        {"PORT": "abc", "MAX_BEST_OF": "x"},
        "error: invalid value 'x' for '--max-best-of <MAX_BEST_OF>': invalid digit found in string",
    ),
]


@pytest.mark.parametrize(("environment", "text"), VARIABLES)
def test_a_wrong_variable_is_refused_like_its_flag(environment: dict[str, str], text: str) -> None:
    """A value from the environment is reported with the flag's name; the first option of the list comes first."""
    assert refusal([], environment) == text + MORE


def test_a_near_name_is_offered() -> None:
    """A mistyped flag is answered with the flag that was probably meant."""
    text = refusal(["--quantise", "awq"])
    assert "\n\n  tip: a similar argument exists: '--quantize'\n\nUsage: text-generation-launcher <--model-id" in text


def test_a_flag_wins_over_its_variable() -> None:
    """The variable is not even looked at."""
    assert parse(["--max-best-of", "5"], {"MAX_BEST_OF": "x"}).max_best_of == 5
    assert parse([], {"MAX_BEST_OF": "7"}).max_best_of == 7


def test_what_was_given_is_known() -> None:
    """An option that was set to its default is told from one that was not set."""
    options = parse(["--hostname", "0.0.0.0"], {"PORT": "3000"})
    assert options.given == {"hostname", "port"}


def test_the_emulators_own_options_have_variables_with_its_name() -> None:
    """HARNESS_EMULATOR_GPU and its like, so that a container can be told without flags."""
    options = parse([], {"HARNESS_EMULATOR_GPU": "A100", "HARNESS_EMULATOR_SPEED": "2", "GPU": "T4"})
    assert (options.gpu, options.speed) == ("A100", 2.0)


def test_help_names_every_option_and_no_value_of_the_environment() -> None:
    """All flags with their variables; a key in the environment is not shown."""
    for long in (True, False):
        text = help_text(long=long)
        assert all(option.shown in text for option in OPTIONS)
    with pytest.raises(Finished) as caught:
        parse(["--help"], {"API_KEY": "hush-hush"})
    assert "hush-hush" not in str(caught.value)


def test_the_first_log_line_is_rusts_debug_form() -> None:
    """Options as `{:#?}` prints the struct; keys are left out."""
    lines = describe(
        parse(["--cuda-graphs", "1,2", "--dtype", "bfloat16", "--quantize", "bitsandbytes-nf4", "--api-key", "k"], {})
    ).split("\n")
    assert lines[0] == "Args {"
    assert lines[-1] == "}"
    text = "\n".join(lines)
    assert "    cuda_graphs: Some(\n        [\n            1,\n            2,\n        ],\n    )," in text
    assert "    dtype: Some(\n        BFloat16,\n    )," in text
    assert "    quantize: Some(\n        BitsandbytesNf4,\n    )," in text
    assert "    waiting_served_ratio: 0.3,\n" in text
    assert "    cors_allow_origin: [],\n" in text
    assert 'api_key: Some(\n        "[REDACTED]",\n    ),' in text


@pytest.mark.parametrize(
    ("left", "right", "likeness"), [("martha", "marhta", 17 / 18), ("", "", 1.0), ("a", "", 0.0), ("abc", "xyz", 0.0)]
)
def test_jaro_of_known_pairs(left: str, right: str, likeness: float) -> None:
    """The textbook pair and the empty ones."""
    assert jaro(left, right) == pytest.approx(likeness)
