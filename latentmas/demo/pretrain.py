"""Make the three backbones of the embedded experiment, from scratch, in a few CPU minutes.

Each learns one thing only: to look a word up in the facts of its prompt and to say the value, or to
say the word again when no fact has it as key. Prompts are `task.PROMPTS` in the tokenizer's chat
template, cut at the word as the run time cuts them at a slot. Only Qwen3 has norms on queries and keys,
and only with them do models this small learn to look up quickly; so the others begin as a Qwen3 model
whose norms are folded into the projections (`fold_norms`) and go on from there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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

from latentmas.demo.task import AGENTS, FACTS, HOPS, PROMPTS, WORDS

SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>", "<user>", "<assistant>", "<end>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}> {{ message['content'] }} <end> {% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
SHAPES: dict[str, tuple[type, int, float]] = {  # agent: config class, width, learning rate
    "planner": (Qwen3Config, 64, 3e-3),
    "critic": (LlamaConfig, 96, 2e-3),
    "solver": (Qwen2Config, 48, 3e-3),
}
STEPS = 800
BATCH = 32
TURNS = 6  # look-ups per list of facts in training
NOISE = 0.5  # largest noise on the embedded word, in units of the embeddings' RMS

Progress = Callable[[str, int, float], None]


@dataclass(frozen=True)
class Lookups:
    """A batch of look-ups in one set of facts each, as token ids.

    ``ids`` (B, T) holds the prompt and its answer, then further ``at word`` turns with theirs;
    ``answer`` and ``word`` (T,) mark the positions of answer tokens and of looked-up words.
    """

    ids: torch.Tensor
    answer: torch.Tensor
    word: torch.Tensor


def pretrain(
    output_dir: str | Path,
    *,
    seed: int = 0,
    steps: int = STEPS,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Train the backbones and save each as a model folder ``output_dir/<agent>``.

    ``progress`` is called with agent, step and loss every 100 steps. Returns each agent's share of
    right answers on fresh look-ups.
    """
    tokenizer = make_tokenizer()
    accuracy = {}
    for number, agent in enumerate(AGENTS):
        generator = torch.Generator().manual_seed(100 * seed + number)
        family, width, _ = SHAPES[agent]
        parts = prompt_parts(agent, tokenizer)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(100 * seed + number)
            model = make_model(Qwen3Config, width, tokenizer)
        _train(model, agent, parts, generator, steps, progress)
        if family is not Qwen3Config:
            scaffold, model = model, make_model(family, width, tokenizer)
            fold_norms(scaffold, model, make_lookups(parts, 64, HOPS, TURNS, generator))
            _train(model, agent, parts, generator, steps // 2, progress)
        accuracy[agent] = lookup_accuracy(model, parts, generator)
        model.save_pretrained(Path(output_dir) / agent)
        tokenizer.save_pretrained(Path(output_dir) / agent)
    return accuracy


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
    """Token ids of the agent's prompt: up to the facts, from there to the word, from there on."""
    fields = {f"{agent}_facts": "|", "question": "|", "planner": "|", "critic": "|"}
    content = Template(PROMPTS[agent]).render(fields | {"feedback": ""})
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    return tuple(
        torch.tensor(tokenizer.encode(part, add_special_tokens=False)) for part in text.split("|")
    )


def make_lookups(
    parts: tuple[torch.Tensor, ...], n: int, length: int, turns: int, generator: torch.Generator
) -> Lookups:
    """Draw ``n`` fact lists with ``turns`` look-ups each, of the last of ``length`` words.

    Half of the words have a fact; the others are to be repeated.
    """
    first = len(SPECIAL) + 3
    order = torch.rand(n, len(WORDS), generator=generator).argsort(-1)
    keys = order[:, :FACTS]
    values = (keys + torch.randint(1, len(WORDS), keys.shape, generator=generator)) % len(WORDS)
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


def lookup_accuracy(model: Any, parts: tuple[torch.Tensor, ...], generator: torch.Generator) -> float:
    """Share of 2,048 look-ups whose every token is the likeliest one."""
    lookups = make_lookups(parts, 2048, HOPS, 1, generator)
    with torch.no_grad():
        right = _logits(model, lookups, None).argmax(-1) == lookups.ids[:, lookups.answer]
    return right.all(-1).float().mean().item()


def _train(
    model: Any,
    agent: str,
    parts: tuple[torch.Tensor, ...],
    generator: torch.Generator,
    steps: int,
    progress: Progress | None,
) -> None:
    rate = SHAPES[agent][2]
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    model.train()
    for step in range(steps):
        lookups = make_lookups(parts, BATCH, 1 + step % HOPS, TURNS, generator)
        logits, target = _logits(model, lookups, generator), lookups.ids[:, lookups.answer]
        loss = cross_entropy(logits.flatten(0, 1), target.flatten(), label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if progress and step % 100 == 0:
            progress(agent, step, loss.item())
    model.eval()


@torch.no_grad()
def fold_norms(scaffold: Any, model: Any, lookups: Lookups) -> None:
    """Copy a Qwen3 ``scaffold`` into a ``model`` of a family without query and key norms.

    Each norm becomes a fixed gain on its projection: the mean factor that it applies on ``lookups``.
    """
    weights = scaffold.state_dict()
    for number, layer in enumerate(scaffold.model.layers):
        for name in ("q", "k"):
            path = f"model.layers.{number}.self_attn.{name}"
            seen: list[torch.Tensor] = []
            projection = getattr(layer.self_attn, f"{name}_proj")
            hook = projection.register_forward_hook(lambda _m, _i, out, seen=seen: seen.append(out))
            _logits(scaffold, lookups, None)
            hook.remove()
            gain = weights.pop(f"{path}_norm.weight")
            heads = seen[0].unflatten(-1, (-1, len(gain)))
            factor = heads.square().mean(-1).rsqrt().mean((0, 1))  # one per head
            weights[f"{path}_proj.weight"] *= torch.outer(factor, gain).flatten()[:, None]
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected and all(name.endswith("bias") for name in missing)


def _logits(model: Any, lookups: Lookups, noise: torch.Generator | None) -> torch.Tensor:
    """Logits (B, A, V) of the A answer tokens; with ``noise``, the embedded words are disturbed."""
    embed = model.get_input_embeddings()
    embeddings = embed(lookups.ids)
    if noise is not None:
        scale = NOISE * embed.weight.detach().square().mean().sqrt()
        strength = scale * torch.rand(embeddings[..., :1].shape, generator=noise)
        disturbance = strength * torch.randn(embeddings.shape, generator=noise)
        embeddings = embeddings + disturbance * lookups.word[:, None]
    return model(inputs_embeds=embeddings).logits[:, :-1][:, lookups.answer[1:]]
