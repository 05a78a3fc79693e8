"""A launcher with TGI's environment, log lines and failures, and a memory law of its own; not our model of TGI.

Memory is counted in units of one KV-cache token. Every engine of the tests is this program with another SPEC.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

DEFAULTS: dict[str, Any] = {
    "kind": "flash",  # or padded
    "memory": 30_000,  # free for KV cache and activations, in tokens
    "activation": "0.2 * rows * longest",  # of one prefill batch
    "block_size": 1,
    "chunking": True,
    "context": 8192,
    "default_prefill": 4096,
    "padded_rows": False,  # a long prompt pads its whole batch, and the accounting does not count it
    "row_cost": 0.0,
    "rows_die": None,
    "tokens_die": None,
    "mixed_die": None,  # (running chats, prompt tokens read beside them)
    "hang_tokens": None,  # in flight, beyond which it gives no token any more
    "stuck_slots": None,  # of one request, which then waits for ever
    "stays_after_death": False,  # the process lives on, unhealthy
    "jitter": 0.0,
    "load_seconds": 0.2,
    "prefill_rate": 100_000.0,  # tokens per second
    "decode_seconds": 0.002,
    "decode_seconds_per_row": 0.00002,
    "fail_starts": 0,  # so many first starts end, with these words
    "fail_words": "something went wrong",
    "hang_starts": 0,
    "fail_text": None,
    "load_memory_fails": False,
    "logs": "plain",  # or json, colour
    "budget_line": True,
    "silent": False,  # not a word of what kind of engine it is
    "tokenize": True,
    "tokens_of": "words",  # or characters
    "version": "3.3.6-dev0",
    "heeds_fraction": True,
    "heeds_batch_size": True,
    "shard": False,  # a child in a session of its own
    "state": None,
}


class Memory(Exception):
    pass


class Engine:
    def __init__(self, spec: dict[str, Any], starts: int) -> None:
        self.spec = {**DEFAULTS, **spec}
        self.starts = starts
        noise = random.Random(starts).uniform(-1, 1) * self.spec["jitter"]
        fraction = float(os.environ.get("CUDA_MEMORY_FRACTION", "1"))
        scale = 1 - (1 - fraction) / 0.4 if self.spec["heeds_fraction"] else 1
        self.memory = self.spec["memory"] * (1 + noise) * scale
        self.queue: deque[dict[str, Any]] = deque()
        self.running: list[dict[str, Any]] = []
        self.wake = asyncio.Event()
        self.permits = int(os.environ.get("MAX_CONCURRENT_REQUESTS", "128"))
        self.in_flight = 0
        self.hangs = self.dead = False

    # start-up

    def log(self, text: str, level: str = "INFO", target: str = "text_generation_launcher") -> None:
        stamp = "2026-01-08T10:00:00.000000Z"
        if self.spec["logs"] == "json":
            line = json.dumps({"timestamp": stamp, "level": level, "fields": {"message": text}, "target": target})
        elif self.spec["logs"] == "colour":
            line = f"\x1b[2m{stamp}\x1b[0m \x1b[32m {level}\x1b[0m \x1b[2m{target}\x1b[0m\x1b[2m:\x1b[0m {text}"
        else:
            line = f"{stamp}  {level} {target}: {text}"
        print(line, flush=True)

    def warm_up(self) -> None:
        spec, env = self.spec, os.environ
        prefill = env.get("MAX_BATCH_PREFILL_TOKENS")
        self.prefill = int(prefill) if prefill else min(spec["default_prefill"], spec["context"])
        given_input, given_total = env.get("MAX_INPUT_TOKENS"), env.get("MAX_TOTAL_TOKENS")
        self.log('Args {\n    model_id: "x",\n}')
        if given_input and given_total and int(given_input) >= int(given_total):
            self.refuse(f"`max_input_tokens`({given_input}) must be < `max_total_tokens`({given_total})")
        self.caches = env.get("PREFIX_CACHING", "1") in ("1", "true")
        self.log(f"Using attention flashinfer - Prefix caching {str(self.caches).lower()}")
        if not prefill:
            self.log(f"Default `max_batch_prefill_tokens` to {self.prefill}")
        self.log("Starting check and download process for x")
        self.log("Successfully downloaded weights for x")
        self.log("Starting shard rank=0")
        time.sleep(spec["load_seconds"])
        if spec["load_memory_fails"]:
            self.crash("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", "ShardCannotStart")
        if spec["fail_text"]:
            self.crash(spec["fail_text"], "ShardCannotStart")
        self.log(f"Using prefill chunking = {spec['chunking'] and spec['kind'] == 'flash'}")
        self.log("Shard ready in 200.0ms rank=0")
        self.log("Starting Webserver")
        self.log("Warming up model", target="text_generation_router_v3")
        length = min(self.prefill, int(given_input) if given_input else self.prefill)
        rows = max(1, -(-self.prefill // length))
        if self.activation(rows, length) + self.prefill > self.memory:
            text = f"Not enough memory to handle {self.prefill} prefill tokens. You need to decrease"
            self.crash(f"{text} `--max-batch-prefill-tokens`", "WebserverFailed", "Webserver Crashed")
        self.set_limits(given_input, given_total)
        self.log("Connected", target="text_generation_router")

    def activation(self, rows: int, longest: int) -> float:
        return float(eval(self.spec["activation"], {"rows": rows, "longest": longest, "max": max, "min": min}))

    def set_limits(self, given_input: str | None, given_total: str | None) -> None:
        spec, router = self.spec, "text_generation_router_v3"
        asked = os.environ.get("MAX_BATCH_TOTAL_TOKENS")
        if spec["kind"] == "padded":
            self.total = int(given_total) if given_total else self.prefill
            self.budget = int(asked) if asked else max(16000, self.total, self.prefill)
            if not spec["silent"]:
                self.log("Model does not support automatic max batch total tokens", "WARN", router)
        else:
            size = spec["block_size"]
            self.budget = int((self.memory - self.activation(1, self.prefill)) // size) * size
            if given_total and int(given_total) > self.budget:
                self.crash(f"Error: Backend(NotEnoughMemory({given_total}))", "WebserverFailed", "Webserver Crashed")
            auto = min(self.budget, spec["context"]) if spec["chunking"] else self.prefill
            self.total = int(given_total) if given_total else auto
            if spec["budget_line"]:
                self.log(f"KV-cache blocks: {self.budget // size}, size: {size}")
            if asked and not spec["silent"]:
                self.log(f"Inferred max batch total tokens: {self.budget}", "WARN", router)
            if self.prefill > self.budget:
                given = f"Given: {self.prefill} and {self.budget}"
                rule = "`max_batch_prefill_tokens` must be <= `max_batch_total_tokens`."
                text = f'Error: ArgumentValidation("{rule} {given}")'
                self.crash(text, "WebserverFailed", "Webserver Crashed")
        if spec["budget_line"]:
            self.log(f"Setting max batch total tokens to {self.budget}", target=router)
        self.max_input = int(given_input) if given_input else self.total - 1

    def refuse(self, text: str) -> None:
        print(f'Error: ArgumentValidation("{text}")', file=sys.stderr, flush=True)
        sys.exit(1)

    def crash(self, text: str, error: str, word: str = "Shard 0 failed to start") -> None:
        self.log(text, "ERROR")
        self.log(word, "ERROR")
        self.log("Shutting down shards")
        print(f"Error: {error}", file=sys.stderr, flush=True)
        sys.exit(1)

    # serving

    def slots(self, request: dict[str, Any]) -> int:
        size = self.spec["block_size"]
        need = request["input"] + min(request["new"], 1024) - 1
        return -(-need // size) * size

    def pick(self) -> list[dict[str, Any]]:
        return self.pick_padded() if self.spec["kind"] == "padded" else self.pick_flash()

    def pick_flash(self) -> list[dict[str, Any]]:
        spec, size = self.spec, self.spec["block_size"]
        free = self.budget - size - sum(self.slots(each) for each in self.running)
        left = self.prefill - len(self.running)
        taken: list[dict[str, Any]] = []
        while self.queue and left > 0:
            head = self.queue[0]
            if self.slots(head) > free or self.slots(head) > (spec["stuck_slots"] or self.budget):
                break
            if not self.spec["chunking"] and head["input"] > left and taken:
                break
            taken.append(self.queue.popleft())
            free -= self.slots(head)
            left -= head["input"]
        return taken

    def pick_padded(self) -> list[dict[str, Any]]:
        rows = self.running
        held = len(rows) * (
            max((each["input"] for each in rows), default=0) + max((each["new"] for each in rows), default=0)
        )
        if self.spec["padded_rows"]:
            held = sum(each["input"] + each["new"] for each in rows)
        taken: list[dict[str, Any]] = []
        longest = new = 0
        batch = int(os.environ.get("MAX_BATCH_SIZE", "0")) if self.spec["heeds_batch_size"] else 0
        while self.queue and (not batch or len(rows) + len(taken) < batch):
            head = self.queue[0]
            longest = max(longest, head["input"])
            pre = (len(taken) + 1) * longest
            new += head["new"]
            if pre > self.prefill or pre + new > self.budget - held:
                break
            taken.append(self.queue.popleft())
        return taken

    def check(self, batch: list[dict[str, Any]]) -> None:
        spec, rows = self.spec, [*self.running, *batch]
        if spec["rows_die"] is not None and len(rows) >= spec["rows_die"]:
            raise Memory
        if spec["mixed_die"] is not None and self.running and batch:
            most_rows, most_read = spec["mixed_die"]
            read = min(self.prefill, sum(each["input"] for each in batch))
            if len(self.running) >= most_rows and read >= most_read:
                raise Memory
        if spec["hang_tokens"] is not None:
            self.hangs = sum(each["input"] + each["done"] for each in rows) > spec["hang_tokens"]
        total = [each["input"] + each["done"] for each in rows]
        if spec["tokens_die"] is not None and sum(total) >= spec["tokens_die"]:
            raise Memory
        if spec["kind"] == "flash" or not rows:
            return
        length = [each["input"] + each["done"] for each in rows]
        used = len(rows) * max(length) if spec["padded_rows"] else sum(length)
        act = self.activation(len(batch), max(each["input"] for each in batch)) if batch else 0
        if used + act + spec["row_cost"] * len(rows) > self.memory:
            raise Memory

    async def loop(self) -> None:
        while True:
            self.wake.clear()
            if not self.queue and not self.running:
                await self.wake.wait()
            try:
                await self.step()
            except Memory:
                await self.die()

    async def step(self) -> None:
        spec = self.spec
        if self.hangs or self.dead:
            await asyncio.sleep(3600)
        self.running = [each for each in self.running if not each["gone"]]
        self.queue = deque(each for each in self.queue if not each["gone"])
        batch = self.pick()
        if not batch and not self.running:
            await asyncio.sleep(0.05)  # a head that never fits
            return
        if batch:
            self.check(batch)
            await asyncio.sleep(sum(each["input"] for each in batch) / spec["prefill_rate"])
            self.running += batch
            for each in batch:
                self.emit(each)
        if self.running:
            await asyncio.sleep(spec["decode_seconds"] + spec["decode_seconds_per_row"] * len(self.running))
            self.check([])
            for each in list(self.running):
                self.emit(each)

    def emit(self, each: dict[str, Any]) -> None:
        if each["gone"]:
            return
        each["done"] += 1
        each["out"].put_nowait(each["done"])
        if each["done"] >= each["new"]:
            self.running.remove(each)

    async def die(self) -> None:
        text = "Request failed during generation: Server error: CUDA out of memory. Tried to allocate 1.00 GiB."
        for each in [*self.running, *self.queue]:
            each["out"].put_nowait(text)
        self.running.clear()
        await asyncio.sleep(0.3)
        self.log("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.00 GiB.", "ERROR")
        if self.spec["stays_after_death"]:
            self.dead = True
            return
        self.log("Shard 0 crashed", "ERROR")
        self.log("Terminating webserver")
        print("Error: ShardFailed", file=sys.stderr, flush=True)
        os._exit(1)

    # HTTP

    def count(self, text: str) -> int:
        return 1 + (len(text.split()) if self.spec["tokens_of"] == "words" else len(text) // 4)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                method, path, _ = head.split(b"\r\n")[0].decode().split(" ")
                length = next(
                    (
                        int(line.split(b":")[1])
                        for line in head.split(b"\r\n")
                        if line.lower().startswith(b"content-length")
                    ),
                    0,
                )
                body = await reader.readexactly(length)
                await self.route(method, path, body, reader, writer)
                await writer.drain()
        writer.close()

    async def route(
        self, method: str, path: str, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if path == "/health":
            return self.answer(writer, 503 if self.dead else 200, b"")
        if path == "/info":
            return self.answer(writer, 200, json.dumps(self.info()).encode())
        if path == "/tokenize" and self.spec["tokenize"]:
            tokens = self.count(json.loads(body)["inputs"])
            return self.answer(
                writer, 200, json.dumps([{"id": 1, "text": "x", "start": 0, "stop": 1}] * tokens).encode()
            )
        if path in ("/generate", "/generate_stream"):
            return await self.generate(path == "/generate_stream", json.loads(body), reader, writer)
        self.answer(writer, 404, b"")

    def info(self) -> dict[str, Any]:
        return {
            "model_id": os.environ.get("MODEL_ID"),
            "max_concurrent_requests": self.permits,
            "max_input_tokens": self.max_input,
            "max_total_tokens": self.total,
            "version": self.spec["version"],
        }

    def answer(self, writer: asyncio.StreamWriter, status: int, body: bytes) -> None:
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)

    def problem(self, request: dict[str, Any]) -> tuple[int, str, str] | None:
        asked = min(request["new"], 1024)
        if self.in_flight >= self.permits:
            return 429, "Model is overloaded", "overloaded"
        if request["input"] + asked > self.total:
            given = f"Given: {request['input']} `inputs` tokens and {asked} `max_new_tokens`"
            text = f"`inputs` tokens + `max_new_tokens` must be <= {self.total}. {given}"
            return 422, f"Input validation error: {text}", "validation"
        if request["input"] > self.max_input:
            text = f"`inputs` must have less than {self.max_input} tokens. Given: {request['input']}"
            return 422, f"Input validation error: {text}", "validation"
        return None

    async def generate(
        self, stream: bool, document: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        new = int((document.get("parameters") or {}).get("max_new_tokens") or 100)
        request = {
            "input": self.count(document["inputs"]),
            "new": new,
            "done": 0,
            "out": asyncio.Queue(),
            "gone": False,
        }
        problem = self.problem(request)
        if problem is not None:
            status, text, kind = problem
            error = json.dumps({"error": text, "error_type": kind}).encode()
            if not stream:
                return self.answer(writer, status, error)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
            self.chunk(writer, b"data: " + error + b"\n\n")
            writer.write(b"0\r\n\r\n")
            return None
        self.in_flight += 1
        self.queue.append(request)
        self.wake.set()
        answering = asyncio.ensure_future((self.streamed if stream else self.whole)(request, writer))
        leaving = asyncio.ensure_future(reader.read(1))  # nothing comes before the answer is over but the end
        try:
            await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:  # also of one that still waits: its permit is given back at once, as TGI's router does
            request["gone"] = True
            self.in_flight -= 1
            leaving.cancel()
            answering.cancel()
            await asyncio.wait((answering, leaving))

    async def streamed(self, request: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        await writer.drain()
        while True:
            got = await request["out"].get()
            if isinstance(got, str):
                self.chunk(
                    writer, b"data: " + json.dumps({"error": got, "error_type": "generation"}).encode() + b"\n\n"
                )
                break
            last = got >= request["new"]
            event: dict[str, Any] = {
                "index": got,
                "token": {"id": 5, "text": " the", "logprob": -1.0, "special": False},
                "generated_text": None,
                "details": None,
            }
            if last:
                event["generated_text"] = " the" * got
                event["details"] = {
                    "finish_reason": "length",
                    "generated_tokens": got,
                    "seed": None,
                    "input_length": request["input"],
                }
            self.chunk(writer, b"data: " + json.dumps(event).encode() + b"\n\n")
            if writer.transport.is_closing():
                raise ConnectionResetError
            await writer.drain()
            if last:
                break
        writer.write(b"0\r\n\r\n")

    async def whole(self, request: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        while True:
            got = await request["out"].get()
            if isinstance(got, str):
                return self.answer(writer, 424, json.dumps({"error": got, "error_type": "generation"}).encode())
            if got >= request["new"]:
                text = {"generated_text": " the" * got}
                return self.answer(writer, 200, json.dumps(text).encode())

    def chunk(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")


def _count_start(spec: dict[str, Any]) -> int:
    if not spec.get("state"):
        return 1
    path = Path(spec["state"])
    limits = {
        name: value
        for name, value in os.environ.items()
        if name.startswith("MAX_") or name in ("CUDA_MEMORY_FRACTION", "PREFIX_CACHING", "WAITING_SERVED_RATIO")
    }
    with path.open("a") as file:
        file.write(json.dumps(limits) + "\n")
    return len(path.read_text().splitlines())


def main(spec: dict[str, Any]) -> None:
    if sys.argv[1:] == ["--version"]:
        print(f"text-generation-launcher {({**DEFAULTS, **spec})['version']}")
        return
    starts = _count_start(spec)
    if starts <= spec.get("hang_starts", 0):
        time.sleep(3600)
    if starts <= spec.get("fail_starts", 0):
        print({**DEFAULTS, **spec}["fail_words"], flush=True)
        print("Error: ShardCannotStart", file=sys.stderr, flush=True)
        sys.exit(1)
    asyncio.run(_run(spec, starts))


async def _run(spec: dict[str, Any], starts: int) -> None:
    engine = Engine(spec, starts)
    if spec.get("shard"):
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"], start_new_session=True)
    engine.warm_up()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: os._exit(0))
    server = await asyncio.start_server(engine.serve, "127.0.0.1", int(os.environ["PORT"]), limit=1 << 24)
    async with server:
        await engine.loop()
