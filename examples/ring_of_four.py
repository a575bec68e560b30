"""Teaches: a topology of your own, a ring of four, trains from random links and improves.

Four agents each hold private facts `key value`; a question is a chain of look-ups through some of
their tables, so nobody can answer alone. The edge loop needs no answers: the team's own words are
its teacher. The paper's links (`recursive`) start at random, and with one latent step this loop is
enough; links of the default kind would not start at random.
"""

import random
from itertools import islice, pairwise

import latentmas as lm
from latentmas.demo.run import backbone
from latentmas.demo.task import AGENTS, WORDS

NAMES, ROUNDS, FACTS = ("north", "east", "south", "west"), 2, 4
STEPS, HELD_OUT = 100, 256


def ring() -> lm.Graph:
    """Each agent looks the word up that reaches it, and passes on what it finds."""
    inputs = ["question", *(f"{name}_facts" for name in NAMES)]
    graph = lm.Graph("ring-of-four", inputs=inputs, rounds=ROUNDS, latent_steps=1)
    for name, model in zip(NAMES, (*AGENTS, AGENTS[0]), strict=True):  # two share a backbone
        word = "{% if word %}{{ word }}{% else %}{{ question }}{% endif %}"
        word = word if name == NAMES[0] else "{{ word }}"
        prompt = f"facts {{{{ {name}_facts }}}} at {word}"
        graph.add_agent(name, backbone(model), prompt=prompt, inner="recursive")
    for sender, receiver in pairwise(NAMES):
        graph.connect(sender, f"{receiver}.word", link="recursive")
    graph.feedback("west", "north.word", link="recursive")
    return graph.output("west")


def rows(count: int, seed: int) -> list[dict[str, str]]:
    """Chains of one to six facts, each with an agent who is passed after the one before."""
    chance, made = random.Random(seed), []
    for _ in range(count):
        stops = sorted(chance.sample(range(len(NAMES) * ROUNDS), chance.randint(1, 6)))
        words = chance.sample(WORDS, len(WORDS))
        chain, spare = words[: len(stops) + 1], iter(words[len(stops) + 1 :])
        tables: list[list[str]] = [[] for _ in NAMES]
        for stop, key, value in zip(stops, chain, chain[1:], strict=False):
            tables[stop % len(NAMES)].append(f"{key} {value}")
        row = {"question": chain[0], "answer": chain[-1]}
        for name, table in zip(NAMES, tables, strict=True):
            keys = islice(spare, FACTS - len(table))  # of no chain
            others = [f"{key} {chance.choice(WORDS)}" for key in keys]
            facts = chance.sample([*table, *others], len(table) + len(others))
            row[f"{name}_facts"] = " . ".join(facts)
        made.append(row)
    return made


def accuracy(system: lm.System) -> float:
    """Share of right answers to questions that were not trained on."""
    held_out = rows(HELD_OUT, seed=1)
    texts = system.run(held_out, max_new_tokens=1).texts
    hits = sum(text.strip() == row["answer"] for text, row in zip(texts, held_out, strict=True))
    return hits / HELD_OUT


if __name__ == "__main__":
    system = ring().compile().load(seed=0)
    print(f"untrained: {accuracy(system):.2f}")
    config = lm.EdgeConfig(
        "out/ring", max_steps=STEPS, per_device_train_batch_size=64, warmup_steps=10, use_cpu=True
    )
    lm.EdgeTrainer(system, config, train_dataset=rows(1024, seed=0)).train()
    print(f"after {STEPS} steps of the edge loop: {accuracy(system):.2f}")
    system.save_pretrained("out/ring/team")
