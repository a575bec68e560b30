"""Chat templates: rendered as transformers does, within a budget, and held to their contract."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import jinja2
import pytest
from jinja2.exceptions import SecurityError
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

import latentmas as lm
from latentmas.backbones import chat_text, render_turns
from latentmas.engine.packing import count_positions, prompt_ids
from latentmas.engine.reuse.prefix import MESSAGE
from latentmas.prompts.render import ChatMessage
from latentmas.testing import tiny_backbone
from latentmas.testing._tiny import tokenizer_of_bytes

START = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
TEMPLATES = {
    "qwen3": """{%- if tools %}{{- '<|im_start|>system\\n' }}
{%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
{%- for tool in tools %}{{- "\\n" }}{{- tool | tojson }}{%- endfor %}{{- "<|im_end|>\\n" }}
{%- elif messages[0].role == 'system' %}
{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}{%- set index = (messages|length - 1) - loop.index0 %}
{%- if ns.multi_step_tool and message.role == "user" and message.content is string and
   not(message.content.startswith('<tool_response>') and
   message.content.endswith('</tool_response>')) %}
{%- set ns.multi_step_tool = false %}{%- set ns.last = index %}{%- endif %}{%- endfor %}
{%- for message in messages %}
{%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
{%- elif message.role == "assistant" %}{%- set content = message.content %}
{%- if '</think>' in content %}{%- set content = content.split('</think>')[-1].lstrip('\\n') %}
{%- endif %}{{- '<|im_start|>assistant\\n' + content.strip('\\n') + '<|im_end|>\\n' }}
{%- elif message.role == "tool" %}
{{- '<|im_start|>user\\n<tool_response>\\n' + message.content }}
{{- '\\n</tool_response><|im_end|>\\n' }}
{%- endif %}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}
{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}""",
    "llama3": """{{- bos_token }}{%- if not date_string is defined %}
{%- set date_string = "26 Jul 2024" %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content']|trim %}
{%- set messages = messages[1:] %}{%- else %}{%- set system_message = "" %}{%- endif %}
{{- "<|im_start|>system\\n" }}{{- "Today Date: " + date_string + "\\n\\n" }}
{%- if tools is not none %}{%- for t in tools %}{{- t | tojson(indent=4) }}{{- "\\n\\n" }}
{%- endfor %}{%- endif %}{{- system_message }}{{- "<|im_end|>" }}
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n\\n' + message['content'] | trim + '<|im_end|>' }}
{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n\\n' }}{%- endif %}""",
    "gemma": """{{ bos_token }}{% if messages[0]['role'] == 'system' %}
{{ raise_exception('System role not supported') }}{% endif %}
{% for message in messages %}
{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}
{% set role = message['role'] %}{% endif %}
{{ '<|im_start|>' + role + '\\n' + message['content'] | trim + '<|im_end|>\\n' }}{% endfor %}
{% if add_generation_prompt %}{{ '<|im_start|>model\\n' }}{% endif %}""",
    "mistral": """{%- set user_messages = messages | selectattr("role", "equalto", "user") | list %}
{%- macro say(text, end='') %}[INST] {{ text }} [/INST]{{ end }}{% endmacro %}
{%- for m in messages %}{%- if m.role == 'tool' %}{% continue %}{% endif %}
{%- if m.role == 'user' %}{{ say(m.content, '\\n' if loop.last else ' ') }}
{%- elif m.role == 'system' %}{{ m.content }}{{ '\\n\\n' -}}
{%- else %}{% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}{% endif %}
{%- if loop.index > 40 %}{% break %}{% endif %}{% endfor %}{{ user_messages | length }}
{%- set d = dict(a=1, **{'b': 2}) %}{{ d.items() | map('first') | join(',') }}
{{ (tools or []) | map(attribute='function.name') | list | tojson(separators=(',', ':')) }}
{{ strftime_now('%Y') | length }}{{ {'k': '<é>'} | tojson }}{{ missing is defined }}
{{ missing }}""",
}
TOOL = {
    "type": "function",
    "function": {
        "name": "double",
        "description": "Doubles <it> & 'more'",
        "parameters": {"type": "object", "properties": {"n": {"type": "integer"}}},
    },
}
TALKS = [
    [("system", " Be brief. "), ("user", "What is <b>3</b>?\n\n ")],
    [("user", "hi"), ("assistant", "<think>\nx\n</think>\n\nyes "), ("user", "again")],
    [("user", "q"), ("assistant", "a"), ("tool", '42 "q"')],
]


def outcome(render: Any, *args: Any, **options: Any) -> str:
    try:
        return str(render(*args, **options))
    except jinja2.TemplateError as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("options", [{}, {"enable_thinking": False, "date_string": "today"}])
@pytest.mark.parametrize("tools", [[], [TOOL]], ids=["plain", "tools"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_renders_as_transformers_renders_it(
    name: str, tools: list[dict[str, Any]], options: dict[str, Any]
) -> None:
    tokenizer = tokenizer_of_bytes()
    tokenizer.chat_template = TEMPLATES[name]
    for talk in TALKS:
        for begin in (True, False):
            wanted = outcome(
                tokenizer.apply_chat_template,
                [{"role": role, "content": text} for role, text in talk],
                tools=tools or None,
                tokenize=False,
                add_generation_prompt=begin,
                **options,
            )
            turns = [ChatMessage(*turn) for turn in talk]
            found = outcome(
                render_turns, tokenizer, turns, options, tools, add_generation_prompt=begin
            )
            assert found == wanted


def test_the_template_for_tools_is_taken_where_there_are_several() -> None:
    tokenizer = tokenizer_of_bytes()
    tokenizer.chat_template = {"default": "plain", "tool_use": "with {{ tools|length }}"}
    assert chat_text(tokenizer, [ChatMessage("user", "x")], {}) == "plain"
    assert chat_text(tokenizer, [ChatMessage("user", "x")], {}, [TOOL]) == "with 1"


# --- budget ---------------------------------------------------------------------------------------

BOMBS = [
    "{{ 'a' * 3000000000 }}",
    "{% for i in range(10**9) %}{% for j in range(10**9) %}{% endfor %}{% endfor %}",
    "{% set n = namespace(s='aa') %}{% for i in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}",
    "{{ 10 ** 10000 }}",
    "{{ 'x'.center(10**9) }}",
    "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
    "{{ messages|tojson(indent=10**9) }}",
    "{{ messages.__class__.__mro__ }}",
    "{% set ns = namespace(_x=1) %}",
]


@pytest.mark.parametrize("template", BOMBS)
def test_a_template_that_asks_for_too_much_stops_in_time(template: str) -> None:
    tokenizer = tokenizer_of_bytes()
    tokenizer.chat_template = template
    began = time.perf_counter()
    with pytest.raises(SecurityError):
        chat_text(tokenizer, [ChatMessage("system", "s"), ChatMessage("user", "x")], {})
    assert time.perf_counter() - began < 60


# --- what a template must do with content ---------------------------------------------------------


def with_template(folder: Path, template: str | None, begins: bool = False) -> lm.Backbone:
    """A tiny model whose tokenizer has this chat template, and may begin texts with `<bos>`."""
    if not folder.exists():
        shutil.copytree(tiny_backbone("llama", 16, layers=1).source, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = template
    if begins:
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<bos> $A <|im_end|>", special_tokens=[("<bos>", 1), ("<|im_end|>", 2)]
        )
    for path in (*folder.glob("chat_template*"), *folder.glob("tokenizer*")):
        path.unlink()
    tokenizer.save_pretrained(folder)
    return lm.Backbone(str(folder))


def team(
    backbone: lm.Backbone, prompt: str = "{{ plan }} {{ question }}", **options: Any
) -> lm.Plan:
    graph = lm.Graph("two", inputs=["question"], rounds=1, latent_steps=3)
    writer = tiny_backbone("llama", 16, layers=1)
    graph.add_agent("planner", writer, prompt="{{ question }}")
    graph.add_agent("solver", backbone, prompt=prompt, **options)
    graph.connect("planner", "solver.plan")
    return graph.output("solver").compile()


BODY = "{% for m in messages %}<|im_start|>{{ m.role }}\n%s<|im_end|>{% endfor %}" + START
LOSSY = {
    "ignores the system turn": BODY.replace(
        "in messages", "in messages if m.role != 'system'"
    ).replace("%s", "{{ m.content }}"),
    "cuts content": BODY.replace("%s", "{{ m.content[:200] }}"),
    "keeps the first line": BODY.replace("%s", "{{ m.content.splitlines()[0] }}"),
    "keeps the last paragraph": BODY.replace("%s", "{{ m.content.split('\\n\\n')[-1] }}"),
    "escapes content": BODY.replace("%s", "{{ m.content|e }}"),
    "repeats content": BODY.replace("%s", "{{ m.content }}{{ m.content }}"),
    "changes case": BODY.replace("%s", "{{ m.content|lower }}"),
    "fails": BODY.replace("%s", "{{ 1 // 0 }}"),
}


@pytest.mark.parametrize("name", LOSSY)
def test_a_template_that_does_not_keep_content_is_refused_at_load(
    name: str, tmp_path: Path
) -> None:
    backbone = with_template(tmp_path / "model", LOSSY[name])
    plan = team(backbone, "{{ question }}", system="Plan: {{ plan }}")
    with pytest.raises(lm.DataError) as caught:
        plan.load()
    for word in (backbone.source, "'solver'", "chat template"):
        assert word in str(caught.value)
    if name != "fails":
        assert "{{ plan }}" in str(caught.value)
        assert "chat_template" in str(caught.value)


def test_a_template_that_drops_the_system_turn_serves_agents_without_one(tmp_path: Path) -> None:
    backbone = with_template(tmp_path / "model", LOSSY["ignores the system turn"])
    assert team(backbone).load()("x", max_new_tokens=1).texts


def test_a_template_with_a_bomb_is_refused_at_load(tmp_path: Path) -> None:
    plan = team(with_template(tmp_path / "model", BOMBS[0]))
    with pytest.raises(lm.DataError, match=r"chat template .* cannot be rendered .* over .* bytes"):
        plan.load()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("{{ m.content[:20000] }}", "field 'question'"),
        ("{{ m.content if m.content|length < 5000 else m.content * 2 }}", "slot 'plan'"),
    ],
)
def test_what_is_lost_only_in_long_turns_is_found_in_the_run(
    content: str, named: str, tmp_path: Path
) -> None:
    plan = team(
        with_template(tmp_path / "model", BODY.replace("%s", content)),
        "{{ plan }} " + "and so on " * 2100 + "{{ question }}",
    )
    system = plan.load()
    solver = plan.graph.agent("solver")
    with pytest.raises(lm.DataError, match=f"{named} of agent 'solver'"):
        count_positions(system.backbone_of("solver"), solver, {"question": "x"}, {"plan": 3})


def test_a_slot_that_a_prompt_places_twice_arrives_twice(tmp_path: Path) -> None:
    backbone = with_template(tmp_path / "model", BODY.replace("%s", "{{ m.content|trim }}"))
    plan = team(backbone, " {{ plan }}{{ plan }} {{ question }}{{ question }} ")
    served, solver = plan.load().backbone_of("solver"), plan.graph.agent("solver")
    ids_BT = prompt_ids(served, solver, [{"question": " x "}], {"plan": 3})
    assert int((ids_BT == MESSAGE).sum()) == 6
    kept = ids_BT[0][ids_BT[0] != MESSAGE]
    text = served.tokenizer.decode(kept)
    assert text == "<|im_start|>user\n  x  x<|im_end|><|im_start|>assistant\n"


def test_a_template_that_refuses_system_turns_gets_them_in_the_user_turn(tmp_path: Path) -> None:
    backbone = with_template(tmp_path / "model", TEMPLATES["gemma"])
    plan = team(backbone, "Q {{ question }}", system="S {{ plan }}")
    served, solver = plan.load().backbone_of("solver"), plan.graph.agent("solver")
    ids = prompt_ids(served, solver, [{"question": "<|im_end|>"}], {"plan": 2})[0].tolist()
    at = ids.index(MESSAGE)
    before = "<bos><|im_start|>user\nS "
    assert served.tokenizer.decode(ids[:at]) == before
    assert ids[at : at + 2] == [MESSAGE] * 2
    assert ids.count(served.tokenizer.eos_token_id) == 1


# --- models without a chat template ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "begins"),
    [
        ("{{ plan }} {{ question }}", True),
        ("Q {{ question }}{{ plan }}", True),
        ("<bos>Q {{ question }}{{ plan }}", True),
        ("Q {{ question }}{{ plan }}", False),
    ],
)
def test_plain_text_begins_as_the_tokenizer_begins_it(
    prompt: str, begins: bool, tmp_path: Path
) -> None:
    plan = team(with_template(tmp_path / "model", None, begins), prompt)
    served, solver = plan.load().backbone_of("solver"), plan.graph.agent("solver")
    ids = prompt_ids(served, solver, [{"question": "<bos>x"}], {"plan": 2})[0].tolist()
    first = served.tokenizer.bos_token_id
    assert ids.count(first) == begins
    assert (ids[0] == first) == begins
    assert ids.count(MESSAGE) == 2
    rest = (
        prompt.removeprefix("<bos>").replace("{{ plan }}", "").replace("{{ question }}", "<bos>x")
    )
    assert served.tokenizer.decode([id for id in ids[begins:] if id != MESSAGE]) == rest


def test_a_chat_template_writes_its_beginning_itself(tmp_path: Path) -> None:
    plan = team(with_template(tmp_path / "model", BODY.replace("%s", "{{ m.content }}"), True))
    served, solver = plan.load().backbone_of("solver"), plan.graph.agent("solver")
    ids = prompt_ids(served, solver, [{"question": "x"}], {"plan": 2})[0].tolist()
    assert served.tokenizer.bos_token_id not in ids


def test_thousands_of_values_take_no_more_than_seconds(tmp_path: Path) -> None:
    plan = team(
        with_template(tmp_path / "model", BODY.replace("%s", "{{ m.content }}")),
        "{{ plan }}{% for row in question %}<|im_start|>{{ row }}\n{% endfor %}",
    )
    served, solver = plan.load().backbone_of("solver"), plan.graph.agent("solver")
    rows = [f"{i} <|im_end|>" for i in range(5000)]
    began = time.perf_counter()
    count = count_positions(served, solver, {"question": rows}, {"plan": 3})
    assert time.perf_counter() - began < 60
    scaffold = len("_user\n") + 3 + len("__assistant\n")
    assert count == scaffold + sum(len(f"_{row}\n") for row in rows)
