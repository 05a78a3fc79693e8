"""Turns chat messages into a prompt as the router does: by the model's own template, or a built-in one.

minijinja is close enough to jinja2 that the same template gives the same text; what differs is set here.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import jinja2
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment

from harness.emulator.bodies import Message, Tool, ToolCall
from harness.emulator.tokens import BOS, EOS

BUILT_IN = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}{{ eos_token }}\n"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


class TemplateProblem(Exception):
    """The template itself refused the messages; the text is what TGI answers after `Template error: `."""


class _Refused(jinja2.TemplateError):
    pass


def _raise(text: str) -> str:
    raise _Refused(text)


def _now(form: str) -> str:
    return datetime.now().strftime(form)


def _to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _filter_to_json(value: Any, indent: int | None = None) -> str:
    """minijinja's filter: keys in order of the alphabet, and nothing that HTML would read."""
    separators = (",", ":") if indent is None else (",", ": ")
    text = json.dumps(value, ensure_ascii=False, indent=indent, separators=separators, sort_keys=True)
    for character in "<>&'":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _function(call: Tool | ToolCall) -> dict[str, Any]:
    """As serde writes it: arguments are a JSON text, not an object."""
    return {
        "description": call.function.description,
        "name": call.function.name,
        "arguments": _to_json(call.function.arguments),
    }


def tool_json(tool: Tool) -> dict[str, Any]:
    return {"type": tool.type, "function": _function(tool)}


def call_json(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": call.type, "function": _function(call)}


class ChatTemplate:
    """One template, compiled. bos, eos: the special tokens' texts that it may use."""

    def __init__(self, source: str = BUILT_IN, bos: str | None = BOS, eos: str | None = EOS) -> None:
        # The router's own repairs of templates that minijinja cannot read (chat_template.rs).
        source = source.replace("messages[0]['content'][0]['text']", "messages[0]['content']")
        source = source.replace("{% generation %}", "").replace("{% endgeneration %}", "")
        environment = ImmutableSandboxedEnvironment()
        environment.filters["tojson"] = _filter_to_json
        environment.globals.update(raise_exception=_raise, strftime_now=_now)
        self._template = environment.from_string(source)
        self._names_tools = "tools" in find_undeclared_variables(environment.parse(source))
        self._bos, self._eos = bos, eos

    def render(self, messages: list[Message], tools: list[Tool] | None, tool_prompt: str) -> str:
        """The prompt. Raises TemplateProblem with the router's text."""
        texts = [_text(each) for each in messages]
        if tools is not None and messages and messages[-1].content is not None:
            listed = "" if self._names_tools else _to_json([tool_json(tool) for tool in tools]) + "\n"
            texts[-1] += f"\n---\n{listed}{tool_prompt}"
        rows = [{"role": m.role, "content": text} for m, text in zip(messages, texts, strict=True)]
        values = {
            "messages": rows,
            "bos_token": self._bos,
            "eos_token": self._eos,
            "add_generation_prompt": True,
            "tools": None if tools is None else [tool_json(tool) for tool in tools],
        }
        try:
            rendered = self._template.render(values)
        except _Refused as refused:
            raise TemplateProblem(f"syntax error: {refused} (in <string>:1)") from None
        except jinja2.TemplateError as error:
            raise TemplateProblem(f"invalid operation: {error} (in <string>:1)") from None
        return _continued(rendered, rows)


def _text(message: Message) -> str:
    if message.content is not None:
        return message.content
    return _to_json([call_json(call) for call in message.tool_calls])


def _continued(rendered: str, rows: list[dict[str, str]]) -> str:
    """A last message of the assistant is continued: what the template put behind it is cut off."""
    if not rows or rows[-1]["role"] != "assistant":
        return rendered
    content = rows[-1]["content"]
    at = rendered.rfind(content)
    return rendered if at < 0 else rendered[: at + len(content)].rstrip()
