"""SGLang's routes, stream frames and metric names."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import Any

from harness.emulator.faces.answers import AnswerRequest, Generation, PoolEngine
from harness.emulator.faces.asking import ParsedRequest, Wrong, chat_ids, prompt_ids, strings
from harness.emulator.faces.counting import Counts
from harness.emulator.faces.openai import Serving, Stream, counts
from harness.emulator.faces.page import CONTENT_TYPE, Page
from harness.emulator.faces.run import Face
from harness.emulator.faces.wire import Problem, Web, compact, now
from harness.emulator.http import Exchange
from harness.emulator.model import ServedModel
from harness.emulator.rust import text as quoted
from harness.simulator.laws import Pool, SglangPlan
from harness.simulator.policies import PoolCall, SglangScheduler
from harness.simulator.policies.base import FailedAnswer
from harness.simulator.policies.sglang import QUEUE_FULL
from harness.simulator.scheduler import Emission
from harness.units import GIB

VERSION = "0.5.23"
_NAMES = {
    "running": "num_running_reqs", "waiting": "num_queue_reqs", "kv_share": "token_usage",
    "kv_tokens": "num_used_tokens", "put_back": "num_retracted_requests", "prompts": "prompt_tokens",
    "tokens": "generation_tokens", "first": "time_to_first_token_seconds", "between": "inter_token_latency_seconds",
    "per_token": "request_time_per_output_token_seconds", "total": "e2e_request_latency_seconds",
    "queued": "queue_time_seconds",
}  # fmt: skip
_STATUS = {400: "BAD_REQUEST", 500: "INTERNAL_SERVER_ERROR", 503: "SERVICE_UNAVAILABLE"}
_FLUSHED = (
    "Cache flushed.\nPlease check backend logs for more details. (When there are running or waiting requests, the"
    " operation will not be performed.)\n"
)
_PATIENCE = 20.0  # seconds that /health waits for a sign of life (SGLANG_HEALTH_CHECK_TIMEOUT)


def _error(problem: Problem) -> dict[str, Any]:
    kind = problem.kind or ("BadRequestError" if problem.status == 400 else str(problem.status))
    return {"object": "error", "message": problem.text, "type": kind, "param": problem.param, "code": problem.status}


def error_text(problem: Problem) -> str:
    """As a stream carries it: with spaces, one level deeper, and the status by its name."""
    inner = {**_error(problem), "type": problem.kind or _STATUS.get(problem.status, "BAD_REQUEST")}
    return json.dumps({"error": inner})


WEB = Web(
    (("server", "uvicorn"),),
    _error,
    Problem(404, "Not Found"),
    Problem(405, "Method Not Allowed"),
    (401, {"error": "Unauthorized"}),
    lambda path: not path.startswith(("/health", "/ready", "/metrics")),
)


def _wrong(name: str, found: Any, expected: str) -> Problem:
    return Problem(400, f"[{{'loc': ('body', '{name}'), 'msg': 'Input should be a valid {expected}'}}]", "Bad Request")


class SglangServing(Serving):
    """The routes of one server, and what it counts. ready: its warm-up is over, and nobody ends it."""

    def __init__(
        self,
        face: Face,
        args: argparse.Namespace,
        model: ServedModel,
        engine: PoolEngine,
        pool: Pool,
        plan: SglangPlan,
        log: Callable[[str], None],
    ) -> None:
        super().__init__(face, model, engine, pool, args.served_model_name or args.model_path)
        assert isinstance(engine.scheduler, SglangScheduler)
        self.args, self.plan, self.log, self.ready = args, plan, log, False
        self.scheduler: SglangScheduler = engine.scheduler
        engine.watch = self
        ranks = {"tp_rank": "0", "pp_rank": "0", "moe_ep_rank": "0"}
        page = self.page = Page("sglang:", {"model_name": self.name, "engine_type": "unified"})
        self.tally = Counts(engine, page, _NAMES)
        cached = page.family("cached_tokens", "Prompt tokens that were not computed", "cache_source", ("device",))
        self.cached = cached["device"]
        self.requests = page.counter("num_requests", "Requests that were answered")
        self.aborted = page.counter("num_aborted_requests", "Requests that were aborted")
        self._gauges(page, ranks)
        self._decodes, self._since, self._made = 0, 0.0, 0
        self._retracted, self._ratio = 0, self.scheduler.new_token_ratio

    def _gauges(self, page: Page, ranks: dict[str, str]) -> None:
        scheduler, pool = self.scheduler, self.pool
        told = {
            "max_total_num_tokens": lambda: pool.tokens,
            "context_len": lambda: self.plan.context,
            "page_size": lambda: pool.block_size,
            "kv_used_tokens": lambda: scheduler.pool.used,
            "kv_available_tokens": lambda: scheduler.pool.free,
            "kv_evictable_tokens": lambda: scheduler.pool.tree.evictable,
            "num_retracted_reqs": lambda: self._retracted,
            "new_token_ratio": lambda: scheduler.new_token_ratio,
            "cache_hit_rate": lambda: scheduler.found / max(1, scheduler.queried),
            "weight_memory_usage_gb": lambda: self.plan.machine.weights / GIB,
            "kv_cache_memory_usage_gb": lambda: pool.part("KV cache") / GIB,
        }
        for name, value in told.items():
            page.gauge(name, name.replace("_", " "), value, **ranks)

    def routes(self) -> dict[tuple[str, str], Any]:
        return {
            ("GET", "/"): lambda exchange, _: self.json(exchange, "SGLang is running"),
            ("GET", "/health"): self.health,
            ("GET", "/health_generate"): self.health,
            ("GET", "/ready"): self.readiness,
            ("GET", "/v1/models"): self.models,
            ("GET", "/model_info"): self.model_info,
            ("GET", "/get_model_info"): self.model_info,
            ("GET", "/server_info"): self.server_info,
            ("GET", "/get_server_info"): self.server_info,
            ("GET", "/v1/loads"): self.loads,
            **({("GET", "/metrics"): self.metrics} if self.args.enable_metrics else {}),
            ("GET", "/flush_cache"): self.flush,
            ("POST", "/flush_cache"): self.flush,
            ("POST", "/tokenize"): self.tokenize,
            ("POST", "/v1/tokenize"): self.tokenize,
            ("POST", "/detokenize"): lambda exchange, body: self.json(
                exchange, {"text": "".join(strings(body.get("tokens") or [], self.model))}
            ),
            ("POST", "/v1/chat/completions"): self.chat,
            ("POST", "/v1/completions"): self.complete,
        }

    # Pages.

    async def health(self, exchange: Exchange, _: Any) -> None:
        """A sign of life of the scheduler, looked for once a second."""
        await self.slow()
        second = 1.0 / self.face.own.speed
        steps, waited = self.scheduler.steps, 0.0
        alive = False
        while self.ready and not alive and not self.engine.dead and waited < _PATIENCE:
            await asyncio.sleep(second)
            waited += 1.0
            alive = self.scheduler.idle or self.scheduler.steps > steps
        self.app(exchange).respond(exchange, 200 if alive and self.ready else 503, b"", [])

    def readiness(self, exchange: Exchange, _: Any) -> None:
        self.app(exchange).respond(exchange, 200 if self.ready and not self.engine.dead else 503, b"", [])

    def models(self, exchange: Exchange, _: Any) -> None:
        card = {
            "id": self.name, "object": "model", "created": self.created, "owned_by": "sglang", "root": self.name,
            "parent": None, "max_model_len": self.plan.context,
        }  # fmt: skip
        self.json(exchange, {"object": "list", "data": [card]})

    def model_info(self, exchange: Exchange, _: Any) -> None:
        kind = self.model.shape.model_type
        told = {
            "model_path": self.args.model_path, "served_model_name": self.name, "tokenizer_path": self.args.model_path,
            "is_generation": True, "preferred_sampling_params": None, "weight_version": "default",
            "has_image_understanding": False, "model_type": kind, "architectures": [f"{kind.capitalize()}ForCausalLM"],
        }  # fmt: skip
        self.json(exchange, told)

    def server_info(self, exchange: Exchange, _: Any) -> None:
        plan, pool, args = self.plan, self.pool, self.args
        told = {
            "model_path": args.model_path, "served_model_name": self.name, "context_length": args.context_length,
            "mem_fraction_static": plan.fraction, "chunked_prefill_size": plan.chunk,
            "max_prefill_tokens": plan.max_prefill_tokens, "page_size": plan.page_size, "tp_size": plan.machine.shards,
            "max_running_requests": pool.rows, "max_queued_requests": args.max_queued_requests,
            "disable_radix_cache": bool(args.disable_radix_cache), "enable_metrics": bool(args.enable_metrics),
            "kv_cache_dtype": args.kv_cache_dtype or "auto", "quantization": args.quantization,
            "max_total_num_tokens": pool.tokens, "max_req_input_len": pool.max_prompt, "startup_time": 0.0,
            "internal_states": [{"effective_max_running_requests_per_dp": pool.rows}], "version": VERSION,
            "frontend": "python",
        }  # fmt: skip
        self.json(exchange, told)

    def loads(self, exchange: Exchange, _: Any) -> None:
        scheduler, pool = self.scheduler, self.pool
        load = {
            "dp_rank": 0, "num_running_reqs": scheduler.running, "num_waiting_reqs": scheduler.queue_size,
            "num_used_tokens": scheduler.used_tokens, "max_total_num_tokens": pool.tokens,
            "token_usage": round(self.tally.kv_share(), 4), "max_running_requests": pool.rows,
        }  # fmt: skip
        stamp = datetime.now(timezone.utc).isoformat()
        machine = {"accelerator": self.plan.machine.gpu.smi_name, "num_accelerators": self.plan.machine.shards}
        self.json(exchange, {"timestamp": stamp, "version": VERSION, **machine, "loads": [load]})

    def metrics(self, exchange: Exchange, _: Any) -> None:
        self.app(exchange).respond(exchange, 200, self.page.render(), [CONTENT_TYPE])

    def flush(self, exchange: Exchange, _: Any) -> None:
        if not self.scheduler.idle:
            self.app(exchange).respond(exchange, 400, b"Flush cache failed.\n", [])
            return
        self.scheduler.flush()
        self.app(exchange).respond(exchange, 200, _FLUSHED.encode(), [])

    def tokenize(self, exchange: Exchange, body: Any) -> None:
        if "messages" in body:
            ids = chat_ids(body, self.model, _wrong)
        else:
            special = body.get("add_special_tokens", True)
            ids = prompt_ids(body.get("prompt"), self.model, _wrong, special_tokens=special)
        self.json(exchange, {"tokens": ids, "count": len(ids), "max_model_len": self.plan.context})

    # What is refused.

    def wrong(self) -> Wrong:
        return _wrong

    def wanted(self, asked: ParsedRequest, body: Any) -> AnswerRequest:
        prompt, context = len(asked.ids), self.plan.context
        most = asked.most if asked.most is not None or asked.chat else 16
        if prompt >= context:
            text = f"The input ({prompt} tokens) is longer than the model's context length ({context} tokens)."
            raise Problem(400, text)
        if most is not None and prompt + most > context:
            raise Problem(
                400,
                f"Requested token count exceeds the model's maximum context length of {context} tokens. You requested a"
                f" total of {prompt + most} tokens: {prompt} tokens from the input messages and {most} tokens for the"
                " completion. Please reduce the number of tokens in the input messages or the completion to fit within"
                " the limit.",
            )
        if most is not None and most < 1:
            raise Problem(400, f"max_new_tokens must be at least 1, got {most}.")
        longest = self.pool.context - prompt - 1
        most = max(1, longest if most is None else min(most, longest))
        return AnswerRequest(asked.ids, most, asked.least, asked.ignore_eos, asked.stop, asked.seed)

    def admit(self, asked: ParsedRequest) -> None:
        """What the scheduler's process refuses: a stream is told in its first frame."""
        prompt, longest = len(asked.ids), self.pool.max_prompt
        problem = None
        if prompt >= longest:
            text = f"Input length ({prompt} tokens) exceeds the maximum allowed length ({longest} tokens)."
            problem = Problem(400, f"{text} Use a shorter input or enable --allow-auto-truncate.")
        elif self.face.book.refuses():
            problem = Problem(503, QUEUE_FULL)
        elif self.engine.dead:
            problem = self.broken("")
        if problem is not None:
            raise Problem(problem.status, problem.text, problem.kind, in_stream=asked.stream)

    # Answers.

    def usage(self, prompt: int, made: int, cached: int) -> dict[str, Any]:
        details = {"cached_tokens": cached} if self.args.enable_cache_report else None
        more = {"prompt_tokens_details": details, "reasoning_tokens": 0, "completion_tokens_details": None}
        return {**counts(prompt, made), **more}

    def whole(self, generation: Generation, text: str, asked: ParsedRequest, number: str, name: str) -> Any:
        said: dict[str, Any] = {"text": text}
        if asked.chat:
            said = {"message": {"role": "assistant", "content": text, "reasoning_content": None}}
        turn = generation.turn
        end = {"finish_reason": turn.stop_reason, "matched_stop": matched(generation)}
        choice = {"index": 0, **said, "logprobs": self.logprobs(generation, asked), **end}
        return {
            "id": number, "object": self.chat_kind if asked.chat else self.text_kind, "created": now(), "model": name,
            "choices": [choice], "usage": self.usage(turn.input_length, turn.generated, turn.cached_tokens),
            "metadata": {"weight_version": "default"},
        }  # fmt: skip

    def new_stream(self, asked: ParsedRequest, number: str, name: str) -> Stream:
        return SglangStream(self, asked, number, name)

    # What it counts and logs.

    def step(self, call: PoolCall, emissions: Sequence[Emission], seconds: float) -> None:
        self.tally.step(call, emissions)
        scheduler = self.scheduler
        usage, queue = f"token usage: {self.tally.kv_share():.2f}", f"#queue-req: {scheduler.queue_size}"
        if call.put_back:
            self._retracted = len(call.put_back)
            gained = sum(request.length for request in call.put_back)
            ratio = f"#new_token_ratio: {self._ratio:.4f} -> {scheduler.new_token_ratio:.4f}"
            text = f"#retracted_reqs: {self._retracted}, #new_tokens_gained: {gained}, {ratio}"
            self.log(f"KV cache pool is full. Retract requests. {text}")
        self._ratio = scheduler.new_token_ratio
        if call.kind == "prefill":
            cached = sum(part.cached for part in call.prompts if part.cached == part.request.cached_tokens)
            self.log(
                f"Prefill batch, #new-seq: {len(call.rows)}, #new-token: {call.prompt_tokens}, #cached-token: {cached},"
                f" {usage}, #running-req: {scheduler.running}, {queue}, #pending-token: 0, cuda graph: True"
            )
            return
        self._decodes += 1
        self._since += seconds
        self._made += len(emissions)
        if self._decodes % (self.args.decode_log_interval or 40) == 0:
            speed = f"gen throughput (token/s): {self._made / max(self._since, 1e-9):.2f}"
            tokens = f"#full token: {scheduler.used_tokens}"
            rows = f"#running-req: {scheduler.running}"
            self.log(f"Decode batch, {rows}, {tokens}, {usage}, cuda graph: True, {speed}, {queue}")
            self._since, self._made = 0.0, 0

    def ended(self, generation: Generation) -> None:
        self.tally.ended(generation)
        if generation.complete:
            self.requests.inc()
            self.cached.inc(generation.turn.cached_tokens)
        else:
            self.aborted.inc()

    def engine_failed(self, failed: FailedAnswer) -> Problem:
        return Problem(failed.status, failed.text)

    def broken(self, text: str) -> Problem:
        return Problem(500, text or "the scheduler's process is gone")


