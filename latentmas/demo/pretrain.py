"""Train the three backbones of the built-in experiment from scratch, in a few CPU minutes.

Each learns a single skill: to look a word up in the facts of its prompt and output the value, or to
repeat the word if no fact has it as key. Prompts are `task.PROMPTS` in the tokenizer's chat
template, split at the word just as the runtime splits them at a slot.

Models this small learn the look-up only with help. The query and key norms of Qwen3 are enough;
Llama and Qwen2 start as a Qwen3 model, whose norms are then folded into the projections
(`fold_norms`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jinja2 import Template
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from latentmas.demo.task import FACTS, HOPS, PROMPTS, WORDS

SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>", "<user>", "<assistant>", "<end>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}> {{ message['content'] }} <end> "
    "{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
SHAPES: dict[str, tuple[type, int]] = {
    "planner": (Qwen3Config, 64),
    "critic": (LlamaConfig, 96),
    "solver": (Qwen2Config, 48),
}

Progress = Callable[[str, int, float], None]


@dataclass(frozen=True)
class Phase:
    """One phase of training: AdamW with a one-cycle learning rate."""

    steps: int
    rate: float
    turns: int
    """Number of look-ups per list of facts."""
    batch: int
    noise: float = 0.0
    """Maximum noise on the embedded word, in units of the embeddings' RMS."""


COURSES: dict[str, tuple[Phase, ...]] = {
    "planner": (Phase(2000, 3e-3, 1, 64, 0.5),),
    "critic": (Phase(600, 2e-3, 6, 32, 0.3), Phase(300, 2e-3, 6, 32, 0.3)),
    "solver": (
        *(Phase(1000, 3e-3, 6, 32, 0.3), Phase(600, 2e-3, 6, 32, 0.3)),
        *(Phase(1000, 3e-3, 6, 32, 0.6), Phase(600, 2e-3, 6, 32, 1.2)),
    ),
}
ATTEMPTS, GOOD = 5, 0.995  # training that ends on a plateau restarts with another seed
LAST = Phase(400, 1.5e-3, 6, 32, 1.2)  # for all models: messages are never exact embeddings


@dataclass(frozen=True)
class Lookups:
    """A batch of look-ups as token ids; each row has one set of facts.

    ``ids`` (B, T) holds the prompt and its answer, then more ``at word`` turns with their answers;
    ``answer`` and ``word`` (T,) mark the positions of answer tokens and of looked-up words.
    """

    ids: torch.Tensor
    answer: torch.Tensor
    word: torch.Tensor


