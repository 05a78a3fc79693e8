"""Where plain `locust -f` listens: on this host alone, unless it is asked otherwise.

Locust's own default is every address. Its page starts and stops load at any host, and its master takes orders from
whoever connects; neither asks for a password.
"""

from __future__ import annotations

from typing import Any

from locust import events

_HERE = "127.0.0.1"


@events.init_command_line_parser.add_listener
def _listen_here(parser: Any, **_: Any) -> None:
    """As defaults: the command line, a file, LOCUST_WEB_HOST and LOCUST_MASTER_BIND_HOST change them."""
    parser.set_defaults(web_host=_HERE, master_bind_host=_HERE)
