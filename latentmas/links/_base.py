"""What every link kind is.

Shapes: `B` batch, `K` latent steps, `S` source width, `D` target width, `N` samples.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from latentmas.plan import BackboneInfo

__all__ = [
    "Link",
    "LinkBackbone",
    "LinkOptions",
    "LinkReads",
    "Need",
    "Residual",
    "make_residual",
    "near_identity_",
    "zero_",
]

Need = Literal["head", "embeddings", "tokenizer", "states"]
"""What a kind may use: the vocabulary head of the sender's backbone, the input embeddings of the
receiver's, the tokenizers of both; for an outer link, the sender's raw states h, which it then maps
rather than inner(h)."""


class LinkBackbone(Protocol):
    """What a link may use of a loaded backbone; `LoadedBackbone` is one."""

    tokenizer: Any
    workspace: dict[Any, Any]
    """Tensors derived from the weights; emptied when the weights move or change their type."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        ...

    @property
    def turn_end_id(self) -> int | None:
        """The token that ends the model's turn."""
        ...

    @property
    def stop_ids(self) -> frozenset[int]:
        """All tokens that end a text."""
        ...

    def logits(self, h_BD: Tensor) -> Tensor:
        """Scores over the vocabulary, `(…, D)` to `(…, V)`."""
        ...

    def embed(self, ids: Tensor) -> Tensor:
        """Input embeddings of token ids, `(…)` to `(…, D)`."""
        ...

    def mix_embeddings(self, weights_BV: Tensor) -> Tensor:
        """Weighted sums of the first V input embeddings, `(…, V)` to `(…, D)`."""
        ...


class LinkReads(NamedTuple):
    """What a link costs: numbers of weights that it reads when it is applied.

    Each takes part in one product for each row.
    """

    own: int = 0
    """Its parameters."""
    source: int = 0
    """Of the sender's backbone, such as its vocabulary head."""
    target: int = 0
    """Of the receiver's backbone, such as its embedding table."""


