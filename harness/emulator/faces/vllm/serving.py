"""vLLM's routes, stream frames and metric names."""

from __future__ import annotations

import argparse
import uuid
from collections.abc import Sequence
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
from harness.simulator.laws import Pool
from harness.simulator.policies import PoolCall
from harness.simulator.policies.base import FailedAnswer
from harness.simulator.scheduler import Emission

VERSION = "0.32.0"
FRACTION = 0.92
_PRINT = f"vllm-{VERSION}-emulated"
_NAMES = {
    "running": "num_requests_running", "waiting": "num_requests_waiting", "kv_share": "kv_cache_usage_perc",
    "put_back": "num_preemptions", "queried": "prefix_cache_queries", "found": "prefix_cache_hits",
    "prompts": "prompt_tokens", "cached": "prompt_tokens_cached", "tokens": "generation_tokens",
    "step_tokens": "iteration_tokens_total", "first": "time_to_first_token_seconds",
    "between": "inter_token_latency_seconds", "per_token": "request_time_per_output_token_seconds",
    "total": "e2e_request_latency_seconds", "queued": "request_queue_time_seconds",
    "prefill": "request_prefill_time_seconds", "prompt_tokens": "request_prompt_tokens",
    "answer_tokens": "request_generation_tokens",
}  # fmt: skip
_ENDS = ("stop", "length", "abort", "error", "repetition")
BUSY = "The engine is currently busy and cannot accept new requests. Please try again later or on a different instance."
_KINDS = {400: "BadRequestError", 404: "NotFoundError", 500: "InternalServerError", 503: "Service Unavailable"}


def _error(problem: Problem) -> dict[str, Any]:
    kind = problem.kind or _KINDS.get(problem.status, "BadRequestError")
    return {"error": {"message": problem.text, "type": kind, "param": problem.param, "code": problem.status}}


def error_text(problem: Problem) -> str:
    """As a stream carries it: with spaces."""
    inner = ", ".join(f'"{key}": {quoted(value)}' for key, value in _error(problem)["error"].items())
    return f'{{"error": {{{inner}}}}}'


WEB = Web(
    (("server", "uvicorn"),),
    _error,
    Problem(404, "Not Found", "Not Found"),
    Problem(405, "Method Not Allowed", "Method Not Allowed"),
    (401, {"error": "Unauthorized"}),
    lambda path: path.startswith(("/v1", "/v2", "/inference", "/cohere")),
)


def _wrong(name: str, found: Any, expected: str) -> Problem:
    detail = f"{{'type': '{expected}', 'loc': 'body.{name}', 'msg': 'Input should be a valid {expected}'}}"
    return Problem(400, f"1 validation error:\n  {detail}", "Bad Request", f"body.{name}")


