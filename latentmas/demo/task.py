"""Private pointer chasing: questions for three agents that need 1 to 3 rounds, by difficulty.

Each of the three agents knows a few private facts, each a pair ``key value``. A chain of facts
leads from the question word to the answer, and its facts are spread over the agents. The word
travels planner -> critic -> solver -> planner -> ...; an agent that has a fact about the word
replaces it with the value, at most ``HOPS`` times per turn, and otherwise passes it on unchanged.
One agent alone can therefore answer hardly any question, and a question of difficulty k cannot be
answered before round k: ``reach`` computes this exactly.
"""

from __future__ import annotations

import random
from itertools import product
from typing import Any

Row = dict[str, Any]

AGENTS = ("planner", "critic", "solver")
WORDS = (
    *("apple", "bell", "cloud", "drum", "eagle", "fern", "grape", "horn", "iron", "jade", "kite"),
    *("lamp", "moon", "nest", "oak", "pearl", "quill", "rose", "stone", "tiger", "urn", "vine"),
    *("wolf", "yarn"),
)
FACTS = 4  # private facts per agent
HOPS = 1  # facts an agent follows in one turn; also the latent steps it needs
ROUNDS = 3  # the largest difficulty
MAX_CHAIN = 4  # facts between the question and the answer

PROMPTS = {
    "planner": (
        "facts {{ planner_facts }} at "
        "{% if feedback %}{{ feedback }}{% else %}{{ question }}{% endif %}"
    ),
    "critic": "facts {{ critic_facts }} at {{ planner }}",
    "solver": "facts {{ solver_facts }} at {{ critic }}",
}
SINGLE_PROMPT = "facts {{ solver_facts }} at {{ question }}"


def single_prompt(row: Row) -> str:
    """The prompt of a single solver, with only its own facts and the question word."""
    return f"facts {row['solver_facts']} at {row['question']}"


def make_rows(n: int, seed: int, *, split: str = "train") -> list[Row]:
    """Make ``n`` JSON-serialisable rows with difficulties 1 to 3 in equal shares, shuffled.

    Fields: ``question``, ``answer``; ``planner_facts``, ``critic_facts``, ``solver_facts``; the
    output of each agent in round 1 (``planner``, ``critic``, ``solver``); ``chain``, all words from
    question to answer; ``difficulty``. Equal arguments give equal rows; a different ``split`` or
    ``seed`` gives different rows.
    """
    rng = random.Random(f"{split}/{seed}")
    difficulties = [1 + i % ROUNDS for i in range(n)]
    rng.shuffle(difficulties)
    return [_make_row(rng, difficulty) for difficulty in difficulties]


def inner_rows(n: int, seed: int) -> list[Row]:
    """Rows for the inner loop: the fields ``planner``, ``critic``, ``solver`` are the targets."""
    return make_rows(n, seed, split="inner")


def train_rows(n: int, seed: int) -> list[Row]:
    """Rows for the outer loop."""
    return make_rows(n, seed, split="outer")


def heldout_rows(n: int, seed: int) -> list[Row]:
    """Rows for evaluation, drawn independently of both training sets."""
    return make_rows(n, seed, split="heldout")


def reach(row: Row, rounds: int) -> str:
    """The word that a perfect team holds after ``rounds`` rounds, computed from the facts."""
    word = row["question"]
    for _ in range(rounds):
        for agent in AGENTS:
            word = turn(row[f"{agent}_facts"], word)[-1]
    return str(word)


def ceiling(rows: list[Row], rounds: int) -> float:
    """The proportion of ``rows`` that a perfect team answers in ``rounds`` rounds."""
    return sum(reach(row, rounds) == row["answer"] for row in rows) / len(rows)


def turn(facts: str, word: str, hops: int = HOPS) -> list[str]:
    """An agent's output for ``word`` given its ``facts``: ``hops`` words; a dead end repeats."""
    table = dict(fact.split() for fact in facts.split(" . "))
    said = []
    for _ in range(hops):
        word = table.get(word, word)
        said.append(word)
    return said


def correct(text: str, row: Row) -> bool:
    """Whether the last word of the decoded ``text`` is the answer."""
    said = text.split()
    return bool(said) and said[-1] == row["answer"]


def rounds_needed(owners: tuple[int, ...]) -> int:
    """Number of rounds for a chain whose i-th fact is known to agent ``owners[i]`` (0, 1 or 2)."""
    now, rounds, used = -1, 1, HOPS
    for owner in owners:
        if owner == now and used < HOPS:
            used += 1
            continue
        rounds += owner <= now
        now, used = owner, 1
    return rounds


def _owner_sequences() -> dict[int, dict[int, list[tuple[int, ...]]]]:
    """All ways to distribute a chain over the agents, by difficulty and by length."""
    table: dict[int, dict[int, list[tuple[int, ...]]]] = {k: {} for k in range(1, ROUNDS + 1)}
    for length in range(1, MAX_CHAIN + 1):
        for owners in product(range(len(AGENTS)), repeat=length):
            if max(map(owners.count, owners)) <= FACTS and (k := rounds_needed(owners)) in table:
                table[k].setdefault(length, []).append(owners)
    return table


_OWNERS = _owner_sequences()


def _make_row(rng: random.Random, difficulty: int) -> Row:
    """Make a row: a chain of distinct words, its facts given to their owners, and distractors."""
    by_length = _OWNERS[difficulty]
    owners = rng.choice(by_length[rng.choice(list(by_length))])
    words = rng.sample(WORDS, len(WORDS))
    chain, unused = words[: len(owners) + 1], iter(words[len(owners) + 1 :])
    tables: list[list[tuple[str, str]]] = [[] for _ in AGENTS]
    for owner, key, value in zip(owners, chain, chain[1:], strict=False):
        tables[owner].append((key, value))
    row: Row = {"question": chain[0]}
    for agent, table in zip(AGENTS, tables, strict=True):
        for key in (next(unused) for _ in range(FACTS - len(table))):
            table.append((key, rng.choice([word for word in WORDS if word != key])))
        rng.shuffle(table)
        row[f"{agent}_facts"] = " . ".join(f"{key} {value}" for key, value in table)
    word = chain[0]
    for agent in AGENTS:
        said = turn(row[f"{agent}_facts"], word)
        row[agent], word = " ".join(said), said[-1]
    return row | {"answer": chain[-1], "chain": " ".join(chain), "difficulty": difficulty}
