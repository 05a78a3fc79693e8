"""Probing a service that someone else runs and that cannot be restarted: what requests alone can tell."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import nullcontext
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from harness.catalog.limits import Limits
from harness.drive.judging import judge
from harness.drive.kinds import write_page
from harness.drive.probe_prompts import Lengths, requests_of, token_counter
from harness.drive.probe_result import ProbeOptions, ProbeReport, probe_folder
from harness.engines import APIS, ENGINES
from harness.errors import ServiceError
from harness.load.burst import Patience, send_burst
from harness.measure.run_folder import run_name, write_atomically
from harness.probe import loads
from harness.probe.setting import CHUNK, Bracket, Load, LoadKind, LoadResult, Shape
from harness.serve.serving import RunningService, open_service
from harness.serve.target import Target
from harness.terminal import Progress
from harness.units import format_duration

_MOST_CONCURRENT = 256  # more requests at once than that are not sent to somebody else's service
_LOADS: Mapping[str, LoadKind] = {
    "max_input_tokens": "input",
    "max_total_tokens": "total",
    "max_concurrent_requests": "overload",
}
_UNTOLD = (
    "max_batch_total_tokens, max_batch_prefill_tokens and what the memory holds: they are only in the engine's log,"
    " and finding them needs starts of our own (`harness probe MODEL`)"
)


def probe_url(target: Target, options: ProbeOptions, progress: Progress) -> ProbeReport:
    """Read the limits that the service tells, and hold them against requests at and just beyond them.

    Raises UsageError, ServiceError where nobody answers or nothing of TGI's kind does.
    """
    with open_service(target) as served:
        folder = probe_folder(options, _default_folder(target))
        document = _Asking(served, options, progress).document()
    path = folder / "probe.json"
    write_atomically(path, (json.dumps(document, indent=2, allow_nan=False) + "\n").encode())
    text = _as_text(document)
    write_atomically(folder / "probe.md", (text + "\n").encode())
    write_page(folder)
    return ProbeReport(document, path, text)


def _default_folder(target: Target) -> Path:
    place = urlsplit(target.url or "").netloc or "service"
    return Path("reports") / run_name(datetime.now(timezone.utc), place, None, "probe")


class _Asking:
    def __init__(self, served: RunningService, options: ProbeOptions, progress: Progress) -> None:
        self.endpoint, self.info, self.limits = served.endpoint, served.info, served.limits
        self.options, self.progress = options, progress
        engine = next((each for each in ENGINES if each.name == self.info.engine), None)
        if engine is None:
            raise ServiceError(
                f"is not an engine that is known here ({self.info.engine}): it tells no limits to check",
                where=self.endpoint.url,
                advice="`harness bench --url` measures it.",
            )
        self.api = APIS[engine.bare_api]
        with token_counter(self.endpoint, self.api) as counter:
            self.ruler = counter.ruler()
            self.counted = counter.by_route and not self.ruler.exact
        self.lengths = Lengths()
        self.results: list[LoadResult] = []
        self.unseen: list[str] = []  # limits that were asked for and not seen at their border

    def document(self) -> dict[str, Any]:
        limits, boundary = self.limits, {}
        for name, bracket in (
            ("max_input_tokens", self._input()),
            ("max_total_tokens", self._total()),
            ("max_concurrent_requests", None if self.options.quick else self._concurrency()),
        ):
            if bracket is not None and bracket != Bracket():
                boundary[name] = bracket
            elif bracket is not None:
                self.unseen.append(name)
        return {
            "schema": 1,
            "model": self.info.model_id,
            "engine": f"{self.info.engine} {self.info.version or ''}".strip(),
            "image": None,
            "gpu": None,
            "emulated": self.info.emulated,
            "url": self.endpoint.url,
            "starts": 0,
            "limits": _limits(limits),
            "source": {
                name: "measured" if name in boundary else "derived"
                for name, value in _limits(limits).items()
                if value is not None
            },
            "boundary": {name: bracket.as_json() for name, bracket in boundary.items()},
            "verified_under_load": False,
            "load": {"sent": [result.load.name for result in self.results]},
            "capacity": [],
            "recommended_flags": {},
            "advice": self._advice(boundary),
        }

    def _input(self) -> Bracket | None:
        """The longest prompt that is taken, and one token more."""
        most, total = self.limits.max_input_tokens, self.limits.max_total_tokens
        if most is None or total is None:
            return None
        return self._edge("input", most, lambda tokens: Shape(tokens, max(1, min(8, total - tokens))))

    def _total(self) -> Bracket | None:
        """Prompt and answer together; out of reach where the longest prompt and 1,024 tokens stay below it."""
        most, total = self.limits.max_input_tokens, self.limits.max_total_tokens
        if most is None or total is None or total - most > CHUNK:
            return None
        return self._edge(
            "total", total, lambda tokens: Shape(most, tokens - most) if tokens > most else Shape(most, 1)
        )

    def _edge(self, name: LoadKind, limit: int, shape_of: Any) -> Bracket:
        held, failed = [], []
        for tokens in (limit, limit + 1):
            result = self._send(Load(name, ((shape_of(tokens),),), history=tokens, leave_after_tokens=1))
            if result.verdict == "held":
                held.append(tokens)
            elif _is_refused_as_too_long(result, limit):
                failed.append((tokens, result.reason or "refused"))
        # Only both together are a limit: a service that refuses everything, or nothing, has told none.
        return Bracket.of(held, failed) if held and failed else Bracket()

    def _concurrency(self) -> Bracket | None:
        """A few requests more than the concurrency limit: the rest is refused at once (429)."""
        concurrency = self.limits.max_concurrent_requests
        if concurrency is None or concurrency > _MOST_CONCURRENT:
            return None
        lasting = max(1, min(256, (self.limits.max_total_tokens or 256) - loads.SHORT - 7))
        result = self._send(loads.overload(concurrency, lasting))
        carried = len(result.load.shapes) - result.refused
        if result.verdict != "held" or not result.refused or carried != concurrency:
            return Bracket()
        return Bracket.of([carried], [(carried + 1, "429 Model is overloaded")])

    def _send(self, load: Load) -> LoadResult:
        self.progress(f"{load.name} ...")
        with token_counter(self.endpoint, self.api) if self.counted else nullcontext() as counter:
            waves = requests_of(load, self.ruler, salt=load.name, counter=counter, lengths=self.lengths)
        burst = send_burst(
            self.endpoint, self.api, waves, leave_after_tokens=load.leave_after_tokens, patience=Patience(120, 300)
        )
        self.lengths.hear(burst.answers)
        result = judge(load, burst)
        if result.verdict == "stalled":
            raise ServiceError(
                f"nobody got a token for {format_duration(120)} although requests wait",
                where=self.endpoint.url,
                advice="Its queue may have stopped for ever: restart it.",
            )
        self.progress(f"{load.name}: {result.verdict}" + (f" ({result.reason})" if result.reason else ""))
        self.results.append(result)
        return result

    def _came(self, name: str) -> str:
        """What came of the requests at a limit, as an ending of a sentence."""
        told = [
            f"{each.load.name}: {each.reason or each.verdict}"
            for each in self.results
            if each.load.kind == _LOADS[name]
        ]
        return f" ({'; '.join(told)})" if told else ""

    def _advice(self, boundary: Mapping[str, Bracket]) -> list[str]:
        lines = [f"Requests alone cannot tell {_UNTOLD}."]
        if said := self.lengths.sentence(self.ruler):
            lines.append(said)
        concurrency = self.limits.max_concurrent_requests
        if concurrency is not None and "max_concurrent_requests" not in (*boundary, *self.unseen):
            lines.append(
                f"max_concurrent_requests is {concurrency:,} as it says itself; that many were not sent at once."
            )
        lines += [
            f"{name} is by the service's own word only: requests at the limit and beyond it were not taken and refused"
            f" for that reason{self._came(name)}."
            for name in self.unseen
        ]
        return lines


def _is_refused_as_too_long(result: LoadResult, limit: int) -> bool:
    """A refusal that names the limit; one of a busy or broken service says nothing of lengths."""
    digits = re.sub(r"[,_ ]", "", result.reason or "")
    return result.verdict == "refused" and not result.refused and str(limit) in digits


def _limits(limits: Limits) -> dict[str, int | None]:
    return {
        "max_batch_total_tokens": limits.max_batch_total_tokens,
        "max_input_tokens": limits.max_input_tokens,
        "max_total_tokens": limits.max_total_tokens,
        "max_batch_prefill_tokens": limits.max_batch_prefill_tokens,
        "max_batch_size": limits.max_batch_size,
        "max_concurrent_requests": limits.max_concurrent_requests,
    }


def _as_text(document: Mapping[str, Any]) -> str:
    lines = [f"{document['model']} at {document['url']}, {document['engine']}", ""]
    for name, value in document["limits"].items():
        bracket = document["boundary"].get(name)
        checked = ""
        if bracket is not None:
            checked = f"  (held at {bracket['largest_ok']}, refused at {bracket['smallest_failed']})"
        lines.append(f"  {name}: {'not told' if value is None else f'{value:,}'}{checked}")
    return "\n".join([*lines, "", *(f"- {line}" for line in document["advice"])])