class VllmServing(Serving):
    """The routes of one server, and what it counts."""

    def __init__(
        self, face: Face, args: argparse.Namespace, model: ServedModel, engine: PoolEngine, pool: Pool
    ) -> None:
        self.args = args
        self.names: list[str] = self.args.served_model_name or [model.name]
        super().__init__(face, model, engine, pool, self.names[0])
        engine.watch = self
        page = self.page = Page("vllm:", {"model_name": self.name, "engine": "0"})
        self.tally = Counts(engine, page, _NAMES)
        self.ends = page.family("request_success", "Requests by how they ended", "finished_reason", _ENDS)
        alone = page.without("engine")
        limits = ("max_num_queued_reqs", "max_num_queued_tokens")
        self.rejected = alone.family("admission_rejections", "Requests rejected at admission", "reason", limits)
        page.fact("cache_config_info", "Information of the LLMEngine CacheConfig", **self._cache_config(), engine="0")

    def _cache_config(self) -> dict[str, str]:
        args, pool = self.args, self.pool
        fraction = FRACTION if args.gpu_memory_utilization is None else args.gpu_memory_utilization
        told = {
            "block_size": pool.block_size, "cache_dtype": args.kv_cache_dtype or "auto",
            "enable_prefix_caching": args.enable_prefix_caching is not False, "gpu_memory_utilization": fraction,
            "kv_cache_max_concurrency": pool.blocks / -(-pool.context // pool.block_size),
            "kv_cache_memory_bytes": args.kv_cache_memory_bytes, "kv_cache_size_tokens": pool.tokens,
            "num_gpu_blocks": pool.blocks, "num_gpu_blocks_override": args.num_gpu_blocks_override,
            "sliding_window": None,
        }  # fmt: skip
        return {key: str(value) for key, value in told.items()}

    def routes(self) -> dict[tuple[str, str], Any]:
        return {
            ("GET", "/health"): self.health,
            ("GET", "/ping"): self.health,
            ("GET", "/version"): lambda exchange, _: self.json(exchange, {"version": VERSION}),
            ("GET", "/v1/models"): self.models,
            **({} if self.args.disable_log_stats else {("GET", "/metrics"): self.metrics}),
            ("POST", "/tokenize"): self.tokenize,
            ("POST", "/detokenize"): self.detokenize,
            ("POST", "/v1/chat/completions"): self.chat,
            ("POST", "/v1/completions"): self.complete,
        }

    async def health(self, exchange: Exchange, _: Any) -> None:
        await self.slow()
        self.app(exchange).respond(exchange, 503 if self.engine.dead else 200, b"", [])

    def models(self, exchange: Exchange, _: Any) -> None:
        more = {"parent": None, "max_model_len": self.pool.context}
        permission = [{"id": f"modelperm-{uuid.uuid4().hex[:16]}", "object": "model_permission"}]
        card = {"object": "model", "created": self.created, "owned_by": "vllm", "root": self.model.name, **more}
        cards = [{"id": name, **card, "permission": permission} for name in self.names]
        self.json(exchange, {"object": "list", "data": cards})

    def metrics(self, exchange: Exchange, _: Any) -> None:
        self.app(exchange).respond(exchange, 200, self.page.render(), [CONTENT_TYPE])

    def tokenize(self, exchange: Exchange, body: Any) -> None:
        self.check(body)
        if "messages" in body:
            ids = chat_ids(body, self.model, _wrong)
        else:
            special = body.get("add_special_tokens", True)
            ids = prompt_ids(body.get("prompt"), self.model, _wrong, special_tokens=special)
        pieces = strings(ids, self.model) if body.get("return_token_strs") else None
        told = {"count": len(ids), "max_model_len": self.pool.context, "tokens": ids, "token_strs": pieces}
        self.json(exchange, told)

    def detokenize(self, exchange: Exchange, body: Any) -> None:
        self.json(exchange, {"prompt": "".join(strings(body.get("tokens") or [], self.model))})

    # What is refused.

    def wrong(self) -> Wrong:
        return _wrong

    def check(self, body: Any) -> None:
        name = body.get("model")
        if name is not None and name not in self.names:
            raise Problem(404, f"The model `{name}` does not exist.", param="model")
        if body.get("tools") and body.get("tool_choice") != "none" and not self.args.tool_call_parser:
            needed = "requires --enable-auto-tool-choice and --tool-call-parser to be set"
            raise Problem(400, f'"auto" tool choice {needed}')

    def wanted(self, asked: ParsedRequest, body: Any) -> AnswerRequest:
        longest, prompt = self.pool.context, len(asked.ids)
        if prompt > longest:
            text = (
                f"This model's maximum context length is {longest} tokens. However, your prompt contains at least"
                f" {longest + 1} input tokens, which exceeds this limit even without any output tokens. Please reduce"
                f" the length of the input prompt. (parameter=input_tokens, value={longest + 1})"
            )
            raise Problem(400, text, param="input_tokens")
        if asked.most is not None and asked.most > longest:
            text = (
                f"max_tokens={asked.most} cannot be greater than max_model_len={longest}. Please request fewer output"
            )
            raise Problem(400, f"{text} tokens. (parameter=max_tokens, value={asked.most})", param="max_tokens")
        most = asked.most if asked.most is not None else longest if asked.chat else 16
        most = min(most, longest - prompt)
        if most < 1:
            raise Problem(400, f"max_tokens must be at least 1, got {most}.", param="max_tokens")
        return AnswerRequest(asked.ids, most, asked.least, asked.ignore_eos, asked.stop, asked.seed)

    def admit(self, asked: ParsedRequest) -> None:
        limit = self.args.max_num_queued_reqs
        if (limit is not None and self.engine.unfinished + 1 > limit) or self.face.book.refuses():
            self.rejected["max_num_queued_reqs"].inc()
            raise Problem(503, BUSY)
        if self.engine.dead:
            raise self.broken("")

    def number(self, exchange: Exchange, *, chat: bool) -> str:
        own = exchange.headers.get("x-request-id") or uuid.uuid4().hex
        return f"{'chatcmpl' if chat else 'cmpl'}-{own}"

    # Answers.

    def details(self, generation: Generation) -> Any:
        cached = generation.turn.cached_tokens
        return {"cached_tokens": cached} if self.args.enable_prompt_tokens_details and cached else None

    def whole(self, generation: Generation, text: str, asked: ParsedRequest, number: str, name: str) -> Any:
        said: dict[str, Any] = {"text": text}
        if asked.chat:
            nothing = dict.fromkeys(("refusal", "annotations", "audio", "function_call", "reasoning"))
            said = {"message": {"role": "assistant", "content": text, **nothing}}
        reason, logprobs = generation.turn.stop_reason, self.logprobs(generation, asked)
        choice = {"index": 0, **said, "logprobs": logprobs, "finish_reason": reason, "stop_reason": None}
        usage = counts(generation.prompt_tokens, generation.generated)
        more = {"prompt_tokens_details": self.details(generation), "completion_tokens_details": None}
        return {
            "id": number, "object": self.chat_kind if asked.chat else self.text_kind, "created": now(), "model": name,
            "choices": [{**choice, "token_ids": None}], "service_tier": None, "system_fingerprint": _PRINT,
            "usage": {**usage, **more}, "prompt_logprobs": None, "kv_transfer_params": None,
        }  # fmt: skip

    def new_stream(self, asked: ParsedRequest, number: str, name: str) -> Stream:
        return VllmStream(self, asked, number, name)

    # What it counts.

    def step(self, call: PoolCall, emissions: Sequence[Emission], seconds: float) -> None:
        self.tally.step(call, emissions)

    def ended(self, generation: Generation) -> None:
        self.tally.ended(generation)
        reason = generation.turn.stop_reason if generation.complete else "error"
        self.ends["abort" if generation.turn.gone else reason].inc()

    def engine_failed(self, failed: FailedAnswer) -> Problem:
        return Problem(failed.status, failed.text)

    def broken(self, text: str) -> Problem:
        return Problem(500, "The server had an error while processing your request.")


class VllmStream(Stream):
    """A role frame with the first token; the last token's frame says how it ends."""

    serving: VllmServing

    @property
    def usage(self) -> bool:
        return self.asked.usage or bool(self.serving.args.enable_force_include_usage)

    def counted(self, prompt: int, made: int) -> str:
        if not ((self.asked.usage and self.asked.every) or self.serving.args.enable_force_include_usage):
            return ""
        return f',"usage":{compact({**counts(prompt, made), "completion_tokens_details": None}).decode()}'

    def token(self, generation: Generation, index: int, finished: str | None) -> None:
        prompt, chat = generation.prompt_tokens, self.asked.chat
        if index == 0 and chat:
            opening = '{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}'
            rest = ',"prompt_token_ids":null,"prompt_text":null}'
            self.frames.send(f"{self.head}{opening}]{self.counted(prompt, 0)}{rest}")
        text, end = quoted(generation.next_text(index)), "null" if finished is None else f'"{finished}"'
        said = f'"delta":{{"content":{text}}}' if chat else f'"text":{text}'
        stop = "" if chat and finished is None else ',"stop_reason":null'
        choice = f'{{"index":0,{said},"logprobs":{self.logprob(generation, index)},"finish_reason":{end}{stop}'
        choice += ',"token_ids":null}' if chat else "}"
        mark = f',"system_fingerprint":"{_PRINT}"' if finished is not None and not self.usage else ""
        self.frames.send(f"{self.head}{choice}]{self.counted(prompt, index + 1)}{mark}}}")
        if finished is not None:
            self.close(generation)

    def close(self, generation: Generation) -> None:
        if self.usage:
            usage: dict[str, Any] = {**counts(generation.prompt_tokens, generation.generated)}
            details = self.serving.details(generation)
            usage |= {} if details is None else {"prompt_tokens_details": details}
            told = compact(usage).decode()
            self.frames.send(f'{self.head}],"usage":{told},"system_fingerprint":"{_PRINT}"}}')
        self.end()

    def failed(self, generation: Generation | None, problem: Problem) -> None:
        self.frames.send(error_text(problem))
        self.end()
