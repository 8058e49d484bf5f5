"""What a run writes as it goes: metrics, samples, checkpoints, and lines for who watches."""

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lm_core.errors import MachineError
from lm_core.json_lines import json_row
from lm_core.metrics import MetricsBuffer
from lm_core.output import warn
from lm_core.progress import TrainingProgress
from lm_core.record import RunDirectory
from lm_core.sampling import headings
from lm_core.training.checkpoint import Checkpoint, name_of, save_checkpoint
from lm_core.training.checkpoint_folder import (
    list_checkpoints,
    remove_checkpoints,
    remove_superseded,
)
from lm_core.training.run_state import RunState

# Metrics are fetched from the device and written when this many seconds have passed.
_SECONDS_BETWEEN_FLUSHES = 1.0
# What is written of a sampler with each sample.
_SETTINGS_OF_SAMPLES = ("prompt", "seed", "temperature", "top_k", "top_p")


class Recorder:
    """Keeps metrics and notes until it is time to write them, and writes what it is told to.

    Args:
        keep_checkpoints: How many of the newest checkpoints stay, beside the best; None: all.
        writes: Whether this process does; else another one writes what this one only counts.

    Attributes:
        saved_step: The step of the newest checkpoint; None: there is none.
        newest_row: The metrics of the newest step that has been written, as plain numbers, null
            where there is none; so is its speed.
    """

    def __init__(self, keep_checkpoints: int | None, writes: bool = True) -> None:
        self._writes = writes
        self._keep_checkpoints = keep_checkpoints
        self._metrics = MetricsBuffer()
        self._notes: list[str] = []
        self._last_flush = -math.inf
        self._seconds_of_looks: list[float] = []
        self._run: RunDirectory | None = None
        self._progress: TrainingProgress | None = None
        # What to keep, and the best step, once the newest checkpoint has proved its worth.
        self._superseding: tuple[int | None, int | None] | None = None
        self._passed_over: set[int] = set()
        self._has_saved = False
        self.saved_step: int | None = None
        self.newest_row: dict[str, Any] | None = None

    def begin(self, run: RunDirectory | None, progress: TrainingProgress | None) -> None:
        """From now on, things go into a run directory and are shown, where there are any."""
        self._run, self._progress = run, progress
        if run is not None and self.saved_step is not None:
            # A run goes on from the newest sound checkpoint: what is later is damaged.
            steps = {step for step, _ in list_checkpoints(run.checkpoints)}
            self._passed_over = {step for step in steps if step > self.saved_step}

    @contextlib.contextmanager
    def recording(
        self, run: RunDirectory | None, progress: TrainingProgress | None
    ) -> Iterator[None]:
        """As ``begin``; where training fails, what it has done by then is written all the same."""
        self.begin(run, progress)
        try:
            yield
        except Exception:
            # What failed first is what a person has to read.
            with contextlib.suppress(MachineError, RuntimeError):
                self.flush(force=True)
            raise

    def go_on_from(self, step: int, state: RunState) -> None:
        """Takes up what another process left: the newest checkpoint, which others are to go for.

        Args:
            step: Its step.
            state: What the run knew then.
        """
        self.saved_step = step
        self._superseding = self._keep(state), state.best_step

    def good_checkpoint(self, good_before: int) -> str:
        """Words about the last good checkpoint: its weights have given a finite loss.

        Args:
            good_before: Those of earlier steps are good.
        """
        if self._run is None or self.saved_step is None:
            return "no checkpoint was saved"
        newest = self._run.checkpoints / name_of(self.saved_step)
        there = {step for step, _ in list_checkpoints(self._run.checkpoints)}
        steps = sorted(there - self._passed_over)
        good = [step for step in steps if step < good_before]
        if not good:
            return f"the weights of {newest} have given no finite loss, and no checkpoint is good"
        last = f"the last good checkpoint is {self._run.checkpoints / name_of(good[-1])}"
        n_later = len(steps) - len(good)
        if n_later == 0:
            return last
        later, them = newest.name, "it"
        if n_later > 1:
            later, them = f"the {n_later} after it, up to {newest.name},", "them"
        return (
            f"{last}; {later} gave no finite loss (move {them} away to --resume from the good one)"
        )

    def add(self, row: Mapping[str, Any]) -> None:
        """Adds the metrics of a step: plain numbers or scalar tensors."""
        self._metrics.add(row)

    def drop_after(self, step: int) -> None:
        """Forgets the rows, not yet written, of the steps after one."""
        self._metrics.drop_after(step)

    def amend(self, values: Mapping[str, Any], seconds: float) -> None:
        """Adds values to the metrics of the newest step.

        Args:
            values: Plain numbers or scalar tensors.
            seconds: How long it took to find them, which is no part of the step's own time.
        """
        self._metrics.amend(**values)
        self._seconds_of_looks.append(seconds)

    def note(self, text: str) -> None:
        """Keeps a line for who watches, to follow the metrics of its step."""
        self._notes.append(text)

    def add_samples(self, step: int, texts: Sequence[str], sampler: Any) -> None:
        """Writes the samples of a step: all of them, or none.

        Args:
            step: The step.
            texts: The samples in their order.
            sampler: What made them; its settings are written beside each text.
        """
        for heading, text in zip(headings(texts), texts, strict=True):
            self.note(f"step {step}  {heading} {text!r}")
        if self._run is not None:
            settings = {name: getattr(sampler, name, None) for name in _SETTINGS_OF_SAMPLES}
            self._run.append_samples(
                {"step": step, "sample": index, **settings, "text": text}
                for index, text in enumerate(texts)
            )

    @property
    def is_time(self) -> bool:
        """Whether metrics are to be fetched and written."""
        is_late = time.perf_counter() - self._last_flush >= _SECONDS_BETWEEN_FLUSHES
        return bool(self._notes) or is_late

    def flush(self, force: bool = False) -> list[dict[str, Any]]:
        """Fetches and writes the metrics, and shows how far it is, if it is time to.

        Args:
            force: Whether it is in any case. Where there are notes, it is.

        Returns:
            The rows that were written, as plain numbers.

        Raises:
            MachineError: They cannot be written.
        """
        if not (force or self.is_time):
            return []
        self._last_flush = time.perf_counter()
        rows, notes = self._metrics.flush(), self._notes
        looks, self._seconds_of_looks = self._seconds_of_looks, []
        self._notes = []
        if rows:
            self.newest_row = json_row(rows[-1]) | {"tokens_per_second": None}
        if rows and self._run is not None:
            self._run.append_metrics(rows)
        if self._progress is not None:
            if rows:
                last = rows[-1]
                speed = last.get("tokens_per_second", math.nan)
                self._progress.update(last["step"], last["train_loss"], speed, sum(looks))
            for note in notes:
                self._progress.note(note)
        return rows

    def save(self, checkpoint: Checkpoint, state: RunState) -> None:
        """Saves a checkpoint, never before its metrics are safe.

        Args:
            checkpoint: What to save.
            state: What the run knows beside: the checkpoint of its best step is to stay.

        Raises:
            MachineError: It cannot be saved.
        """
        self.flush(force=True)
        if self._run is None:
            self.saved_step = self.saved_step if self._writes else checkpoint.step
            return
        self._run.require_own()
        self._run.sync()
        save_checkpoint(self._run.checkpoints, checkpoint)
        is_first, self.saved_step = self.saved_step is None, checkpoint.step
        self._superseding = self._keep(state), state.best_step
        self._has_saved = True
        self._passed_over.discard(checkpoint.step)
        if is_first:
            # From now on it is known that there is something to lose, also after a kill.
            self._run.update_manifest(saved_step=checkpoint.step)

    def _keep(self, state: RunState) -> int | None:
        """How many of the newest are to stay: all where one is the best, and which is not known."""
        return None if state.best_is_somewhere else self._keep_checkpoints

    def remove_superseded(self) -> None:
        """Removes the checkpoints that the newest makes superfluous, once it has proved its worth.

        What cannot be removed is worth a warning.
        """
        if self._run is None or self._superseding is None:
            return
        superseding, self._superseding = self._superseding, None
        try:
            self._run.require_own()
            folder = self._run.checkpoints
            remove_superseded(folder, *superseding, self._passed_over)
            # Damaged ones stay as long as a person may want to go back to before this start.
            if self._has_saved:
                remove_checkpoints(folder, self._passed_over)
        except MachineError as error:
            warn(f"{error.message}; it takes space, and training goes on")
