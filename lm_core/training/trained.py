"""Everything that training changes, and its tensors as a checkpoint keeps them."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch

from lm_core.errors import MachineError
from lm_core.hooks import Hooks
from lm_core.model.transformer import Transformer
from lm_core.parallel.group import Group
from lm_core.parallel.shards import gathered, own_share, whole
from lm_core.training.averaging import WeightAverage
from lm_core.training.optimizer import Optimizer, load_optimizer_tensors, optimizer_tensors

# Under this name, beside an optimizer's state, a checkpoint keeps the weights that training goes on
# with, where the model's are an average of them.
_IN_TRAINING = "weight_in_training"


def tensors_of_start(
    weights: Mapping[str, torch.Tensor], averages: bool
) -> dict[str, dict[str, torch.Tensor]]:
    """What ``Trained.tensors`` gives before the first step.

    Args:
        weights: The weights that training begins with, by name.
        averages: Whether there is an average of the weights.
    """
    state = {f"{name}/{_IN_TRAINING}": weight for name, weight in weights.items()}
    return {"model": dict(weights), "optimizer": state if averages else {}}


class Trained(NamedTuple):
    """Everything that training changes.

    Attributes:
        model: The model, with the weights that training goes on with.
        optimizer: Updates them.
        hooks: May change gradients and updates, and may keep state.
        average: The average of the weights, which is the model to everybody else. None: the
            weights are.
        group: The processes that train it.
    """

    model: Transformer
    optimizer: Optimizer
    hooks: Hooks
    average: WeightAverage | None
    group: Group = Group()

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Gives the model the weights that others are to see, whole in every process."""
        average = contextlib.nullcontext()
        if self.average is not None:
            average = self.average.in_place_of_weights()
        with average, gathered(self.model):
            yield

    @property
    def is_finite(self) -> bool:
        """Whether all weights are, in all processes."""
        own = (own_share(parameter.detach()) for parameter in self.model.parameters())
        (is_bad,) = self.group.largest(int(not all(bool(p.isfinite().all()) for p in own)))
        return not is_bad

    def tensors(self) -> dict[str, dict[str, torch.Tensor]]:
        """The fields ``model`` and ``optimizer`` of a ``Checkpoint``.

        All processes call this together; of what is sharded, only the first has something then.
        """
        weights = dict(self.model.state_dict())
        state = optimizer_tensors(self.optimizer, self.model)
        if self.average is None:
            return {"model": self._whole(weights), "optimizer": self._whole(state)}
        state |= {f"{name}/{_IN_TRAINING}": weight for name, weight in weights.items()}
        return {"model": self._whole(self.average.weights), "optimizer": self._whole(state)}

    def _whole(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Whole tensors: one after the other, so that only who keeps them needs memory for all."""
        gathered = ((name, whole(tensor)) for name, tensor in tensors.items())
        if self.group.is_first:
            return {name: tensor for name, tensor in gathered}  # noqa: C416 -- as below
        for _ in gathered:
            pass
        return {}

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
