"""llama-server's routes, stream frames, slots and metrics page."""

from __future__ import annotations

import asyncio
import random
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.emulator.faces.answers import AnswerRequest, Generation, PoolEngine
from harness.emulator.faces.asking import Fields, ParsedRequest, Wrong, chat_ids, chat_text
from harness.emulator.faces.openai import Serving, Stream
from harness.emulator.faces.run import Face
from harness.emulator.faces.wire import FaceApp, Problem, Web, compact, now
from harness.emulator.http import Connection, Exchange
from harness.emulator.model import ServedModel
from harness.emulator.rust import text as quoted
from harness.emulator.sse import Shaper
from harness.simulator.laws import Pool
from harness.simulator.policies import LlamaScheduler, PoolCall
from harness.simulator.policies.base import FailedAnswer
from harness.simulator.policies.llamacpp import Slot
from harness.simulator.scheduler import Emission

_KINDS = {
    400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error", 500: "server_error",
    501: "not_supported_error", 503: "unavailable_error",
}  # fmt: skip
LOADING = Problem(503, "Loading model", "unavailable_error")
_LETTERS = string.ascii_letters + string.digits
_REQUESTS, _IDLE = 100, 5.0  # answers of one connection, and seconds until an idle one is closed


def _error(problem: Problem) -> dict[str, Any]:
    kind = problem.kind or _KINDS.get(problem.status, "server_error")
    if problem.status in (401, 404, 503):  # written elsewhere in llama.cpp, in another order
        return {"error": {"message": problem.text, "type": kind, "code": problem.status}}
    return {"error": {"code": problem.status, "message": problem.text, "type": kind, **problem.more}}


def error_text(problem: Problem) -> str:
    return compact(_error(problem)).decode()


WEB = Web(
    (("server", "llama.cpp"),),
    _error,
    Problem(404, "File Not Found"),
    Problem(404, "File Not Found"),
    (401, _error(Problem(401, "Invalid API Key"))),
    lambda path: path not in ("/health", "/v1/health"),
    (("content-type", "text/event-stream"), ("x-accel-buffering", "no")),
    close_errors=True,
)


def _wrong(name: str, found: Any, expected: str) -> Problem:
    if name == "messages" and isinstance(found, dict) and "role" not in found:
        return Problem(500, f"Failed to parse messages: Missing 'role' in message: {compact(found).decode()}")
    if found is None:
        chat = name == "messages"
        return Problem(400, f"'{name}' is required" if chat else f"{_JSON}.out_of_range.403] key '{name}' not found")
    type_ = _TYPES.get(expected)
    if type_ is not None:
        have = next(text for kind, text in _FOUND if isinstance(found, kind))
        return Problem(400, f"Field '{name}': {_JSON}.type_error.302] type must be {type_}, but is {have}")
    return Problem(400, f"Field '{name}': expected {expected}, got {compact(found).decode()}")


_JSON = "[json.exception"
_TYPES = {"integer": "number", "boolean": "boolean", "string": "string", "list of strings": "string", "list": "array"}
_FOUND = (
    (bool, "boolean"),
    (int, "number"),
    (float, "number"),
    (str, "string"),
    (list, "array"),
    (dict, "object"),
)


class LlamaApp(FaceApp):
    """Open before the model is loaded; its routes come with the model."""

    def __init__(self, keys: tuple[str, ...], shaper: Callable[[], Shaper | None]) -> None:
        super().__init__(WEB, {}, keys, shaper)

    def use(self, serving: LlamaServing) -> None:
        """The model is loaded."""
        self.set_routes(serving.routes())
        self.ready = True

    def cross_origin(self, exchange: Exchange) -> list[tuple[str, str]]:
        origin = ("access-control-allow-origin", exchange.headers.get("origin", ""))
        alive = [("keep-alive", f"timeout={_IDLE:.0f}, max={_REQUESTS}")] if exchange.keep_alive else []
        return [*super().cross_origin(exchange), origin, *alive]