def pretrain(
    output_dir: str | Path,
    *,
    seed: int = 0,
    steps: int | None = None,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Train the backbones and save each as a model folder ``output_dir/<agent>``.

    ``steps`` limits every phase, for a quick test. ``progress`` is called with agent, step and loss
    every 100 steps. Returns each agent's accuracy on new look-ups. A model that has not learned the
    look-up is trained again with another seed, a few times.
    """
    tokenizer, accuracy = make_tokenizer(), {}
    for agent in SHAPES:
        for attempt in range(ATTEMPTS):
            model, share = _pretrain_one(agent, tokenizer, seed + 1000 * attempt, steps, progress)
            if share >= GOOD or steps is not None:
                break
        accuracy[agent] = share
        model.save_pretrained(Path(output_dir) / agent)
        tokenizer.save_pretrained(Path(output_dir) / agent)
    return accuracy


def _pretrain_one(
    agent: str,
    tokenizer: PreTrainedTokenizerFast,
    seed: int,
    steps: int | None,
    progress: Progress | None,
) -> tuple[Any, float]:
    """Train a model; returns it and its look-up accuracy."""
    family, width = SHAPES[agent]
    generator = torch.Generator().manual_seed(seed)
    parts = prompt_parts(agent, tokenizer)
    folded = family is not Qwen3Config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make_model(Qwen3Config if folded else family, width, tokenizer)
        final = make_model(family, width, tokenizer) if folded else model
    for number, phase in enumerate((*COURSES[agent], LAST)):
        if folded and number == 1:
            fold_norms(model, final, make_lookups(parts, 64, HOPS, 6, generator))
            model = final
        capped = replace(phase, steps=min(phase.steps, steps or phase.steps))
        _train(model, capped, parts, generator, partial(progress, agent) if progress else None)
    return model, lookup_accuracy(model, parts, generator)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """The word-level tokenizer that all three backbones share; ids of `WORDS` are consecutive."""
    vocabulary = {token: i for i, token in enumerate((*SPECIAL, "facts", "at", ".", *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        unk_token="<unk>",
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def make_model(family: type, width: int, tokenizer: PreTrainedTokenizerFast) -> Any:
    """An untrained two-layer model with four heads and tied embeddings."""
    config = family(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=width // 4,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        dtype="float32",
    )
    return AutoModelForCausalLM.from_config(config)


def prompt_parts(agent: str, tokenizer: PreTrainedTokenizerFast) -> tuple[torch.Tensor, ...]:
    """Token ids of the agent's prompt: before the facts, between facts and word, after the word."""
    fields = {f"{agent}_facts": "|", "question": "|", "planner": "|", "critic": "|"}
    content = Template(PROMPTS[agent]).render(fields | {"feedback": ""})
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    parts = str(text).split("|")
    return tuple(torch.tensor(tokenizer.encode(part, add_special_tokens=False)) for part in parts)


def make_lookups(
    parts: tuple[torch.Tensor, ...], n: int, length: int, turns: int, generator: torch.Generator
) -> Lookups:
    """Draw ``n`` lists of facts with ``turns`` look-ups each, of the last of ``length`` words.

    Half of the words have a fact; the model must repeat the other half.
    """
    first = len(SPECIAL) + 3
    # A random permutation of the words per row: the first FACTS are keys, the rest have no fact.
    order = torch.rand(n, len(WORDS), generator=generator).argsort(-1)
    keys = order[:, :FACTS]
    values = (keys + torch.randint(1, len(WORDS), keys.shape, generator=generator)) % len(WORDS)
    # The look-up table starts as the identity, so that words without a fact are repeated.
    table = torch.arange(len(WORDS)).repeat(n, 1).scatter(1, keys, values)
    facts = torch.full((n, 3 * FACTS), len(SPECIAL) + 2)  # the full stop
    facts[:, 0::3], facts[:, 1::3] = keys + first, values + first
    head, middle, tail = (part.expand(n, -1) for part in parts)
    eos = torch.full((n, 1), SPECIAL.index("<eos>"))
    pieces, kinds = [head, facts[:, :-1]], [0, 0]
    for _ in range(turns):
        known = torch.rand(n, generator=generator) < 0.5
        pick = torch.where(known, 0, FACTS) + torch.randint(0, FACTS, (n,), generator=generator)
        words = torch.randint(0, len(WORDS), (n, length), generator=generator)
        words[:, -1] = order.gather(1, pick[:, None])[:, 0]
        said = [words[:, -1:]]
        for _ in range(HOPS):
            said.append(table.gather(1, said[-1]))
        pieces += [middle, words + first, tail, torch.cat(said[1:], dim=1) + first, eos]
        kinds += [0, 1, 0, 2, 2]
    kind = torch.cat([torch.full(p.shape[1:], k) for p, k in zip(pieces, kinds, strict=True)])
    return Lookups(torch.cat(pieces, dim=1), kind == 2, kind == 1)


def lookup_accuracy(
    model: Any, parts: tuple[torch.Tensor, ...], generator: torch.Generator
) -> float:
    """Proportion of 2,048 look-ups for which greedy decoding predicts every token."""
    lookups = make_lookups(parts, 2048, HOPS, 1, generator)
    with torch.no_grad():
        right = _logits(model, lookups).argmax(-1) == lookups.ids[:, lookups.answer]
    return right.all(-1).float().mean().item()


def _train(
    model: Any,
    phase: Phase,
    parts: tuple[torch.Tensor, ...],
    generator: torch.Generator,
    progress: Callable[[int, float], None] | None,
) -> None:
    weights, rate, steps = model.parameters(), phase.rate, phase.steps
    optimizer = torch.optim.AdamW(weights, lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=0.1)
    model.train()
    for step in range(steps):
        batch = make_lookups(parts, phase.batch, 1 + step % HOPS, phase.turns, generator)
        logits, target = _logits(model, batch, generator, phase.noise), batch.ids[:, batch.answer]
        loss = cross_entropy(logits.flatten(0, 1), target.flatten(), label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if progress and step % 100 == 0:
            progress(step, loss.item())
    model.eval()


@torch.no_grad()
def fold_norms(scaffold: Any, model: Any, lookups: Lookups) -> None:
    """Copy the weights of a Qwen3 ``scaffold`` to a ``model`` without query and key norms.

    Each norm becomes a fixed gain on its projection: its mean scaling factor on ``lookups``.
    """
    weights = scaffold.state_dict()
    for number, layer in enumerate(scaffold.model.layers):
        for name in ("q", "k"):
            path = f"model.layers.{number}.self_attn.{name}"
            seen: list[torch.Tensor] = []
            projection = getattr(layer.self_attn, f"{name}_proj")
            hook = projection.register_forward_hook(lambda _m, _i, out, seen=seen: seen.append(out))
            _logits(scaffold, lookups)
            hook.remove()
            gain = weights.pop(f"{path}_norm.weight")
            heads = seen[0].unflatten(-1, (-1, len(gain)))
            factor = heads.square().mean(-1).rsqrt().mean((0, 1))  # one per head
            weights[f"{path}_proj.weight"] *= torch.outer(factor, gain).flatten()[:, None]
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected and all(name.endswith("bias") for name in missing)


def _logits(
    model: Any, batch: Lookups, generator: torch.Generator | None = None, noise: float = 0.0
) -> torch.Tensor:
    """Logits (B, A, V) of the A answer tokens; ``noise`` perturbs the embedded words."""
    embed = model.get_input_embeddings()
    embeddings = embed(batch.ids)
    if noise:
        scale = noise * embed.weight.detach().square().mean().sqrt()
        strength = scale * torch.rand(embeddings[..., :1].shape, generator=generator)
        disturbance = strength * torch.randn(embeddings.shape, generator=generator)
        embeddings = embeddings + disturbance * batch.word[:, None]
    return model(inputs_embeds=embeddings).logits[:, :-1][:, batch.answer[1:]]
