"""Command lines of the other engines: every option is known by name, a few are understood, a wrong one is refused.

flags/*.txt hold the names. vLLM and SGLang read their arguments with argparse, and so does this; llama.cpp has a parser
of its own. The emulator's own options come on top, with a variable each, so that a container can be told.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from harness.catalog.gpus import find_gpu
from harness.emulator.boot import BootTimes
from harness.emulator.scenario import Scenario, read_scenario
from harness.errors import HarnessError, UsageError

OWN = {
    "gpu": "GPU by its name in the catalogue",
    "gpus": "number of GPUs that there are",
    "truth": "file to write the hidden truth to",
    "scenario": "YAML or JSON file with a different world and with faults",
    "boot-seconds": "seconds of download, loading and warm-up (one number, or three)",
    "speed": "factor by which everything runs faster",
}


@dataclass(frozen=True)
class Flag:
    """One option with all its names, the first for messages. kind: see flags/*.txt. variable: of its environment."""

    names: tuple[str, ...]
    kind: str
    variable: str | None = None


def flags_of(engine: str) -> tuple[Flag, ...]:
    """Every option that this engine knows."""
    text = files("harness.emulator.faces").joinpath(f"flags/{engine}.txt").read_text(encoding="utf-8")
    found = []
    for line in text.splitlines():
        if not line.startswith("#"):
            kind, *words = line.split()
            variable = words.pop().removeprefix("env=") if words[-1].startswith("env=") else None
            found.append(Flag(tuple(words), kind, variable))
    return tuple(found)


@dataclass(frozen=True)
class EmulatorOptions:
    """The emulator's own options."""

    gpu: str | None = None
    gpus: int | None = None
    truth: str | None = None
    scenario: Scenario = field(default_factory=Scenario)
    boot: BootTimes = field(default_factory=BootTimes)
    speed: float = 1.0


def read_own(values: Mapping[str, str | None], environment: Mapping[str, str]) -> EmulatorOptions:
    """Those of the command line, else of the environment. Raises UsageError."""

    def text(name: str) -> str | None:
        return values.get(name) or environment.get(f"HARNESS_EMULATOR_{name.upper().replace('-', '_')}")

    gpu, gpus, speed = text("gpu"), text("gpus"), text("speed") or "1"
    try:
        if gpu is not None:
            find_gpu(gpu)
        own = EmulatorOptions(
            gpu=gpu,
            gpus=None if gpus is None else int(gpus),
            truth=text("truth"),
            scenario=read_scenario(text("scenario")),
            boot=BootTimes.parse(text("boot-seconds")),
            speed=float(speed),
        )
    except ValueError as error:
        raise UsageError(str(error), where="the emulator's own options") from error
    if not own.speed > 0:
        raise UsageError("--speed: expected a number above 0")
    return own


def argparse_reader(
    engine: str, prog: str, types: Mapping[str, Callable[[str], Any]], choices: Mapping[str, Sequence[str]]
) -> argparse.ArgumentParser:
    """A parser that knows every option of the engine. types, choices: by the name that a value is stored under."""
    parser = argparse.ArgumentParser(prog=prog, usage=f"{prog} [options]", add_help=True)
    for flag in flags_of(engine):
        name = flag.names[0].removeprefix("--").replace("-", "_")
        more: dict[str, Any] = {"dest": name, "help": argparse.SUPPRESS}
        if flag.kind == "switch":
            more |= {"action": "store_true", "default": None}
        elif flag.kind == "pair":
            more |= {"action": argparse.BooleanOptionalAction}
        else:
            more |= {"type": types.get(name, str), "choices": choices.get(name)}
            if flag.kind != "value":
                more["nargs"] = {"list": "+", "maybe": "?"}[flag.kind]
        parser.add_argument(*flag.names, **more)
    group = parser.add_argument_group("emulated")
    for name, text in OWN.items():
        group.add_argument(f"--{name}", dest=f"own_{name}", help=text)
    return parser


def own_values(parsed: argparse.Namespace) -> dict[str, str | None]:
    """The emulator's own options out of all."""
    return {name: getattr(parsed, f"own_{name}") for name in OWN}


def given(parsed: argparse.Namespace) -> dict[str, Any]:
    """The engine's own options that were given."""
    return {name: value for name, value in vars(parsed).items() if value is not None and not name.startswith("own_")}


def whole(text: str) -> int:
    """As Python's own `int` in an argparse message."""
    return int(text)


whole.__name__ = "int"


def usage_error(error: HarnessError) -> str:
    """The line for a mistake in the emulator's own options."""
    return f"error: {error}\n"
