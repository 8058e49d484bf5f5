"""Who is told what is added to the record of a run, beside the files that keep it."""

from collections.abc import Mapping, Sequence
from typing import Any


class Follower:
    """Is told what is on record from now on; this one does nothing with it.

    What follows a run must never harm it: none of its methods raises an error.
    """

    def metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Lines of ``metrics.jsonl``, in the order of their steps."""

    def samples(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Lines of ``samples.jsonl``."""

    def ended(self, outcome: str, step: int) -> None:
        """The run has ended, or paused.

        Args:
            outcome: As the manifest has it: ``completed``, ``diverged``, ``stopped by SIGTERM``.
            step: The last step that was done.
        """
