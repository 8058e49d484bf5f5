"""What the command line asks for."""

from dataclasses import dataclass
from pathlib import Path

from lm_core.config.resolution import ConfigSources


@dataclass(frozen=True)
class Request:
    """What the command line asks for.

    Attributes:
        config: Where the configuration comes from.
        run_dir: The run directory; None: a new one under ``runs``.
        resume: Go on with the run in ``run_dir``, if there is one.
        checkpoint: The checkpoint to evaluate or sample from: ``newest``, ``best`` or a step; None:
            the run's result.
        corpus: Text to evaluate on, in place of the run's own validation part.
        verify_corpus: Whether to believe nothing that is kept about a large text.
        command_line: The words of the command, for the record.
        format: How to print what is asked for: ``table``, ``yaml``, ``gin``, ``json`` or ``csv``.
        logs_all: Whether training logs every hyperparameter, not only those that differ from
            the default.
        compared: The runs or configuration files to compare or to report on.
        output: Where to write a report; None: where such a one usually is.
        figures: The folder to draw its curves in; None: they are not drawn apart.
        tensorboard: Whether training writes events for TensorBoard too.
        storage: The address of a database for the trials of a search; None: a journal.
        workers: How many trials a search runs at once, as it was given.
        to: The folder to export to.
        source: The folder to import from.
    """

    config: ConfigSources
    run_dir: Path | None = None
    resume: bool = False
    checkpoint: str | None = None
    corpus: str | None = None
    verify_corpus: bool = False
    command_line: tuple[str, ...] = ()
    format: str = "table"
    logs_all: bool = False
    compared: tuple[str, ...] = ()
    output: Path | None = None
    figures: Path | None = None
    tensorboard: bool = False
    storage: str | None = None
    workers: int | float | str | None = None
    to: Path | None = None
    source: Path | None = None
