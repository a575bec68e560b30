"""Losses, and the modules that compute them. A loss module registers links and nothing else.

Shapes: `B` batch, `T` prompt positions, `A` answer positions, `D` width, `V` vocabulary, `N` pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentmas.backbones import LoadedBackbone
from latentmas.errors import DataError
from latentmas.plan import Plan, Rollout
from latentmas.runtime import Interpreter, Sampling, System, Turn, executors
from latentmas.runtime.packing import Packed, answer_ids, pack
from latentmas.runtime.rollout import positions
from latentmas.spec import TEXT, AgentSpec

__all__ = ["InnerLoss", "OuterLoss", "Taught", "teach"]


class Taught(NamedTuple):
    """States of a backbone that reads a prompt and then its answer, teacher-forced."""

    h_ND: Tensor
    """The state before each answer token."""
    ids_N: Tensor
    """That token."""


def teach(backbone: LoadedBackbone, prompt: Packed, answers: Sequence[Sequence[int]]) -> Taught:
    """Feed each prompt and its answer in one pass.

    Args:
        backbone: reads.
        prompt: B prompts, padded on the left.
        answers: B lists of token ids; padded on the right here.

    Returns:
        States and tokens of all answer positions, rows one after another. Differentiable in the
        prompt.
    """
    longest = max(map(len, answers))
    ids_BA = torch.full((len(answers), longest), backbone.pad_id)
    real_BA = torch.zeros_like(ids_BA)
    for row, answer in enumerate(answers):
        ids_BA[row, : len(answer)] = torch.tensor(answer)
        real_BA[row, : len(answer)] = 1
    ids_BA, real_BA = ids_BA.to(backbone.device), real_BA.to(backbone.device)
    x_BLD = torch.cat([prompt.x_BTD, backbone.embed(ids_BA)], dim=1)
    mask_BL = torch.cat([prompt.mask_BT, real_BA], dim=1)
    h_BLD = backbone.step(x_BLD, positions(mask_BL, "mask"), mask_BL)
    before_BAD = h_BLD[:, -longest - 1 : -1]
    return Taught(before_BAD[real_BA.bool()], ids_BA[real_BA.bool()])


class OuterLoss(nn.Module):
    """Cross-entropy of the output agent's answer, through every round, on-policy.

    Messages come from real rollouts, as at run time; no gold text reaches any agent before the
    loss is taken. Gradients are exact: autograd runs through cache, rollouts and links.
    """

    def __init__(
        self,
        system: System,
        plan: Plan,
        *,
        answer_field: str = "answer",
        round_weights: Sequence[float] | None = None,
        executor: str = "cached",
    ) -> None:
        """Prepare.

        Args:
            system: whose links are trained.
            plan: its plan, at the depth to train.
            answer_field: of a row.
            round_weights: R weights of the answer's loss after each round; None: the last alone.
            executor: how rollouts run.
        """
        super().__init__()
        self.links = system.links
        self._parts = (system, plan)
        self.answer_field = answer_field
        rounds = plan.graph.rounds
        self.round_weights = list(round_weights or [0.0] * (rounds - 1) + [1.0])
        if len(self.round_weights) != rounds or not any(self.round_weights):
            raise ValueError(
                f"round_weights needs {rounds} numbers, not all zero; found {self.round_weights}"
            )
        speaks = {step.round for step in plan.turns() if step.agent == plan.output}
        for number, weight in enumerate(self.round_weights, start=1):
            if weight and number not in speaks:
                raise ValueError(
                    f"round_weights gives {weight} to round {number}, where agent {plan.output!r} "
                    "has no turn, for nothing of it feeds back; give 0 there"
                )
        self.executor = executor

    def forward(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """The loss of a batch.

        Args:
            rows: B mappings with the graph's inputs and the answer.

        Returns:
            `loss`, a scalar: mean over answer tokens, weighted mean over rounds.
        """
        system, plan = self._parts
        backbone = system.backbone_of(plan.output)
        answers = [answer_ids(backbone, str(row[self.answer_field])) for row in rows]
        earlier: list[Tensor] = []

        def score(turn: Turn) -> Tensor:
            taught = teach(turn.backbone, turn.prompt, answers)
            return _cross_entropy(turn.backbone.logits(taught.h_ND), taught.ids_N)

        def score_earlier(turn: Turn) -> None:
            weight = self.round_weights[turn.step.round - 1]
            if isinstance(turn.step, Rollout) and turn.step.agent == plan.output and weight:
                earlier.append(weight * score(turn))

        interpreter = Interpreter(
            system=system,
            plan=plan,
            executor=executors.get(self.executor)(),
            sampling=Sampling(),
            on_turn=score_earlier,
        )
        walk = interpreter.walk(rows, finish=score)
        weighted = [self.round_weights[-1] * walk.result, *earlier]
        return {"loss": torch.stack(weighted).sum() / sum(self.round_weights)}


class InnerLoss(nn.Module):
    """Regression of inner(h_t) to Emb(x_{t+1}) over each agent's own text (RecursiveMAS).

    Backbones read prompt and text teacher-forced, without gradients; slots hold the senders' texts.
    """

    def __init__(
        self,
        system: System,
        targets: Mapping[str, str],
        *,
        cosine_weight: float = 1.0,
        mse_weight: float = 0.0,
    ) -> None:
        """Prepare.

        Args:
            system: whose inner links are trained.
            targets: field of a row with the text of each agent.
            cosine_weight: of 1 - cosine.
            mse_weight: of the mean squared error, relative to the embeddings' mean square.
        """
        super().__init__()
        self.links = system.links
        self._parts = (system,)
        self.targets, self.weights = dict(targets), (cosine_weight, mse_weight)
        self.inner = {
            agent: link.id
            for link in system.plan.links
            if link.role == "inner"
            for agent in link.users
        }

    def forward(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """The loss of a batch: mean over agents of the mean over text positions."""
        (system,) = self._parts
        losses = []
        for name, link in self.inner.items():
            h_ND, e_ND = self._pairs(name, rows)
            losses.append(self._regression(system.link(link).apply_to(h_ND), e_ND))
        return {"loss": torch.stack(losses).mean()}

    def _regression(self, z_ND: Tensor, e_ND: Tensor) -> Tensor:
        cosine_weight, mse_weight = self.weights
        e_ND = e_ND.to(z_ND.dtype)
        loss = cosine_weight * (1 - F.cosine_similarity(z_ND, e_ND, dim=-1)).mean()
        if mse_weight:
            loss = loss + mse_weight * F.mse_loss(z_ND, e_ND) / e_ND.square().mean()
        return loss

    @torch.no_grad()
    def _pairs(self, name: str, rows: Sequence[Mapping[str, Any]]) -> tuple[Tensor, Tensor]:
        (system,) = self._parts
        backbone, agent = system.backbone_of(name), system.plan.graph.agent(name)
        prompt = pack(backbone, agent, [self._scope(agent, row) for row in rows], {})
        answers = [answer_ids(backbone, str(row[self.targets[name]])) for row in rows]
        taught = teach(backbone, prompt, answers)
        return taught.h_ND, backbone.embed(taught.ids_N)

    def _scope(self, agent: AgentSpec, row: Mapping[str, Any]) -> dict[str, Any]:
        """Sample fields, and the senders' texts in the slots of the first round."""
        (system,) = self._parts
        graph = system.plan.graph
        scope = {name: row[name] for name in graph.inputs}
        for edge in graph.edges:
            if edge.target == agent.name and not edge.delay and edge.slot:
                if edge.source in self.targets:
                    scope[edge.slot] = str(row[self.targets[edge.source]])
                elif edge.link.kind == TEXT:
                    outside = system.outside_texts([row])[edge.source]
                    scope[edge.slot] = str(outside[0])
        return scope


def _cross_entropy(logits_NV: Tensor, ids_N: Tensor) -> Tensor:
    """Mean over tokens; half-precision logits are summed in fp32."""
    half = logits_NV.dtype in (torch.bfloat16, torch.float16)
    return F.cross_entropy(logits_NV.float() if half else logits_NV, ids_N)


def check_rows(rows: Sequence[Any], fields: Sequence[str], what: str) -> None:
    """Every row holds every field.

    Raises:
        DataError: naming the first row and field that do not.
    """
    if len(rows) == 0:
        raise DataError(f"{what} has no rows")
    for number in range(len(rows)):
        row = rows[number]
        if not isinstance(row, Mapping):
            raise DataError(f"{what}, row {number}: {type(row).__name__}, not a mapping of fields")
        for name in fields:
            if name not in row:
                found = ", ".join(map(str, row)) or "nothing"
                raise DataError(f"{what}, row {number} lacks the field {name!r}; it has: {found}")
