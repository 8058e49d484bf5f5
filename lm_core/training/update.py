"""One step of training: a batch, its gradient, and what the optimizer makes of it."""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import torch

from lm_core.compute import DTYPES
from lm_core.data.batches import Batches
from lm_core.errors import MachineError
from lm_core.randomness import StepKey
from lm_core.training.objective import Loss, Objective
from lm_core.training.schedule import Schedule
from lm_core.training.trained import Trained


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


class UpdateSettings(NamedTuple):
    """How a step is made.

    Attributes:
        precision: Of the products, ``float32`` or ``bfloat16``. Weights, gradients and the
            optimizer are in float32.
        compiles: Whether PyTorch compiles the model's blocks.
        objective: What gradients are of.
        accumulation_steps: Parts of a batch that are computed one after the other; divides it.
        max_grad_norm: The largest norm that gradients are applied with; larger ones are scaled down
            to it (Pascanu et al. 2013). None: there is none.
        schedule: Of the learning rates.
    """

    precision: str
    compiles: bool
    objective: Objective
    accumulation_steps: int
    max_grad_norm: float | None
    schedule: Schedule


class Update:
    """Computes gradients and applies them.

    Args:
        trained: The model, on its device, and what belongs to it.
        batches: The windows of each step.
        settings: How a step is made.

    Attributes:
        n_tokens: Tokens of a batch.
        is_on_gpu: Whether the device works on while the host does something else.

    Raises:
        InputError: There is no GPU to compile for.
    """

    def __init__(self, trained: Trained, batches: Batches, settings: UpdateSettings) -> None:
        self._model, self._optimizer, self._hooks, self._average = trained
        # To name them imports the compiler, which takes a second.
        self._errors_of_compiling: tuple[type[Exception], ...] = ()
        if settings.compiles:
            self._model.compile_blocks()
            self._errors_of_compiling = (torch._dynamo.exc.TorchDynamoException,)
        self._batches, self._settings = batches, settings
        self._dtype = DTYPES[settings.precision]
        self.is_on_gpu = self._model.device.type == "cuda"
        self.n_tokens = batches.n_tokens
        self._is_off: torch.Tensor | None = None

    def learning_rates(self, step: int) -> dict[str, float]:
        """The learning rates of a step, by the names of their hyperparameters."""
        return self._optimizer.learning_rates(self._settings.schedule(step))

    @property
    def highest_learning_rates(self) -> dict[str, float]:
        """The learning rates that the schedule lowers, as they are configured."""
        return self._optimizer.learning_rates()

    def gradient(self, key: StepKey) -> Gradient:
        """Forward and backward of a step.

        Raises:
            MachineError: PyTorch cannot compile the model here.
        """
        n_parts = self._settings.accumulation_steps
        losses = []
        for first, inputs, targets in self._parts(key.step):
            loss = self._loss(inputs, targets, key._replace(first_sequence=first))
            # Parts are equal, so that the mean of their means is that of the batch.
            (loss.objective if n_parts == 1 else loss.objective / n_parts).backward()
            losses.append(loss.cross_entropy.detach())
        mean = losses[0] if n_parts == 1 else torch.stack(losses).mean()
        return Gradient(key, mean, self.norm())

    def _parts(self, step: int) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
        """The parts of a batch: the index of its first sequence, inputs and targets."""
        inputs, targets = self._batches.batch(step)
        n_sequences = len(inputs) // self._settings.accumulation_steps
        for first in range(0, len(inputs), n_sequences):
            part = slice(first, first + n_sequences)
            yield first, self._moved(inputs[part]), self._moved(targets[part])

    def _loss(self, inputs: torch.Tensor, targets: torch.Tensor, key: StepKey) -> Loss:
        try:
            logits = self._model(inputs, key=key, dtype=self._dtype)
        except self._errors_of_compiling as error:
            reason = str(error).strip().splitlines()[0]
            message = f"compile: PyTorch cannot compile the model on this machine: {reason}"
            raise MachineError(f"{message}; compile: false trains without") from error
        return self._settings.objective(logits, targets)

    def _moved(self, tokens: torch.Tensor) -> torch.Tensor:
        """Token ids on the model's device; a copy to a GPU goes on while the host does."""
        if self.is_on_gpu:
            tokens = tokens.pin_memory()
        return tokens.to(self._model.device, non_blocking=self.is_on_gpu)

    def norm(self) -> torch.Tensor:
        """Euclidean norm of all gradients together, a scalar."""
        gradients = [p.grad for p in self._model.parameters() if p.grad is not None]
        return torch.nn.utils.get_total_norm(gradients)

    def apply(self, gradient: Gradient) -> None:
        """Updates the parameters by the gradient that stands in them, with all hooks.

        Args:
            gradient: What is known of it, its norm as it is now.
        """
        self._clip(gradient.norm)
        factor = self._settings.schedule(gradient.key.step)
        self._hooks.step(partial(self._optimizer.step, factor), gradient.key)
        self.end_step(gradient.key)

    def end_step(self, key: StepKey) -> None:
        """Ends a step: the average takes the weights as they are, and the gradient is forgotten."""
        if self._average is not None:
            self._average.take(key.step)
        self._optimizer.forget_gradients()

    def apply_if_finite(self, gradient: Gradient) -> None:
        """Updates the parameters unless the loss or the norm is not finite; nobody waits for it.

        From the first gradient that is not finite on, nothing is updated, until ``switch_on``: then
        the host, which learns of it some steps later, can go back to that step.
        """
        is_bad = ~torch.stack([gradient.loss, gradient.norm]).isfinite().all()
        was_off = is_bad if self._is_off is None else self._is_off
        self._is_off = is_bad | was_off
        self._clip(gradient.norm)
        step = gradient.key.step
        self._optimizer.step(self._settings.schedule(step), self._is_off)
        if self._average is not None:
            self._average.take(step, self._is_off)
        self._optimizer.forget_gradients()

    def switch_on(self) -> None:
        """Lets ``apply_if_finite`` update again."""
        self._is_off = None

    def _clip(self, norm: torch.Tensor) -> None:
        """Scales the gradients down, where their norm is too large."""
        largest = self._settings.max_grad_norm
        if largest is not None:
            parameters = list(self._model.parameters())
            torch.nn.utils.clip_grads_with_norm_(parameters, largest, norm)