def matched(generation: Generation) -> int | None:
    """The id of the token that ended an answer by itself."""
    turn = generation.turn
    spoken = generation.spoken(turn.generated - 1)
    return spoken.id if turn.stop_reason == "stop" and spoken.special else None


class SglangStream(Stream):
    """A role frame with the first token; frames only where there is text; the end of a chat is a frame of its own."""

    serving: SglangServing

    def counted(self, generation: Generation) -> str:
        if not self.asked.every:
            return "" if self.asked.chat else ',"usage":null'
        return f',"usage":{self._usage(generation)}'

    def _usage(self, generation: Generation | None) -> str:
        """All zeros where nothing came."""
        if generation is None or not generation.generated:
            return compact(self.serving.usage(0, 0, 0)).decode()
        turn = generation.turn
        return compact(self.serving.usage(turn.input_length, turn.generated, turn.cached_tokens)).decode()

    def token(self, generation: Generation, index: int, finished: str | None) -> None:
        text = generation.next_text(index)
        if not self.asked.chat:
            end = "null" if finished is None else f'"{finished}"'
            choice = f'{{"index":0,"text":{quoted(text)},"logprobs":null,"finish_reason":{end},"matched_stop":null}}'
            self.frames.send(f"{self.head}{choice}]{self.counted(generation)}}}")
        else:
            if index == 0:
                self._chat('"reasoning_content":null,"role":"assistant","content":""', "null", "null", "")
            if text:
                inner = f'"reasoning_content":null,"content":{quoted(text)}'
                self._chat(inner, self.logprob(generation, index), "null", self.counted(generation))
            if finished is not None:
                end = f'"{finished}"'
                self._chat('"reasoning_content":null', "null", end, "", compact(matched(generation)).decode())
        if finished is not None:
            self.close(generation)

    def _chat(self, delta: str, logprobs: str, end: str, usage: str, stop: str = "null") -> None:
        inner = f'"logprobs":{logprobs},"finish_reason":{end},"matched_stop":{stop}'
        self.frames.send(f'{self.head}{{"index":0,"delta":{{{delta}}},{inner}}}]{usage}}}')

    def close(self, generation: Generation | None) -> None:
        if self.asked.usage:
            self.frames.send(f'{self.head}],"usage":{self._usage(generation)}}}')
        self.end()

    def failed(self, generation: Generation | None, problem: Problem) -> None:
        self.frames.send(error_text(problem))
        self.close(generation)