class LimitedConnection(Connection):
    """A connection that ends after a hundred answers, and after five idle seconds."""

    def __init__(self, app: FaceApp, nodelay: bool) -> None:
        super().__init__(app, nodelay)
        self._answers = 0
        self._idle: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._rest()

    def data_received(self, data: bytes) -> None:
        if self._idle is not None:
            self._idle.cancel()
        super().data_received(data)

    def answered(self, exchange: Exchange) -> None:
        self._answers += 1
        super().answered(exchange)
        self.closing = self._answers >= _REQUESTS - 1
        self._rest()

    def _rest(self) -> None:
        self._idle = asyncio.get_running_loop().call_later(_IDLE, self._tired)

    def _tired(self) -> None:
        if self._current is None:
            self.transport.close()


class LlamaServing(Serving):
    """The routes of one server, and what it counts."""

    begins_chats = True

    def __init__(
        self,
        face: Face,
        values: Mapping[str, Any],
        model: ServedModel,
        engine: PoolEngine,
        pool: Pool,
        build: str,
        log: Callable[..., None],
    ) -> None:
        aliases = sorted(each for each in str(values.get("--alias", "")).split(",") if each)
        self.path = values.get("--model") or values.get("--hf-repo") or model.name
        super().__init__(face, model, engine, pool, aliases[0] if aliases else self.path)
        self.aliases = aliases or [self.path]
        assert isinstance(engine.scheduler, LlamaScheduler)
        self.values, self.build, self.log = values, build, log
        self.scheduler: LlamaScheduler = engine.scheduler
        engine.watch = self
        self._counters = dict.fromkeys(_COUNTERS, 0.0)
        self._since = [0.0, 0.0, 0.0, 0.0]  # prompt tokens, their seconds, tokens, theirs: since the last scrape
        self._busy = 0

    def routes(self) -> dict[tuple[str, str], Any]:
        chat, complete = self.chat, self.complete
        return {
            ("GET", "/health"): self.health,
            ("GET", "/v1/health"): self.health,
            ("GET", "/props"): self.props,
            ("GET", "/models"): self.models,
            ("GET", "/v1/models"): self.models,
            ("GET", "/slots"): self.slots,
            ("GET", "/metrics"): self.metrics,
            ("POST", "/tokenize"): self.tokenize,
            ("POST", "/detokenize"): self.detokenize,
            ("POST", "/apply-template"): self.apply_template,
            ("POST", "/v1/chat/completions/input_tokens"): self.count,
            ("POST", "/chat/completions"): chat,
            ("POST", "/v1/chat/completions"): chat,
            ("POST", "/v1/completions"): complete,
        }

    # Pages.

    async def health(self, exchange: Exchange, _: Any) -> None:
        await self.slow()
        self.json(exchange, {"status": "ok"})

    def props(self, exchange: Exchange, _: Any) -> None:
        settings = {"params": {"seed": 4294967295, "temperature": 0.8, "n_predict": -1}, "n_ctx": self.pool.context}
        told = {
            "default_generation_settings": settings, "total_slots": self.pool.rows, "model_alias": self.name,
            "model_path": self.path, "modalities": {"vision": False, "audio": False},
            "endpoint_slots": self.values.get("--slots") is not False, "endpoint_props": False,
            "endpoint_metrics": bool(self.values.get("--metrics")), "chat_template": "", "bos_token": "<s>",
            "eos_token": "</s>", "build_info": self.build, "is_sleeping": False,
        }  # fmt: skip
        self.json(exchange, told)

    def models(self, exchange: Exchange, _: Any) -> None:
        shape = self.model.shape
        sizes = {"n_ctx": self.pool.context, "n_ctx_train": shape.context, "n_embd": shape.hidden}
        entry = {"name": self.name, "model": self.name, "capabilities": ["completion"], "details": {"format": "gguf"}}
        card = {
            "id": self.name, "aliases": self.aliases, "tags": [], "object": "model", "created": now(),
            "owned_by": "llamacpp", "meta": {"n_vocab": shape.vocab, **sizes},
        }  # fmt: skip
        self.json(exchange, {"models": [entry], "object": "list", "data": [card]})

    def slots(self, exchange: Exchange, _: Any) -> None:
        if self.values.get("--slots") is False:
            raise Problem(501, "This server does not support slots endpoint. Start it with `--slots`")
        self.json(exchange, [self._slot(slot) for slot in self.scheduler.slots])

    def _slot(self, slot: Slot) -> dict[str, Any]:
        request = slot.request
        told: dict[str, Any] = {
            "id": slot.id, "n_ctx": self.pool.context, "speculative": False, "is_processing": request is not None,
        }  # fmt: skip
        if request is None:
            return told if slot.used_at < 0 else {**told, "n_prompt_tokens": len(slot.left)}
        left = request.max_new_tokens - request.generated
        going = {"has_next_token": True, "has_new_line": False, "n_remain": left, "n_decoded": request.generated}
        return {
            **told, "id_task": slot.used_at, "n_prompt_tokens": request.length,
            "n_prompt_tokens_processed": min(request.computed, request.input_length) - request.cached_tokens,
            "n_prompt_tokens_cache": request.cached_tokens, "params": {}, "next_token": [going],
        }  # fmt: skip

    def metrics(self, exchange: Exchange, _: Any) -> None:
        if not self.values.get("--metrics"):
            raise Problem(501, "This server does not support metrics endpoint. Start it with `--metrics`")
        prompt, prompt_seconds, made, seconds = self._since
        self._since = [0.0, 0.0, 0.0, 0.0]
        steps = self.scheduler.steps
        gauges = {
            "prompt_tokens_seconds": prompt / prompt_seconds if prompt_seconds else 0.0,
            "predicted_tokens_seconds": made / seconds if seconds else 0.0,
            "requests_processing": self.scheduler.running,
            "requests_deferred": self.scheduler.queue_size,
            "n_busy_slots_per_decode": self._busy / steps if steps else 0.0,
        }
        counters = {**self._counters, "n_decode_total": steps}
        lines = []
        for kind, values in (("counter", counters), ("gauge", gauges)):
            for name, value in values.items():
                shown = f"{value:.6g}"
                lines += [
                    f"# HELP llamacpp:{name} {name}",
                    f"# TYPE llamacpp:{name} {kind}",
                    f"llamacpp:{name} {shown}",
                ]
        plain = [("content-type", "text/plain; version=0.0.4")]
        self.app(exchange).respond(exchange, 200, ("\n".join(lines) + "\n").encode(), plain)

    # Counting tokens.

    def tokenize(self, exchange: Exchange, body: Any) -> None:
        text = Fields(body, _wrong).text("content") or ""
        encoding = self.model.tokenizer.encode(text, special_tokens=bool(body.get("add_special")))
        if body.get("with_pieces"):
            pairs = zip(encoding.ids, encoding.pieces, strict=True)
            self.json(exchange, {"tokens": [{"id": number, "piece": piece} for number, piece in pairs]})
            return
        self.json(exchange, {"tokens": encoding.ids})

    def detokenize(self, exchange: Exchange, body: Any) -> None:
        self.json(exchange, {"content": "".join(map(self.model.tokenizer.text_of, body.get("tokens") or []))})

    def apply_template(self, exchange: Exchange, body: Any) -> None:
        self.json(exchange, {"prompt": chat_text(body, self.model, _wrong)})

    def count(self, exchange: Exchange, body: Any) -> None:
        count = len(chat_ids(body, self.model, _wrong, special_tokens=self.begins_chats))
        self.json(exchange, {"input_tokens": count, "object": "response.input_tokens"})

    # What is refused.

    def wrong(self) -> Wrong:
        return _wrong

    def echoed(self, body: Any) -> str:
        return self.name

    def number(self, exchange: Exchange, *, chat: bool) -> str:
        return "chatcmpl-" + "".join(random.choices(_LETTERS, k=32))

    def wanted(self, asked: ParsedRequest, body: Any) -> AnswerRequest:
        prompt, context = len(asked.ids), self.pool.context
        if prompt >= context:
            text = f"request ({prompt} tokens) exceeds the available context size ({context} tokens), try increasing it"
            raise Problem(400, text, "exceed_context_size_error", n_prompt_tokens=prompt, n_ctx=context)
        most = asked.most if asked.most is not None else Fields(body, _wrong).whole("n_predict")
        if most is None:
            most = self.values.get("--predict", -1)
        if most < -1:
            text = f"Field 'max_tokens': Value must be between -1 <= value <= 2147483647, but got {most}"
            raise Problem(400, text)
        # The answer simply ends where the slot is full.
        most = context - prompt if most == -1 else min(max(most, 1), context - prompt)
        cacheable = body.get("cache_prompt") is not False
        ignore = asked.ignore_eos or bool(self.values.get("--ignore-eos"))
        return AnswerRequest(asked.ids, most, 0, ignore, asked.stop, asked.seed, cacheable)

    # Answers.

    def timings(self, generation: Generation) -> dict[str, Any]:
        """What the server itself measured of a request so far."""
        turn, moment = generation.turn, self.engine.moment
        taken, first = turn.taken_at or moment, turn.first_token_at or moment
        computed, prompt_ms = turn.input_length - turn.cached_tokens, max(1e-3, (first - taken) * 1e3)
        made, made_ms = turn.generated, max(1e-3, (moment - first) * 1e3)
        each = made_ms / (made - 1) if made > 1 else 0.0
        return {
            "cache_n": turn.cached_tokens, "prompt_n": computed, "prompt_ms": prompt_ms,
            "prompt_per_token_ms": prompt_ms / computed, "prompt_per_second": 1e3 * computed / prompt_ms,
            "predicted_n": made, "predicted_ms": made_ms, "predicted_per_token_ms": each,
            "predicted_per_second": 1e3 / each if each else 0.0,
        }  # fmt: skip

    def usage(self, generation: Generation) -> dict[str, Any]:
        turn = generation.turn
        total, details = turn.input_length + turn.generated, {"cached_tokens": turn.cached_tokens}
        counts = {"completion_tokens": turn.generated, "prompt_tokens": turn.input_length, "total_tokens": total}
        return {**counts, "prompt_tokens_details": details}

    def whole(self, generation: Generation, text: str, asked: ParsedRequest, number: str, name: str) -> Any:
        choice: dict[str, Any] = {"finish_reason": generation.turn.stop_reason, "index": 0}
        choice |= {"message": {"role": "assistant", "content": text}} if asked.chat else {"text": text}
        logprobs = self.logprobs(generation, asked)
        choice |= {} if logprobs is None and asked.chat else {"logprobs": logprobs}
        kind = self.chat_kind if asked.chat else self.text_kind
        about = {"created": now(), "model": name, "system_fingerprint": self.build, "object": kind}
        told = {"usage": self.usage(generation), "id": number, "timings": self.timings(generation)}
        return {"choices": [choice], **about, **told}

    async def stream(
        self, exchange: Exchange, asked: ParsedRequest, wanted: AnswerRequest, number: str, name: str, entered: float
    ) -> None:
        """Not a byte before a slot begins with it."""
        stream = LlamaStream(self, asked, number, name)
        stream.opener = lambda: stream.open(self.app(exchange).stream(exchange))
        stream.begin(exchange, self.engine, wanted, entered)

    def new_stream(self, asked: ParsedRequest, number: str, name: str) -> Stream:
        return LlamaStream(self, asked, number, name)

    # What it counts and logs.

    def step(self, call: PoolCall, emissions: Sequence[Emission], seconds: float) -> None:
        self._busy += len(call.rows)

    def ended(self, generation: Generation) -> None:
        """Counters move when a request ends, not before."""
        turn, counters = generation.turn, self._counters
        if turn.first_token_at is None:
            return
        told = self.timings(generation)
        seconds = (told["prompt_ms"] / 1e3, told["predicted_ms"] / 1e3)
        counters["prompt_tokens_total"] += told["prompt_n"]
        counters["prompt_tokens_cached_total"] += told["cache_n"]
        counters["prompt_seconds_total"] += seconds[0]
        counters["tokens_predicted_total"] += told["predicted_n"]
        counters["tokens_predicted_seconds_total"] += seconds[1]
        counters["n_tokens_max"] = max(counters["n_tokens_max"], turn.length)
        more = (told["prompt_n"], seconds[0], told["predicted_n"], seconds[1])
        self._since = [old + new for old, new in zip(self._since, more, strict=True)]
        mark = f"id {turn.place:2d} | task {turn.id} | "
        for name, half in (("prompt eval time", "prompt"), ("       eval time", "predicted")):
            ms, count, each, rate = (told[f"{half}_{of}"] for of in ("ms", "n", "per_token_ms", "per_second"))
            text = (
                f"{name} = {ms:10.2f} ms / {count:5d} tokens ({each:8.2f} ms per token, {rate:8.2f} tokens per second)"
            )
            self.log(f"{mark}{text}", "print_timing", "slot")
        ms, count = (told[f"prompt_{of}"] + told[f"predicted_{of}"] for of in ("ms", "n"))
        self.log(f"{mark}     total time = {ms:10.2f} ms / {count:5d} tokens", "print_timing", "slot")
        cut = int(turn.length >= self.pool.context)
        text = f"{mark}stop processing: n_tokens = {turn.length - 1}, truncated = {cut}"
        self.log(text, "release", "slot")

    def engine_failed(self, failed: FailedAnswer) -> Problem:
        self.log(f"task id = {failed.request.id}, error: {failed.text}", "send_error", letter="E", level=1)
        return Problem(failed.status, failed.text)

    def broken(self, text: str) -> Problem:
        return Problem(500, text)


