"""The edge loop's loss: a message becomes what the receiver would have read as text.

Shapes: `D` width, `N` pairs of a state and the embedding that it is to become.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from latentmas.runtime import System
from latentmas.training.data import Row
from latentmas.training.losses.regression import (
    Features,
    FeatureStore,
    mean_square,
    read_features,
    regression,
)
from latentmas.training.speech import Speech, TextMessages, Use, as_read

__all__ = ["EdgeLoss"]


class EdgeLoss(nn.Module):
    """Regression of outer(inner(h_t)) to the receiver's embedding of the sender's next word.

    The sender reads its prompt, with texts in its slots, and then its own text; each state before a
    word of it is to become, through both links, what the receiver would read in that word's place.
    The texts are the team's own: what its text twin says. No answers are needed, and no gradient
    passes through a backbone, so every edge learns at once and by itself.
    """

    def __init__(
        self,
        system: System,
        *,
        targets: Mapping[str, str] | None = None,
        cosine_weight: float = 1.0,
        mse_weight: float = 1.0,
        keep_bytes: int = 2**32,
    ) -> None:
        """Prepare.

        Args:
            system: System whose links are trained.
            targets: field of a row with each agent's text, the same in every round; None lets the
                text twin speak.
            cosine_weight: Weight of 1 - cosine.
            mse_weight: Weight of the squared error, relative to the embeddings' mean square.
            keep_bytes: Maximum number of bytes of features that are kept for later epochs.
        """
        super().__init__()
        self.links = system.links
        self.speech = Speech(system, targets)
        self.weights = {"cosine_weight": cosine_weight, "mse_weight": mse_weight}
        self._store = FeatureStore(keep_bytes)

    def n_items(self, rows: Sequence[Row], numbers: Sequence[int] | None = None) -> int:
        """Pairs of some rows, of all edges and rounds."""
        said = self.speech.speak(rows, numbers)
        return sum(
            len(self._ids(use, text_messages)) for use in self.speech.uses for text_messages in said
        )

    def forward(
        self,
        rows: Sequence[Row],
        numbers: Sequence[int] | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **_: Any,
    ) -> dict[str, Tensor]:
        """The loss of a batch: mean over the words of all edges and rounds.

        Args:
            rows: B mappings with the graph's inputs.
            numbers: Numbers of the rows in the data, by which features are kept across epochs.
            num_items_in_batch: pairs that the loss is divided by; None: those of the rows.
        """
        system = self.speech.system
        said = self.speech.speak(rows, numbers)
        sums, count = [], 0
        for use in self.speech.uses:
            features = self._features(use, rows, numbers, said)
            h_ND = torch.cat([own.h_ND for own in features])
            if not len(h_ND):
                continue
            sender = system.backbone_of(use.edge.source)
            receiver = system.backbone_of(use.edge.target)
            ids_N = torch.cat([own.ids_N for own in features])
            outer, h_ND = system.link(use.link), h_ND.to(sender.device)
            if "states" not in outer.needs:
                h_ND = system.link(use.inner).apply_to(h_ND)
            z_ND = outer.apply_to(h_ND)
            e_ND = as_read(sender, receiver, ids_N)
            sums.append(regression(z_ND, e_ND, mean_square(receiver), **self.weights))
            count += len(ids_N)
        items = max(count, 1) if num_items_in_batch is None else num_items_in_batch
        device = sums[0].device
        return {"loss": torch.stack([part.to(device) for part in sums]).sum() / items}

    @torch.no_grad()
    def _features(
        self,
        use: Use,
        rows: Sequence[Row],
        numbers: Sequence[int] | None,
        said: Sequence[TextMessages],
    ) -> list[Features]:
        speaker = use.edge.source
        backbone = self.speech.system.backbone_of(speaker)
        empty = Features(torch.zeros(0, backbone.planned.info.hidden_size), torch.zeros(0).long())

        def compute(places: list[int]) -> list[Features]:
            texts = {i: self._ids(use, said[i]) for i in places}
            full = [i for i in places if texts[i]]
            if not full:
                return [empty for _ in places]
            chosen = [rows[i] for i in full]
            prompt = self.speech.prompt(speaker, use.round, chosen, [said[i] for i in full])
            found = dict(
                zip(full, read_features(backbone, prompt, [texts[i] for i in full]), strict=True)
            )
            return [found.get(i, empty) for i in places]

        return self._store.get(f"{speaker}/{use.round}", numbers, len(rows), compute)

    def _ids(self, use: Use, text_messages: TextMessages) -> list[int]:
        return self.speech.ids(use.edge.source, use.round, text_messages)
