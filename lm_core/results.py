"""The result of a run: the checkpoint that others take for its model."""

from lm_core.config.training_config import TrainingConfig
from lm_core.errors import InputError
from lm_core.output import warn
from lm_core.record import RunDirectory
from lm_core.training.checkpoint import Checkpoint
from lm_core.training.checkpoint_folder import best_checkpoint, chosen_checkpoint


def result_of(run: RunDirectory, values: TrainingConfig, which: str | None = None) -> Checkpoint:
    """A checkpoint of a run.

    Args:
        run: The run.
        values: Its configuration.
        which: ``newest``, ``best`` (by validation loss), or a step. None: the run's result, which
            is the best where it may stop early, and else the newest.

    Raises:
        InputError: There is no such checkpoint.
        MachineError: It is damaged.
    """
    if which is None and values.early_stopping_evaluations is not None:
        checkpoint = best_checkpoint(run.checkpoints, warn)
    else:
        checkpoint = chosen_checkpoint(run.checkpoints, which or "newest", warn)
    if checkpoint is None:
        raise InputError(f"{run.path} holds no checkpoint yet")
    return checkpoint
