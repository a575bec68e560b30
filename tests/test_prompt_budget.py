"""Prompts pay for what they do: what is sound renders as ever, what is not stops in time."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment

import latentmas as lm
from latentmas.prompts.budget import Budget, OverBudgetError, rendering
from latentmas.prompts.render import check_template, render_prompt
from latentmas.spec import AgentSpec

VALUES: dict[str, Any] = {
    "question": "What is 3 + 4?\nA) 7\nB) 8\n",
    "plan": "  first, <b>then</b> “second” ",
    "rows": [{"name": "a", "n": 2}, {"name": "b", "n": 1}, {"name": "a", "n": 3}],
    "pair": ("x", 1.5),
    "empty": [],
    "none": None,
}
EXPRESSIONS = """
question | plan|trim | rows[0].name | pair[1] | rows[0]['n'] | rows|map(attribute='name')|join(', ')
7 // 2 | 7 % 4 | 2 ** 8 | 1 / 2 | -3 | +3 | 2 * 3 - 1 | 'a' ~ 1 ~ none ~ true | 'a' + 'b' | 'ab' * 3
[1] + [2] | (1, 2) | {1: 2} | [] | 'x' if empty else 'y' | question|upper|replace('A', 'b')
question|truncate(12) | 3.14159|round(2) | '%05d'|format(42) | '%s and %s' % ('a', 'b') | 10 % 3
'{}-{x:>4}'.format(1, x='y') | '{a}'.format_map({'a': 1}) | '{0!r}'.format('q') | rows|tojson
rows|groupby('name')|length | rows|sort(attribute='n')|map(attribute='n')|list | plan|e | plan|title
plan|wordcount | 'x'|center(9) | 'a\\nb'|indent(2) | range(5)|list | range(2, 9, 3)|sum | [3, 1]|max
'abc'|reverse | [1, 2, 3]|batch(2)|list | [1, 2, 3]|slice(2)|list | question[2:9] | question[::-1]
rows[-1].n | 'b' > 'a' | 1 < 2 < 3 | 1 == 1.0 | 'a' in question | 3 not in [1] | missing is defined
missing|default('d') | 4 is even | 'x' is string | 3 is in [1, 3] | 6 is divisibleby 3
none is none | cycler('a', 'b').next() | joiner(',')() | dict(a=1).items()|list | 'a,b'.split(',')
'ab'|first | question.strip().lower().startswith('what') | 'a-b'.partition('-')
'x'.join(['1', '2']) | 'ab'|last | plan|wordwrap(5) | 'a b'|urlencode
'5'|int + 1 | '2.5'|float | plan|striptags
'x y'|capitalize | rows|selectattr('n', 'gt', 1)|list|length | rows|map(attribute='n')|min
[1, 1, 2]|unique|list | {'b': 1, 'a': 2}|dictsort | [[1, 2], [3]]|sum(start=0) if false else 1
plan|urlize | rows|pprint
'a\\tb'.expandtabs(4) | 'abc'.translate({97: 'x'}) | 'abc'.zfill(5) | 'é'.encode('utf-8')
'a'.ljust(3)
"""
STATEMENTS = [
    "plain text, { no jinja } and {# a comment #}%",
    "{% for line in question.split('\\n') %}{{ loop.index }}/{{ loop.length }} {{ line }};"
    "{% endfor %}",
    "{% for row in rows if row.n > 1 %}{{ row.name }}{{ loop.last }}{% else %}none{% endfor %}",
    "{% for row in empty %}x{% else %}nothing{% endfor %}",
    "{% set n = namespace(total=0) %}"
    "{% for r in rows %}{% set n.total = n.total + r.n %}{% endfor %}{{ n.total }}",
    "{% if 'A)' in question and not empty %}yes{% elif none %}no{% else %}else{% endif %}",
    "{% macro say(what, times=2) %}{{ what * times }}{{ varargs }}{{ kwargs }}{% endmacro %}"
    "{{ say('hi') }}{{ say('a', 1, 'more', k=3) }}",
    "{% macro box() %}[{{ caller() }}]{% endmacro %}{% call box() %}{{ plan }}{% endcall %}",
    "{% filter upper %}{{ question }}{% endfilter %}",
    "{% set t %}<{{ plan }}>{% endset %}{{ t|length }}{% set a, b = 1, 2 %}{{ a + b }}",
    "{% for a in [1, [2, [3]]] recursive %}{{ loop(a) if a is iterable else a }}{% endfor %}",
    "{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{% raw %}{{ raw }}{% endraw %}",
    "{% block c %}b{% endblock %}{{ self.c() }}",
]
SOUND = [
    *STATEMENTS,
    *(f"{{{{ {one} }}}}" for line in EXPRESSIONS.split("\n") for one in line.split(" | ") if one),
]


def agent(prompt: str) -> AgentSpec:
    return AgentSpec(name="a", backbone="b", prompt=prompt)


def said(prompt: str, values: dict[str, Any] = VALUES) -> str:
    return render_prompt(agent(prompt), values).turns[-1].content


@pytest.mark.parametrize("prompt", SOUND)
def test_sound_templates_render_as_they_do_in_jinja(prompt: str) -> None:
    plain = ImmutableSandboxedEnvironment(keep_trailing_newline=True, autoescape=False)
    check_template(agent(prompt))
    assert said(prompt) == plain.from_string(prompt).render(VALUES)


def test_an_iterator_is_shown_as_a_list() -> None:
    """The one difference: Jinja would show `<generator object …>`, and call an empty one true."""
    assert said("{{ rows|map(attribute='n') }}") == "[2, 1, 3]"
    assert said("{% if empty|select %}yes{% else %}no{% endif %}") == "no"


def test_a_long_sample_has_a_larger_budget() -> None:
    prompt = "{% for line in question.split('\\n') %}{% for word in line.split() %}{{ word }}"
    prompt += "{% endfor %}{% endfor %}"
    long = {"question": "some words here\n" * 20_000}
    assert len(said(prompt, long)) == 13 * 20_000
    with rendering(["x"]) as small, rendering(["x" * 10**6]) as large:
        assert large.steps > 100 * small.steps and large.longest > small.longest
    assert said("{{ question }}", {"question": "é" * 3_000_000}) == "é" * 3_000_000


GROWTH = ("n.x ~ n.x", "n.x + n.x", "n.x * 2", "n.x|string ~ n.x", "[n.x, n.x]|join")


@settings(max_examples=30)
@given(st.integers(1, 40), st.sampled_from(GROWTH))
def test_growth_ends_at_the_same_size_whatever_makes_it(times: int, step: str) -> None:
    prompt = f"{{% set n = namespace(x='ab') %}}{{% for i in range({times}) %}}"
    prompt += f"{{% set n.x = {step} %}}{{% endfor %}}{{{{ n.x|length }}}}"
    try:
        assert said(prompt, {}) == str(2 * 2**times)
    except OverBudgetError:
        assert 2 * 2**times > 2**18


def test_every_thread_has_its_own_budget() -> None:
    bomb = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    found: list[str] = []

    def refuse() -> None:
        with pytest.raises(OverBudgetError):
            said(bomb, {})
        found.append(said("{{ question }}"))

    threads = [threading.Thread(target=refuse) for _ in range(4)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [VALUES["question"]] * 4 and time.perf_counter() - began < 60


def test_a_template_cannot_pay_itself() -> None:
    cheat = "{% set x = [1]|map('charge for running', -10 ** 12)|list %}"
    bomb = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    with pytest.raises(OverBudgetError):
        said(cheat + bomb, {})
    own = Budget()
    steps = own.steps
    own.spend(-5)
    assert own.steps == steps


def test_the_compiler_says_it_and_a_run_says_where() -> None:
    bomb = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    graph = lm.Graph("solo", inputs=["question"], rounds=1)
    graph.add_agent("alone", lm.Backbone("nowhere"), prompt="{{ question }}" + bomb)
    with pytest.raises(lm.GraphError) as caught:
        graph.output("alone").compile()
    assert "LM301" in [problem.code for problem in caught.value.problems]
    assert "more work than a prompt may" in str(caught.value)
