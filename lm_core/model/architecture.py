"""What the blocks of a model are made of."""

from typing import NamedTuple


class Architecture(NamedTuple):
    """What the blocks of a model are made of; all of them are alike.

    Attributes:
        d_model: Width of the residual stream, a multiple of ``n_heads``.
        n_heads: Attention heads.
        d_ff: Width of the hidden layer of the MLP.
        dropout: Share of activations zeroed in training.
        position: ``learned``, which is no matter of the blocks, or ``rope``.
        norm: ``layernorm`` or ``rmsnorm``.
        activation: ``gelu``, ``gelu_tanh``, ``relu_squared`` or ``swiglu``.
        qk_norm: Whether queries and keys are normed.
        bias: Whether linear layers and LayerNorms have biases.
    """

    d_model: int
    n_heads: int
    d_ff: int
    dropout: float
    position: str
    norm: str
    activation: str
    qk_norm: bool
    bias: bool

    @property
    def d_head(self) -> int:
        """Width of a head."""
        return self.d_model // self.n_heads
