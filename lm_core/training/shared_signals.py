"""Signals that ask a run to stop: whichever of its processes gets one, all of them hear of it."""

from lm_core.parallel.group import Group
from lm_core.training.signals import StopRequested, StopSignals


class SharedSignals(StopSignals):
    """Notes signals as ``StopSignals`` does, and tells the other processes.

    A process acts on what all have agreed on, never on what it alone has heard: one that stopped
    by itself would leave the others waiting.

    Args:
        group: The processes.

    Attributes:
        agreed: The number of the signal that all know of, or None.
    """

    def __init__(self, group: Group) -> None:
        super().__init__()
        self._group = group
        self.agreed: int | None = None

    def agree(self, *facts: bool) -> list[bool]:
        """Tells the others of a signal, and hears of theirs.

        Args:
            *facts: What else each process knows alone.

        Returns:
            Of each fact, whether it is so in any process.
        """
        number, *known = self._group.largest(self.received or 0, *map(int, facts))
        self.agreed = number or None
        return list(map(bool, known))

    def check(self) -> None:
        """Gives up what all processes are doing, where a signal has come to one.

        Raises:
            StopRequested: One has.
        """
        self.agree()
        if self.agreed is not None:
            raise StopRequested
