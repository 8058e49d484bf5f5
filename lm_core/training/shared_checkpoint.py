"""One checkpoint for all processes of a run, which the first of them has read and verified."""

from lm_core.parallel.group import Group
from lm_core.training.checkpoint import Checkpoint

# The fields of a checkpoint that hold tensors.
_TENSORS = ("model", "optimizer", "hooks")


def shared_checkpoint(group: Group, checkpoint: Checkpoint | None) -> Checkpoint | None:
    """The checkpoint of the first process, in all of them; None where it has none.

    Args:
        group: The processes.
        checkpoint: In other processes than the first it is not looked at.
    """
    if group.is_alone:
        return checkpoint
    own = checkpoint if group.is_first else None
    head = group.shared(own and {"step": own.step, "state": own.state})
    if head is None:
        return None
    tensors = {name: group.shared_tensors(getattr(own, name) if own else {}) for name in _TENSORS}
    return Checkpoint(**head, **tensors, path=own and own.path)
