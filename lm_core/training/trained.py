"""Everything that training changes, and its tensors as a checkpoint keeps them."""

from collections.abc import Mapping
from typing import NamedTuple

import torch

from lm_core.errors import MachineError
from lm_core.hooks import Hooks
from lm_core.model.transformer import Transformer
from lm_core.training.averaging import WeightAverage
from lm_core.training.optimizer import Optimizer, load_optimizer_tensors, optimizer_tensors

# Under this name, beside an optimizer's state, a checkpoint keeps the weights that training goes on
# with, where the model's are an average of them.
_IN_TRAINING = "weight_in_training"


def tensors_of_start(model: Transformer, averages: bool) -> dict[str, dict[str, torch.Tensor]]:
    """What ``Trained.tensors`` gives before the first step.

    Args:
        model: With the weights that training begins with.
        averages: Whether there is an average of the weights.
    """
    weights = dict(model.state_dict())
    state = {f"{name}/{_IN_TRAINING}": weight for name, weight in weights.items()}
    return {"model": weights, "optimizer": state if averages else {}}


class Trained(NamedTuple):
    """Everything that training changes.

    Attributes:
        model: The model, with the weights that training goes on with.
        optimizer: Updates them.
        hooks: May change gradients and updates, and may keep state.
        average: The average of the weights, which is the model to everybody else. None: the
            weights are.
    """

    model: Transformer
    optimizer: Optimizer
    hooks: Hooks
    average: WeightAverage | None

    @property
    def is_finite(self) -> bool:
        """Whether all weights are."""
        return all(bool(p.isfinite().all()) for p in self.model.parameters())

    def tensors(self) -> dict[str, dict[str, torch.Tensor]]:
        """The fields ``model`` and ``optimizer`` of a ``Checkpoint``."""
        weights = dict(self.model.state_dict())
        state = optimizer_tensors(self.optimizer, self.model)
        if self.average is None:
            return {"model": weights, "optimizer": state}
        state |= {f"{name}/{_IN_TRAINING}": weight for name, weight in weights.items()}
        return {"model": dict(self.average.weights), "optimizer": state}

    def load(
        self, model: Mapping[str, torch.Tensor], optimizer: Mapping[str, torch.Tensor]
    ) -> None:
        """Takes what ``tensors`` gave.

        Args:
            model: That field.
            optimizer: That field.

        Raises:
            MachineError: They are not those of such a model and optimizer.
        """
        weights, state = {}, {}
        for path, tensor in optimizer.items():
            name, _, kind = path.rpartition("/")
            if kind == _IN_TRAINING:
                weights[name] = tensor
            else:
                state[path] = tensor
        if bool(weights) != (self.average is not None):
            has, needs = ("has", "has none") if weights else ("lacks", "has one")
            message = f"the checkpoint {has} an average of the weights"
            raise MachineError(f"{message}, and this training {needs} (ema_decay)")
        # The averages too are looked at as a model's before anything is taken from them.
        self.model.load(model)
        if self.average is not None:
            self.average.load(model)
            self.model.load(weights)
        load_optimizer_tensors(self.optimizer, self.model, state)
