"""How links start: seeded, aligned in closed form where asked, scaled to the receiver's norm.

Shapes: `N` shared words or sample states, `S` source width, `D` target width.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from latentmas.backbones import LoadedBackbone
from latentmas.errors import PlanError, WeightsError
from latentmas.links import Link, link_kinds
from latentmas.plan import LinkPlan, Plan

__all__ = [
    "attach_links",
    "build_links",
    "embedding_norm",
    "init_link_weights",
    "meta_link",
    "meta_links",
    "physical_memory",
    "ridge_alignment",
]

RIDGE = 1e-4
"""Ridge penalty, relative to the mean square of the source's embeddings."""
SAMPLE = (8, 16)
"""Random token sequences (rows, length) whose states calibrate output norms."""


def build_links(plan: Plan, seed: int) -> dict[str, Link]:
    """The links of a plan in fp32 with their kinds' own random start, by id.

    Raises:
        PlanError: a link's options are not those of its kind.
        UnknownNameError: a kind is not registered.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return {link.id: _build(link) for link in plan.links}


def meta_links(plan: Plan) -> dict[str, Link]:
    """The links without memory, on the meta device, to judge them before anything is loaded.

    Raises:
        PlanError: a link's options or size are not those of its kind.
        WeightsError: the links are larger than this machine's memory.
        UnknownNameError: a kind is not registered.
    """
    links = {link.id: meta_link(link) for link in plan.links}
    for planned in plan.links:
        found = sum(p.numel() for p in links[planned.id].parameters())
        if found != planned.n_parameters:
            raise PlanError(
                f"link {planned.id!r}: kind {planned.kind!r} has {found:,} weights at these widths "
                f"and options, the plan says {planned.n_parameters:,}; compile the graph again"
            )
    needed, there = 4 * plan.n_parameters, physical_memory()
    if needed > there:
        raise WeightsError(
            f"the links take {needed / 2**30:,.1f} GiB, and this machine has {there / 2**30:,.1f} "
            "GiB of memory; choose a smaller expansion, or smaller backbones"
        )
    return links


def meta_link(planned: LinkPlan) -> Link:
    """A link without memory, on the meta device; errors as `meta_links`."""
    with torch.device("meta"):
        return _build(planned)


def physical_memory() -> float:
    """Bytes of the machine's memory; infinite where they cannot be told."""
    if not hasattr(os, "sysconf"):
        return math.inf
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _build(planned: LinkPlan) -> Link:
    kind = link_kinds.get(planned.kind)
    try:
        options: Any = kind.Options.model_validate(planned.options)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise PlanError(
            f"link {planned.id!r}: options of kind {planned.kind!r}: {wrong}"
        ) from error
    return kind(options, planned.in_dim, planned.out_dim).float()


@torch.no_grad()
def init_link_weights(
    plan: Plan, links: Mapping[str, Link], backbones: Mapping[str, LoadedBackbone], seed: int
) -> None:
    """Apply `init` and `norm` of every link, inner links first.

    Args:
        plan: Plan whose links are initialised.
        links: Links by id; changed in place.
        backbones: Loaded backbones by key.
        seed: Seed of the token sequences that calibrate norms.

    Raises:
        WeightsError: Two backbones have no word in common, so they cannot be aligned.
    """
    states = {key: _sample_states(backbone, seed) for key, backbone in backbones.items()}
    senders = {agent.name: agent.backbone for agent in plan.graph.agents}
    for planned in sorted(plan.links, key=lambda link: link.role == "outer"):
        link, target = links[planned.id], backbones[planned.target]
        if planned.init != "default":
            alignment = None
            if planned.init == "ridge" and planned.source != planned.target:
                alignment = ridge_alignment(backbones[planned.source], target)
            link.start(planned.init, alignment)
        if planned.norm == "embedding":
            sample = states[planned.source]
            if planned.role == "outer":
                sender, _ = plan.ends_of(planned)
                assert senders[sender] == planned.source
                if "states" not in link.needs:
                    sample = links[_inner_of(plan, sender)].apply_to(sample)
            norm = link.apply_to(sample).norm(dim=-1).mean()
            link.scale_output(float(embedding_norm(target) / norm.clamp_min(1e-12)))


def attach_links(
    plan: Plan, links: Mapping[str, Link], agent_backbones: Mapping[str, LoadedBackbone]
) -> None:
    """Hand the loaded backbones to the links whose kinds need them.

    Args:
        plan: whose links.
        links: by id.
        agent_backbones: the loaded backbone of each agent. A shared link gets those of its first
            user.

    Raises:
        WeightsError: a kind cannot work with its backbones.
    """
    for planned in plan.links:
        if links[planned.id].needs:
            source, target = plan.ends_of(planned)
            links[planned.id].attach(agent_backbones[source], agent_backbones[target])


def _inner_of(plan: Plan, agent: str) -> str:
    return next(link.id for link in plan.links if link.role == "inner" and agent in link.users)


def _sample_states(backbone: LoadedBackbone, seed: int) -> Tensor:
    """States of random token sequences, (N, S) in fp32 on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(backbone.planned.info.vocab_size, SAMPLE, generator=generator)
    ids = ids.to(backbone.device)
    positions = torch.arange(SAMPLE[1], device=backbone.device).expand(SAMPLE)
    h_BTS = backbone.step(backbone.embed(ids), positions, torch.ones_like(ids))
    return h_BTS.flatten(0, 1).float().cpu()


def embedding_norm(backbone: LoadedBackbone) -> Tensor:
    """Mean norm of the input embeddings of the tokenizer's words, a scalar in fp32."""
    ids = torch.tensor(sorted(set(_words(backbone).values())))
    return backbone.embed(ids).float().norm(dim=-1).mean().cpu()


def ridge_alignment(source: LoadedBackbone, target: LoadedBackbone) -> Tensor:
    """The linear map A_DS that best sends source embeddings to target embeddings of shared words.

    Minimises Σ ‖A x − y‖² + λ‖A‖² in closed form (ridge regression), in fp64.

    Raises:
        WeightsError: the two vocabularies have no word in common.
    """
    words, others = _words(source), _words(target)
    shared = sorted(set(words) & set(others))
    if not shared:
        names = f"{source.planned.spec.source!r} and {target.planned.spec.source!r}"
        raise WeightsError(f'{names} share no word; init="ridge" needs some: use init="default"')
    x_NS = source.embed(torch.tensor([words[w] for w in shared])).double()
    y_ND = target.embed(torch.tensor([others[w] for w in shared])).double().to(x_NS.device)
    gram_SS = x_NS.T @ x_NS
    penalty = RIDGE * gram_SS.diagonal().mean()
    gram_SS.diagonal().add_(penalty)
    return torch.linalg.solve(gram_SS, x_NS.T @ y_ND).T.float().cpu()


def _words(backbone: LoadedBackbone) -> dict[str, int]:
    """Ordinary tokens of a vocabulary: special tokens are left out."""
    special = set(backbone.tokenizer.all_special_tokens)
    size = backbone.planned.info.vocab_size
    vocabulary = backbone.tokenizer.get_vocab()
    return {word: i for word, i in vocabulary.items() if word not in special and i < size}
