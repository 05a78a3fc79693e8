"""The program llama-server, from a package index: llama.cpp's own argument parser and HTTP server in one process.

PyPI's xllamacpp carries both compiled into its module but shows Python only the server. The parser is called by its
exported name and fills the `common_params` inside xllamacpp's object, so that every option of llama.cpp works here.

What differs from the real binary: without `-m` it ends with exit code 1, where the binary becomes a router; a second
signal kills it, where the binary ends itself with exit code 1; and `build_info` tells no build.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from collections.abc import Sequence

import xllamacpp

_PARSE = "_Z19common_params_parseiPPcR13common_params13llama_examplePFviS0_E"
"""bool common_params_parse(int argc, char ** argv, common_params &, llama_example, void (*)(int, char **))"""
_EXAMPLE_SERVER = 12
"""LLAMA_EXAMPLE_SERVER of common/common.h: whose options are accepted."""
_PORT = 8080
_ENDING = (signal.SIGINT, signal.SIGTERM)


def main(arguments: Sequence[str]) -> int:
    """llama-server's exit code: 0 after an orderly end; 1 where the arguments, the port or the model are no good."""
    params = xllamacpp.CommonParams()
    params.port = _PORT  # xllamacpp's own default is 0
    if not parse(arguments, params):
        return 1
    _end_at_once_by_signals()
    try:
        server = xllamacpp.Server(params)
    except RuntimeError:
        return 1  # llama.cpp has logged the cause
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    _wait_for_signal()
    _end_at_once_by_signals()
    del server
    return 0


def parse(arguments: Sequence[str], params: xllamacpp.CommonParams) -> bool:
    """Fills params from llama-server's command line and environment; False, with a message on stderr, if it is wrong.

    --help, --version and the like print and end the process with exit code 0, as they do in llama-server.
    """
    words = [b"llama-server", *(os.fsencode(argument) for argument in arguments)]
    argv = (ctypes.c_char_p * (len(words) + 1))(*words, None)
    function = getattr(ctypes.CDLL(xllamacpp.xllamacpp.__file__), _PARSE)
    function.restype = ctypes.c_bool
    function.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
    # The C++ object lies inside the Python object, right behind its head.
    return bool(function(len(words), argv, id(params) + object.__basicsize__, _EXAMPLE_SERVER, None))


def _end_at_once_by_signals() -> None:
    """While llama.cpp loads or winds up, no Python code runs that could handle a signal."""
    for number in _ENDING:
        signal.signal(number, signal.SIG_DFL)


def _wait_for_signal() -> None:
    # A byte in a socket cannot be missed, as a signal just before signal.pause() could.
    waiting, woken = socket.socketpair()
    woken.setblocking(False)
    signal.set_wakeup_fd(woken.fileno())
    for number in _ENDING:
        signal.signal(number, lambda *_: None)
    waiting.recv(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
