"""One step of training: a batch, its gradient, and what the optimizer makes of it."""

from functools import partial
from typing import NamedTuple

import torch

from lm_core.compute import DTYPES
from lm_core.data.batches import Batches
from lm_core.errors import MachineError
from lm_core.parallel.shards import own_share
from lm_core.randomness import StepKey
from lm_core.training.objective import Loss, Objective
from lm_core.training.reduction import Reduction
from lm_core.training.schedule import Schedule
from lm_core.training.trained import Trained

# What keeps the division by a norm of zero finite; PyTorch's own.
_NORM_EPSILON = 1e-6


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
        max_grad_norm: The largest norm that gradients are applied with; larger ones are scaled down
            to it (Pascanu et al. 2013). None: there is none.
        schedule: Of the learning rates.
    """

    precision: str
    compiles: bool
    objective: Objective
    max_grad_norm: float | None
    schedule: Schedule


class Update:
    """Computes gradients and applies them.

    Args:
        trained: The model, on its device, and what belongs to it.
        batches: The windows of each step.
        reduction: Computes the parts of a batch, and puts their gradients together.
        settings: How a step is made.

    Attributes:
        n_tokens: Tokens of a batch.
        is_on_gpu: Whether the device works on while the host does something else.

    Raises:
        InputError: There is no GPU to compile for.
    """

    def __init__(
        self, trained: Trained, batches: Batches, reduction: Reduction, settings: UpdateSettings
    ) -> None:
        self._model, self._optimizer = trained.model, trained.optimizer
        self._hooks, self._average = trained.hooks, trained.average
        self._reduction = reduction
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
        own = self._reduction.own
        inputs, targets = self._batches.batch(key.step, own.start, own.stop)

        def compute(part: range) -> torch.Tensor:
            rows = slice(part.start - own.start, part.stop - own.start)
            tokens = self._moved(inputs[rows]), self._moved(targets[rows])
            loss = self._loss(*tokens, key._replace(first_sequence=part.start))
            divisor = self._reduction.divisor(part)
            (loss.objective if divisor == 1 else loss.objective / divisor).backward()
            return loss.cross_entropy.detach()

        return Gradient(key, self._reduction.gradient(compute), self.norm())

    def _loss(self, inputs: torch.Tensor, targets: torch.Tensor, key: StepKey) -> Loss:
        try:
            logits = self._reduction.forward(inputs, key=key, dtype=self._dtype)
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
        return self._reduction.norm(self._own_gradients())

    def _own_gradients(self) -> list[torch.Tensor]:
        """The gradients as this process keeps them."""
        gradients = (parameter.grad for parameter in self._model.parameters())
        return [own_share(gradient) for gradient in gradients if gradient is not None]

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
            # As torch.nn.utils.clip_grads_with_norm_ does, and on shares of gradients too.
            factor = (largest / (norm + _NORM_EPSILON)).clamp(max=1)
            if gradients := self._own_gradients():
                torch._foreach_mul_(gradients, factor)
