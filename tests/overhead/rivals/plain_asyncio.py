"""The least that asyncio needs: a connection per user, `readline`, JSON.

Run as a script: URL USERS SECONDS TOKENS OUT.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
from urllib.parse import urlsplit

URL, USERS, SECONDS, TOKENS, OUT = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
ADDRESS = urlsplit(URL)
rows: list[dict[str, object]] = []
until = time.monotonic() + SECONDS


async def user() -> None:
    reader, writer = await asyncio.open_connection(ADDRESS.hostname, ADDRESS.port)
    while time.monotonic() < until:
        name, moments = uuid.uuid4().hex, []
        body = json.dumps({"inputs": "word", "parameters": {"max_new_tokens": TOKENS, "details": True}})
        head = f"POST /generate_stream HTTP/1.1\r\nhost: {ADDRESS.netloc}\r\nx-request-id: {name}\r\n"
        call = f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()
        rows.append({"request_id": name, "sent_at": time.monotonic(), "token_at": moments})
        writer.write(call)
        while (line := await reader.readline()) != b"0\r\n":
            if line.startswith(b"data:"):
                json.loads(line[5:])
                moments.append(time.monotonic())
        await reader.readline()
    writer.close()


async def main() -> None:
    await asyncio.gather(*(user() for _ in range(USERS)))
    with open(OUT, "w", encoding="utf-8") as file:
        json.dump(rows, file)


asyncio.run(main())
