"""What a run directory tells of a run from outside: its losses as they come, and its end."""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

# A line of metrics has some hundred bytes; what is longer than this is something else.
_LONGEST_LINE = 2**20
# Bytes that are read at once, and no more in one look.
_MOST_AT_ONCE = 2**24
# A manifest that a run could be gone on with is smaller.
_LARGEST_MANIFEST = 16 * 2**20


class MetricsTail:
    """Reads ``metrics.jsonl`` while a run writes it: whole lines, each once.

    Attributes:
        losses: The validation losses so far, in nats per token, by step.
        step: The last step.
    """

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / "metrics.jsonl"
        self._inode, self._offset = 0, 0
        self.losses: dict[int, float] = {}
        self.step = 0

    def look(self) -> None:
        """Reads what has come since the last time; nothing where there is no such file yet."""
        try:
            with self._path.open("rb") as stream:
                inode = self._path.stat().st_ino
                size = stream.seek(0, 2)
                # A run that goes on puts a shorter file in the place of what it takes back.
                if inode != self._inode or size < self._offset:
                    self._inode, self._offset = inode, 0
                stream.seek(self._offset)
                data = stream.read(_MOST_AT_ONCE)
        except OSError:
            return
        end = data.rfind(b"\n") + 1
        if not end and len(data) == _MOST_AT_ONCE:
            end = len(data)  # No line of metrics, however long one looks.
        self._offset += end
        for line in data[:end].splitlines():
            if len(line) <= _LONGEST_LINE:
                self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            row = json.loads(line)
            step, loss = row["step"], row.get("val_loss")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return
        if type(step) is not int or step < 1:
            return
        self.step = step
        if type(loss) in (int, float) and math.isfinite(loss):
            self.losses[step] = float(loss)

    def result(self, is_best: bool) -> float | None:
        """The validation loss that is the run's result; None: there was no evaluation.

        Args:
            is_best: Whether it is that of the best evaluation, as of runs that may stop early,
                instead of the last one.
        """
        if not self.losses:
            return None
        return min(self.losses.values()) if is_best else self.losses[max(self.losses)]


class Ending(NamedTuple):
    """How a run ended, as its manifest says.

    Attributes:
        outcome: Such as ``completed``; empty: there is no run, or no word.
        reason: Why, in words.
        last_step: Its last step.
    """

    outcome: str
    reason: str
    last_step: int


def ending_of(run_dir: Path) -> Ending:
    """How the run in a directory ended, if there is one."""
    try:
        with (run_dir / "manifest.json").open("rb") as stream:
            manifest: Any = json.loads(stream.read(_LARGEST_MANIFEST))
        outcome, reason = manifest.get("outcome"), manifest.get("reason")
        last_step = manifest.get("last_step")
    except (OSError, ValueError, AttributeError, RecursionError):
        return Ending("", "", 0)
    return Ending(
        outcome if isinstance(outcome, str) else "",
        reason if isinstance(reason, str) else "",
        last_step if type(last_step) is int else 0,
    )
