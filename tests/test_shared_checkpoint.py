"""Between processes it is tested in test_trainer_together.py."""

import torch

from lm_core.parallel.group import Group
from lm_core.training.checkpoint import Checkpoint
from lm_core.training.shared_checkpoint import shared_checkpoint
from tests.processes import together


def test_one_process_has_what_it_has():
    checkpoint = Checkpoint(3, {}, {})
    assert shared_checkpoint(Group(), checkpoint) is checkpoint
    assert shared_checkpoint(Group(), None) is None


def handed_over(group):
    """What each process has of a checkpoint that the first one has read."""
    tensors = {"a": torch.arange(6.0).view(2, 3)}, {"a/step": torch.tensor(5.0)}, {}
    checkpoint = Checkpoint(5, *tensors, state={"seed": 1, "row": None})
    return shared_checkpoint(group, checkpoint if group.is_first else None)


def test_all_processes_have_what_the_first_has():
    for found in together(3, handed_over):
        assert (found.step, found.state, found.hooks) == (5, {"seed": 1, "row": None}, {})
        assert torch.equal(found.model["a"], torch.arange(6.0).view(2, 3))
        assert torch.equal(found.optimizer["a/step"], torch.tensor(5.0))
