"""Chats become prompts as the router renders them."""

from __future__ import annotations

import pytest

from harness.emulator.bodies import Function, Message, Tool, ToolCall
from harness.emulator.template import ChatTemplate, TemplateProblem

USER = Message("user", "hi")
TOOL = Tool("function", Function("f", {"type": "object", "a": "<&>"}, "does"))


def test_the_built_in_template_has_a_role_and_a_content_per_message() -> None:
    """One line for the role, one for the content, and the assistant's turn opened."""
    assert ChatTemplate().render([USER], None, "") == "<s><|user|>\nhi</s>\n<|assistant|>\n"


def test_an_assistants_last_message_is_continued() -> None:
    """What the template puts behind it is cut off."""
    assert ChatTemplate().render([USER, Message("assistant", "well ")], None, "") == (
        "<s><|user|>\nhi</s>\n<|assistant|>\nwell"
    )


def test_tools_go_behind_the_last_message_when_the_template_does_not_name_them() -> None:
    """The list and the tool prompt, with arguments as a JSON text."""
    prompt = ChatTemplate().render([USER], [TOOL], "PROMPT")
    listed = '[{"type":"function","function":{"description":"does","name":"f","arguments":"{\\"type\\":'
    assert f"hi\n---\n{listed}" in prompt
    assert "\nPROMPT</s>" in prompt


def test_a_template_that_names_tools_gets_them_sorted_and_escaped() -> None:
    """As minijinja writes JSON: keys in alphabetical order, no character that HTML would read."""
    source = "{{ messages[0]['content'] }}{% if tools %}{{ tools | tojson }}{% endif %}"
    prompt = ChatTemplate(source).render([USER], [TOOL], "PROMPT")
    assert prompt.startswith('hi\n---\nPROMPT[{"function":{"arguments":"{')
    assert "\\u003c\\u0026\\u003e" in prompt


def test_earlier_tool_calls_are_shown_as_json() -> None:
    """A message with calls instead of content becomes the JSON of its calls."""
    message = Message("assistant", None, (ToolCall("0", "function", Function("f", {"x": 1})),))
    prompt = ChatTemplate("{% for m in messages %}[{{ m['content'] }}]{% endfor %}").render([message, USER], None, "")
    shown = '[{"id":"0","type":"function","function":{"description":null,"name":"f","arguments":"{\\"x\\":1}"}}]'
    assert prompt == f"[{shown}][hi]"


def test_a_templates_own_exception_is_told_in_the_routers_words() -> None:
    """raise_exception is a syntax error to the router."""
    template = ChatTemplate("{{ raise_exception('no ' + messages[0]['role']) }}")
    with pytest.raises(TemplateProblem, match=r"^syntax error: no user \(in <string>:1\)$"):
        template.render([USER], None, "")
