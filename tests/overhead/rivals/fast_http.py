"""Plain Locust: FastHttpUser and `readline`, a moment noted for each event.

Run as a script: URL USERS SECONDS TOKENS OUT.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import uuid

import gevent
from locust import FastHttpUser, constant, task
from locust.env import Environment

URL, USERS, SECONDS, TOKENS, OUT = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
rows: list[dict[str, object]] = []
until = time.monotonic() + SECONDS


class Reader(FastHttpUser):
    host = URL
    wait_time = constant(0)

    @task
    def ask(self) -> None:
        if time.monotonic() > until:
            gevent.sleep(3600)
        name, moments = uuid.uuid4().hex, []
        body = {"inputs": "word", "parameters": {"max_new_tokens": TOKENS, "details": True}}
        sent_at = time.monotonic()
        rows.append({"request_id": name, "sent_at": sent_at, "token_at": moments})
        with self.client.post(
            "/generate_stream", json=body, headers={"x-request-id": name}, stream=True, catch_response=True
        ) as answer:
            while line := answer.stream.readline(b"\n"):
                if line.startswith(b"data:"):
                    json.loads(line[5:])
                    moments.append(time.monotonic())


logging.getLogger("locust").setLevel(logging.ERROR)
environment = Environment(user_classes=[Reader])
runner = environment.create_local_runner()
runner.start(USERS, spawn_rate=USERS)
gevent.sleep(SECONDS)
while any(len(row["token_at"]) < TOKENS for row in rows) and time.monotonic() < until + 30:  # type: ignore[arg-type]
    gevent.sleep(0.1)
with open(OUT, "w", encoding="utf-8") as file:
    json.dump(rows, file)
runner.quit()
