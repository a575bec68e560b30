"""Prompt optimisation by textual gradients, with the package textgrad."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from pydantic import Field

from latentmas.atomic import write_text_atomically
from latentmas.evaluation import evaluate
from latentmas.plan import Plan
from latentmas.prompts import template_variables
from latentmas.runtime import System
from latentmas.safe_data import read_json
from latentmas.spec import AgentSpec, Graph
from latentmas.studies.baselines import (
    Baseline,
    BaselineJob,
    Effort,
    MadeBaseline,
    baselines,
    load_alone,
)
from latentmas.studies.baselines._base import Row, count_parameters
from latentmas.studies.baselines._prompt import single_agent
from latentmas.studies.baselines._prompt_engines import (
    ask_endpoint,
    ask_own_model,
    engine_of,
    logged_in,
)
from latentmas.studies.baselines.single import SingleOptions

__all__ = ["TextGrad", "TextGradOptions"]

START = "Follow the instructions of the user exactly."
"""First system turn of an agent that has none."""
LIMIT = "Return only the new text; it must not hold curly braces."
LARGEST = 2**24
PURPOSE = "Language models that answer a question, each with a system prompt of its own"
COMPARES = "Compares the answer with the correct answer: 1 if it is right, 0 if it is wrong"


class TextGradOptions(SingleOptions):
    """Options of prompt optimisation."""

    of: Literal["text_twin", "single"] = "text_twin"
    """Whose system turns are optimised: all agents' of the text twin, or the single agent's."""
    engine: str | None = None
    """Base URL of an endpoint with OpenAI's API whose model criticises and rewrites the prompts,
    such as `http://localhost:8000/v1`. None: the output agent's own model, in this process."""
    engine_model: str | None = None
    """Name of the endpoint's model. None: the first that it lists."""
    engine_key: str = "OPENAI_API_KEY"
    """Environment variable that holds the endpoint's API key."""
    engine_tokens: int = Field(default=512, ge=1)
    """Maximum number of tokens in an answer of the engine."""
    validation_rows: int = Field(default=16, ge=1)
    """Number of training rows, from the first, on which new prompts must not score lower."""


@baselines.register("textgrad")
class TextGrad(Baseline):
    """System turns that a language model rewrites step by step (TextGrad, arXiv 2406.07496).

    A step runs the agents on a batch of training rows, lets the engine criticise each system turn
    in view of the answers that were graded, and rewrite it. New turns are kept if they do not score
    lower on the validation rows. No weights are trained.
    """

    summary = "system turns of the agents rewritten by textual gradients"
    trains = True
    packages = MappingProxyType({"textgrad": "textgrad", "openai": "textgrad"})
    Options = TextGradOptions

    def graph(self, plan: Plan) -> Graph:
        """The text twin, or the single agent, before optimisation."""
        asked = self.options
        if asked.of == "single":
            return single_agent(
                plan, prompt=asked.prompt, system=asked.system, max_new_tokens=asked.max_new_tokens
            )
        return Graph.from_spec(plan.graph).as_text(max_new_tokens=asked.max_new_tokens)

    def problems(self, plan: Plan) -> Iterator[str]:
        """Besides missing packages: options of the single agent for the text twin."""
        yield from super().problems(plan)
        if self.options.of == "text_twin":
            for name in ("prompt", "system"):
                if getattr(self.options, name) is not None:
                    yield f"baseline 'textgrad': {name} requires of='single'"

    def make(self, job: BaselineJob) -> MadeBaseline:
        """Optimise the system turns, or continue, and load the best."""
        search = _Search.begun(self, job)
        with logged_in(job.folder) as tg:
            engine = engine_of(self._ask(job), search.counts)
            while search.step < job.budget.max_steps:
                _descend(tg, engine, search)
        system = search.system(search.texts)
        rows = job.budget.max_steps * min(job.budget.batch_size, len(job.train_rows))
        effort = Effort(
            parameters=count_parameters(system),
            steps=job.budget.max_steps,
            rows=rows,
            tokens=None,
        )
        return MadeBaseline(system, effort, {**search.counts, "system_turns": search.texts})

    def _ask(self, job: BaselineJob) -> Any:
        asked = self.options
        if asked.engine is None:
            return ask_own_model(job.team, asked.engine_tokens)
        return ask_endpoint(asked.engine, asked.engine_model, asked.engine_key, asked.engine_tokens)


def _descend(tg: Any, engine: Any, search: _Search) -> None:
    """One step of textual gradient descent."""
    job, batch = search.job, search.batch()
    texts, marks = search.answers(search.texts, batch)
    variables = {
        agent: tg.Variable(text, role_description=f"system prompt of the agent {agent}")
        for agent, text in search.texts.items()
    }
    losses = [
        _loss(tg, variables, _shown(row, job.team.plan), text, str(row[job.answer_field]), mark)
        for row, text, mark in zip(batch, texts, marks, strict=True)
    ]
    tg.sum(losses).backward(engine)
    descent = tg.TextualGradientDescent(
        parameters=list(variables.values()), engine=engine, constraints=[LIMIT]
    )
    try:
        descent.step()
    except IndexError:  # the engine did not mark its new text, as weak models often fail to do
        search.count("unreadable_updates")
    search.judge({agent: str(variable.value) for agent, variable in variables.items()})


