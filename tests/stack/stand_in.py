"""A program in the place of TGI's launcher: its environment, its log lines, its ways to end, and a shard in a session
of its own.

STAND_IN says what happens: `serve` (default), `memory` (fails in warm-up when MAX_BATCH_PREFILL_TOKENS is above
4096), `hang` (never ready), `mute` (healthy, but every request fails), `stubborn` (ignores SIGTERM), `flood` (writes
a megabyte first), `colour` and `json` (other forms of the log).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

MODE = os.environ.get("STAND_IN", "serve")


def log(text: str, level: str = "INFO") -> None:
    target, at = "text_generation_launcher", "2026-01-01T00:00:00.000000Z"
    if MODE == "json":
        fields = {"message": text}
        line = json.dumps({"timestamp": at, "level": level, "fields": fields, "target": target})
    elif MODE == "colour":
        line = f"\x1b[2m{at}\x1b[0m \x1b[32m {level}\x1b[0m \x1b[2m{target}\x1b[0m\x1b[2m:\x1b[0m {text}"
    else:
        line = f"{at}  {level} {target}: {text}"
    print(line, flush=True)


class Handler(BaseHTTPRequestHandler):
    """Enough of TGI's routes for a first answer."""

    def log_message(self, *_: object) -> None:
        """TGI logs none either."""

    def answer(self, document: object, status: int = 200) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        if self.path == "/info":
            self.answer(
                {
                    "model_id": os.environ["MODEL_ID"],
                    "max_input_tokens": 1023,
                    "max_total_tokens": 1024,
                    "max_concurrent_requests": 128,
                    "version": "3.3.6-dev0",
                    "docker_label": None,
                }
            )
        elif self.path == "/environment":
            self.answer(dict(os.environ))
        else:
            self.answer({})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        if MODE == "mute":
            self.answer({"error": "Request failed during generation: x", "error_type": "generation"}, 424)
            return
        token = {"id": 1, "text": "a", "logprob": -1.0, "special": False}
        details = {"finish_reason": "length", "generated_tokens": 1, "seed": None, "prefill": [], "tokens": [token]}
        self.answer([{"generated_text": "a", "details": details}])


def main() -> None:
    if "--version" in sys.argv:
        print("text-generation-launcher 3.3.6-dev0")
        return
    if MODE == "flood":
        sys.stderr.write("x" * 99 + "\n")
        print("\n".join("y" * 99 for _ in range(10_000)), flush=True)
    shard = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    log("Starting check and download process for m")
    log("Successfully downloaded weights for m")
    log("Starting shard rank=0")
    log("Shard ready in 600ms rank=0")
    log("Starting Webserver")
    log("Warming up model")
    prefill = int(os.environ.get("MAX_BATCH_PREFILL_TOKENS", "4096"))
    if MODE == "memory" and prefill > 4096:
        text = f"Not enough memory to handle {prefill} prefill tokens. You need to decrease"
        " `--max-batch-prefill-tokens`"
        log(f'Error: Backend(Warmup(Generation("{text}")))', "ERROR")
        print("Error: WebserverFailed", file=sys.stderr)
        shard.kill()
        sys.exit(1)
    while MODE == "hang":
        time.sleep(0.05)
    log("Setting max batch total tokens to 2048")
    if MODE == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        # As TGI's launcher: it ends itself and leaves it to the caller to see that no shard is left behind.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server = HTTPServer((os.environ["HOSTNAME"], int(os.environ["PORT"])), Handler)
    log("Connected")
    server.serve_forever()


if __name__ == "__main__":
    main()