class LinkOptions(BaseModel):
    """Options of a kind; subclasses add fields with defaults. Unknown options are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Link(nn.Module):
    """Interface of a link kind: a map of latents from width S to width D.

    A kind is a subclass in a file of its own, registered under the file's name. It is built as
    `Kind(options, in_dim, out_dim)` and needs `forward`; the other methods have defaults for a kind
    without closed-form starts. Constructors must work under `torch.device("meta")`: the compiler
    counts weights that way.
    """

    Options: ClassVar[type[LinkOptions]] = LinkOptions
    """Pydantic model of the kind's options."""
    inits: ClassVar[frozenset[str]] = frozenset({"default"})
    """Values of `init` that the kind understands."""
    needs: ClassVar[frozenset[Need]] = frozenset()
    """What the kind uses of its backbones. Where it needs any part of them, `attach` is called at
    load."""
    shortens: ClassVar[bool] = False
    """Whether a message may have fewer than K rows: rows of zeros are not shown to the receiver."""

    def __init__(self, options: LinkOptions, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.options, self.in_dim, self.out_dim = options, in_dim, out_dim

    @classmethod
    def resolve(cls, role: str, options: dict[str, Any], in_dim: int, out_dim: int) -> LinkOptions:
        """Complete and check the options of a link.

        Args:
            role: `"inner"` or `"outer"`; kinds may have other defaults for each.
            options: what the user gave.
            in_dim: width S.
            out_dim: width D.

        Raises:
            pydantic.ValidationError: an option is unknown or of the wrong type.
            ValueError: this kind cannot bridge the two widths.
        """
        return cls.Options.model_validate(options)

    @abstractmethod
    def forward(self, h_BKS: Tensor) -> Tensor:
        """Map `(…, S)` to `(…, D)` row by row, in the dtype of the weights."""

    def start(self, init: str, alignment_DS: Tensor | None) -> None:
        """Set the weights for an `init` other than `"default"`.

        Args:
            init: one of `inits`.
            alignment_DS: for `"ridge"`, the closed-form map from S to D.
        """
        raise ValueError(f"{type(self).__name__} has no start {init!r}")

    def scale_output(self, factor: float) -> bool:
        """Multiply the output by `factor` by changing weights; False where the kind cannot."""
        return False

    def branches(self, h_BKS: Tensor) -> tuple[Tensor, Tensor] | None:
        """What a residual kind adds up: the learnt branch and the residual one; None for others."""
        return None

    def attach(self, source: LinkBackbone, target: LinkBackbone) -> None:
        """Receive the loaded backbones of a kind that `needs` something of them.

        They are not part of the link's state and must be kept out of `parameters()`.

        Args:
            source: the sender's.
            target: the receiver's; for an inner link the same.

        Raises:
            WeightsError: the kind cannot work with these backbones.
        """
        if self.needs - {"states"}:
            raise ValueError(f"{type(self).__name__} declares needs but does not define attach()")

    prepares: ClassVar[bool] = False
    """Whether `message` begins with work that no weight of the link takes part in. Such a kind
    defines `prepare` and `finish`; where its input is constant, training prepares it once."""

    def reads(self, source: BackboneInfo, target: BackboneInfo) -> LinkReads:
        """The weights that the link reads when it is applied, for `Plan.explain`.

        The default counts the link's parameters, and the vocabulary head and the embedding table
        where the kind needs them; it works on the meta device and before `attach`.

        Args:
            source: the sender's backbone.
            target: the receiver's; for an inner link the same.
        """
        head = source.vocab_size * source.hidden_size if "head" in self.needs else 0
        table = target.vocab_size * target.hidden_size if "embeddings" in self.needs else 0
        return LinkReads(sum(p.numel() for p in self.parameters()), head, table)

    def message(self, h_BKS: Tensor) -> Tensor:
        """What an outer link sends, `(B, K, S)` to `(B, K, D)`; kinds may set rows to zero."""
        return self.finish(self.prepare(h_BKS)) if self.prepares else self.apply_to(h_BKS)

    def prepare(self, h_BKS: Tensor) -> Tensor:
        """The part of `message` before the link's weights, `(B, K, S)` to `(B, K, D)`."""
        return h_BKS

    def finish(self, z_BKD: Tensor) -> Tensor:
        """The rest of `message`, of what `prepare` returned."""
        return self.apply_to(z_BKD)

    @property
    def dtype(self) -> torch.dtype | None:
        """Type of the weights; None for a link without weights."""
        return next((p.dtype for p in self.parameters()), None)

    def apply_to(self, h_BKS: Tensor) -> Tensor:
        """`forward` in the dtype of the weights, whatever the input's."""
        return self(h_BKS if self.dtype is None else h_BKS.to(self.dtype))


class Residual(nn.Module):
    """The residual branch: x itself (equal widths) or a linear projection of x."""

    def __init__(self, in_dim: int, out_dim: int, *, projected: bool) -> None:
        super().__init__()
        self.proj = nn.Linear(in_dim, out_dim) if projected else None

    def forward(self, x: Tensor) -> Tensor:
        """`(…, S)` to `(…, D)`."""
        return x if self.proj is None else self.proj(x)

    def start(self, init: str, alignment_DS: Tensor | None) -> None:
        """Make the branch near the identity, or the closed-form alignment."""
        if self.proj is not None:
            near_identity_(self.proj, alignment_DS if init == "ridge" else None)

    def scale(self, factor: float) -> bool:
        """Scale the projection; False for an identity branch."""
        return self.proj is not None and scale_(self.proj, factor)


def make_residual(role_residual: str, in_dim: int, out_dim: int) -> Residual:
    """The branch that the resolved option `residual` names."""
    return Residual(in_dim, out_dim, projected=role_residual == "projection")


@torch.no_grad()
def near_identity_(linear: nn.Linear, alignment_DS: Tensor | None) -> None:
    """Fill a linear layer with `alignment_DS`, or with ones on its diagonal; bias zero."""
    linear.weight.copy_(torch.eye(*linear.weight.shape) if alignment_DS is None else alignment_DS)
    linear.bias.zero_()


@torch.no_grad()
def zero_(linear: nn.Linear) -> None:
    """Weights and bias zero."""
    linear.weight.zero_()
    linear.bias.zero_()


@torch.no_grad()
def scale_(module: nn.Linear | nn.LayerNorm, factor: float) -> bool:
    """Multiply weight and bias; True."""
    module.weight.mul_(factor)
    module.bias.mul_(factor)
    return True
