"""All that differs between one serving engine and another, and between one HTTP API and another; one file each.

In: a Request or the engine's own log lines. Out: bytes to send, token events, limits. Bytes only: no clock, no socket.
"""