@dataclass
class _Search:
    """The best system turns so far; kept in a file, so that a search continues."""

    job: BaselineJob
    graph: Graph
    validation: Sequence[Row]
    texts: dict[str, str]
    """System turn by agent."""
    score: float = -1.0
    """Score on the validation rows; -1 before it is measured."""
    step: int = 0
    counts: dict[str, int] = field(default_factory=dict)

    @classmethod
    def begun(cls, baseline: TextGrad, job: BaselineJob) -> _Search:
        """A search at its beginning, or where it was stopped."""
        graph = baseline.graph(job.team.plan)
        texts = {agent.name: _start(agent) for agent in graph.spec().agents}
        rows = job.train_rows[: baseline.options.validation_rows]
        search = cls(job, graph, rows, texts)
        path = job.folder / "search.json"
        if path.exists():
            for name, value in read_json(path, LARGEST).items():
                setattr(search, name, value)
        if search.score < 0:
            search.score = search.validated(search.texts)
        return search

    def batch(self) -> list[Row]:
        """Training rows of the next step."""
        rows, count = self.job.train_rows, self.job.budget.batch_size
        draw = random.Random(f"{self.job.seed} {self.step}")
        return draw.sample(list(rows), min(count, len(rows)))

    def system(self, texts: Mapping[str, str]) -> System:
        """The agents with these system turns."""
        spec = self.graph.spec()
        agents = [_with_turn(agent, texts[agent.name]) for agent in spec.agents]
        return load_alone(self.job.team, Graph.from_spec(spec.replace(agents=agents)))

    def answers(
        self, texts: Mapping[str, str], rows: Sequence[Row]
    ) -> tuple[list[str], list[float]]:
        """Answers to rows, and their scores."""
        found = evaluate(
            self.system(texts),
            rows,
            grader=self.job.grader,
            answer_field=self.job.answer_field,
            options=self.job.run_options,
        )
        return list(found.texts), list(found.row_scores)

    def validated(self, texts: Mapping[str, str]) -> float:
        """Mean score on the validation rows."""
        _, scores = self.answers(texts, self.validation)
        return sum(scores) / len(scores)

    def judge(self, texts: Mapping[str, str]) -> None:
        """Keep new system turns if they do not score lower; the step is over."""
        plain = {agent: _plain(text) for agent, text in texts.items()}
        if plain != self.texts:
            score = self.validated(plain)
            if score >= self.score:
                self.texts, self.score = plain, score
                self.count("kept_updates")
        self.step += 1
        told = {name: getattr(self, name) for name in ("texts", "score", "step", "counts")}
        text = json.dumps(told, indent=1, ensure_ascii=False) + "\n"
        write_text_atomically(self.job.folder / "search.json", text)

    def count(self, name: str) -> None:
        """Count an event."""
        self.counts[name] = self.counts.get(name, 0) + 1


def _loss(
    tg: Any, variables: Mapping[str, Any], question: str, text: str, gold: str, mark: float
) -> Any:
    """The grade of an answer, as textgrad's function of the system turns."""
    from textgrad.autograd.string_based_ops import StringBasedFunction

    asked = tg.Variable(question, requires_grad=False, role_description="question to the agents")
    correct = tg.Variable(gold, requires_grad=False, role_description="correct answer")
    answered = StringBasedFunction(lambda **_: text, PURPOSE)(
        inputs={**variables, "question": asked}, response_role_description="answer of the agents"
    )
    return StringBasedFunction(lambda **_: f"{mark:g}", COMPARES)(
        inputs={"answer": answered, "correct_answer": correct},
        response_role_description="grade of the answer",
    )


def _shown(row: Row, plan: Plan) -> str:
    """The inputs of a row as a text."""
    return "\n".join(f"{name}: {row[name]}" for name in plan.graph.inputs)


def _start(agent: AgentSpec) -> str:
    """First text of an agent's system turn: its own, where it is plain text."""
    return agent.system if agent.system and _is_plain(agent.system) else START


def _with_turn(agent: AgentSpec, text: str) -> AgentSpec:
    """The agent with a system turn; one that is a template stays, and the text follows it."""
    kept = "" if not agent.system or _is_plain(agent.system) else f"{agent.system}\n"
    return agent.model_copy(update={"system": kept + _plain(text)})


def _is_plain(text: str) -> bool:
    return not template_variables(text) and _plain(text) == text


def _plain(text: str) -> str:
    """A text that Jinja takes as it is."""
    for mark in ("{{", "{%", "{#"):
        text = text.replace(mark, " ".join(mark))
    return text
