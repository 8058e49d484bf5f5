"""A run for programs and notebooks: its model, its tokenizer and its configuration in one call."""

import operator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, SupportsIndex

from lm_core.config.resolution import ConfigSources
from lm_core.config.training_config import TrainingConfig
from lm_core.data.tokenizer import Tokenizer
from lm_core.errors import InputError, shown
from lm_core.examination import open_run, restored
from lm_core.model.transformer import Transformer
from lm_core.recorded_config import with_first_sources
from lm_core.request import Request


@dataclass(frozen=True)
class LoadedRun:
    """A run that ``load_run`` has loaded.

    Attributes:
        model: The model, in evaluation mode, with the run's hooks, on the run's device.
        tokenizer: Its tokenizer.
        config: Every hyperparameter: ``config.learning_rate``, or all by ``config.to_dict()``.
        sources: Where each of them was set, in words.
        step: Steps that the model was trained for.
        path: The run directory.
        manifest: What is known about the run as a whole.
    """

    model: Transformer
    tokenizer: Tokenizer
    config: TrainingConfig
    sources: dict[str, str]
    step: int
    path: Path
    manifest: dict[str, Any]

    def __repr__(self) -> str:
        size = f"{self.model.n_parameters:,} parameters"
        return f"<run {self.path}: step {self.step:,}, {size}, tokenizer {self.tokenizer.kind}>"


def load_run(path: str | PathLike[str], checkpoint: str | SupportsIndex | None = None) -> LoadedRun:
    """A run's model, tokenizer and configuration.

    Args:
        path: The run directory, such as ``runs/latest``.
        checkpoint: ``newest``, ``best`` (by validation loss), or the number of a step. None: the
            run's result, which is the best of a run that may stop early, and else the newest.

    Raises:
        InputError: There is no such run or checkpoint, or its record was changed. It is a
            ``ValueError``, and its ``message`` says what to do.
        MachineError: The checkpoint is damaged, or does not fit into memory.
    """
    if not isinstance(path, str | PathLike) or not str(path):
        raise InputError(f"path: {shown(path)} is no run directory; name one, such as runs/latest")
    which = _which(checkpoint)
    request = Request(ConfigSources(), run_dir=Path(path).expanduser(), checkpoint=which)
    try:
        run, config, found = open_run(request)
    except InputError as error:
        if not error.message.startswith("--checkpoint"):
            raise
        # Who calls a function has no flags.
        raise InputError(error.message.removeprefix("--")) from error
    model, tokenizer = restored(found, config)
    sources = {key: str(s) for key, s in with_first_sources(config, run).sources.items()}
    return LoadedRun(model, tokenizer, config.values, sources, found.step, run.path, run.manifest)


def _which(checkpoint: str | SupportsIndex | None) -> str | None:
    """A checkpoint as the command line has it; any integer will do, NumPy's too."""
    if checkpoint is None or isinstance(checkpoint, str):
        return checkpoint
    try:
        if not isinstance(checkpoint, bool):
            return str(operator.index(checkpoint))
    except TypeError:
        pass
    known = "'newest', 'best' or the number of a step"
    raise InputError(f"checkpoint: {shown(checkpoint)} is none of {known}")