_COUNTERS = (
    "prompt_tokens_total", "prompt_tokens_cached_total", "prompt_seconds_total", "tokens_predicted_total",
    "tokens_predicted_seconds_total", "n_tokens_max", "spec_decode_num_draft_tokens_total",
    "spec_decode_num_accepted_tokens_total", "spec_decode_num_drafts_total",
)  # fmt: skip


class LlamaStream(Stream):
    """A role frame and a frame a token; the end, and the usage, each in a frame of its own, with what was measured."""

    serving: LlamaServing
    opener: Callable[[], None]

    def __init__(self, serving: LlamaServing, asked: ParsedRequest, number: str, name: str) -> None:
        super().__init__(serving, asked, number, name)
        kind = f"{serving.chat_kind}.chunk" if asked.chat else serving.text_kind
        number = f',"id":{quoted(number)}'
        about = f'"model":{quoted(name)},"system_fingerprint":{quoted(serving.build)},"object":"{kind}"'
        self.tail = f'],"created":{now()}{number if asked.chat else ""},{about}'
        self.late = "" if asked.chat else number  # behind the usage

    def started(self, generation: Generation) -> None:
        self.opener()

    def send(self, choices: str, usage: str = "", measured: str = "") -> None:
        self.frames.send(f'{{"choices":[{choices}{self.tail}{usage}{self.late}{measured}}}')

    def measured(self, generation: Generation) -> str:
        return f',"timings":{compact(self.serving.timings(generation)).decode()}'

    def token(self, generation: Generation, index: int, finished: str | None) -> None:
        if index == 0 and self.asked.chat:
            self.send('{"finish_reason":null,"index":0,"delta":{"role":"assistant","content":null}}')
        text = generation.next_text(index)
        if text:
            measured = self.measured(generation) if self.asked.timed else ""
            self.send(self.piece(text, generation, index), measured=measured)
        if finished is not None:
            self.close(generation, finished)

    def piece(self, text: str, generation: Generation, index: int) -> str:
        if not self.asked.chat:
            return f'{{"text":{quoted(text)},"index":0,"logprobs":null,"finish_reason":null}}'
        logprobs = self.logprob(generation, index)
        shown = "" if logprobs == "null" else f',"logprobs":{logprobs}'
        return f'{{"finish_reason":null,"index":0,"delta":{{"content":{quoted(text)}}}{shown}}}'

    def close(self, generation: Generation, finished: str) -> None:
        measured = self.measured(generation)
        usage = f',"usage":{compact(self.serving.usage(generation)).decode()}'
        if not self.asked.chat:
            self.send(f'{{"text":"","index":0,"logprobs":null,"finish_reason":"{finished}"}}', usage, measured)
        else:
            end = f'{{"finish_reason":"{finished}","index":0,"delta":{{}}}}'
            self.send(end, measured="" if self.asked.usage else measured)
            if self.asked.usage:
                self.send("", usage, measured)
        self.end()

    def failed(self, generation: Generation | None, problem: Problem) -> None:
        self.frames.send(error_text(problem))
        self.end(done=False)
