"""One step of training: a batch, its gradient, and what the optimizer makes of it."""

from typing import NamedTuple

import torch

from lm_core.compute import DTYPES
from lm_core.data.batches import RandomBatches
from lm_core.errors import MachineError
from lm_core.hooks import Hooks
from lm_core.model.transformer import Transformer
from lm_core.randomness import StepKey
from lm_core.training.optimizer import AdamW


class Gradient(NamedTuple):
    """What is known of a step's gradient, which stands in the parameters.

    Attributes:
        key: The step.
        loss: Mean loss in nats per token, a scalar on the model's device.
        norm: Euclidean norm of all gradients together, likewise.
    """

    key: StepKey
    loss: torch.Tensor
    norm: torch.Tensor


class Update:
    """Computes gradients and applies them.

    Args:
        model: The model, on its device.
        batches: The windows of each step.
        optimizer: Updates the model's parameters.
        hooks: May change gradients and updates.
        precision: Of the products, ``float32`` or ``bfloat16``. Weights, gradients and the
            optimizer are in float32.
        compiles: Whether PyTorch compiles the model's blocks.

    Attributes:
        n_tokens: Tokens of a batch.
        is_on_gpu: Whether the device works on while the host does something else.
    """

    def __init__(
        self,
        model: Transformer,
        batches: RandomBatches,
        optimizer: AdamW,
        hooks: Hooks,
        precision: str,
        compiles: bool,
    ) -> None:
        self._model = model
        # To name them imports the compiler, which takes a second.
        self._errors_of_compiling: tuple[type[Exception], ...] = ()
        if compiles:
            model.compile_blocks()
            self._errors_of_compiling = (torch._dynamo.exc.TorchDynamoException,)
        self._batches, self._optimizer, self._hooks = batches, optimizer, hooks
        self._dtype = DTYPES[precision]
        self.is_on_gpu = model.device.type == "cuda"
        self.n_tokens = batches.n_tokens
        self._is_off: torch.Tensor | None = None

    def gradient(self, key: StepKey) -> Gradient:
        """Forward and backward of a step.

        Raises:
            MachineError: PyTorch cannot compile the model here.
        """
        inputs, targets = (self._moved(part) for part in self._batches.batch(key.step))
        try:
            loss = self._model(inputs, targets, key=key, dtype=self._dtype)
        except self._errors_of_compiling as error:
            reason = str(error).strip().splitlines()[0]
            message = f"compile: PyTorch cannot compile the model on this machine: {reason}"
            raise MachineError(f"{message}; compile: false trains without") from error
        loss.backward()
        return Gradient(key, loss.detach(), self.norm())

    def _moved(self, tokens: torch.Tensor) -> torch.Tensor:
        """Token ids on the model's device; a copy to a GPU goes on while the host does."""
        if self.is_on_gpu:
            tokens = tokens.pin_memory()
        return tokens.to(self._model.device, non_blocking=self.is_on_gpu)

    def norm(self) -> torch.Tensor:
        """Euclidean norm of all gradients together, a scalar."""
        gradients = [p.grad for p in self._model.parameters() if p.grad is not None]
        return torch.nn.utils.get_total_norm(gradients)

    def apply(self, key: StepKey) -> None:
        """Updates the parameters by the gradient that stands in them, with all hooks."""
        self._hooks.step(self._optimizer, key)
        self.discard()

    def discard(self) -> None:
        """Forgets the gradient."""
        self._optimizer.forget_gradients()

    def apply_if_finite(self, gradient: Gradient) -> None:
        """Updates the parameters unless the loss or the norm is not finite; nobody waits for it.

        From the first gradient that is not finite on, nothing is updated, until ``switch_on``: then
        the host, which learns of it some steps later, can go back to that step.
        """
        is_bad = ~torch.stack([gradient.loss, gradient.norm]).isfinite().all()
        was_off = is_bad if self._is_off is None else self._is_off
        self._is_off = is_bad | was_off
        self._optimizer.step(self._is_off)
        self.discard()

    def switch_on(self) -> None:
        """Lets ``apply_if_finite`` update again."""
        self._is_off = None
