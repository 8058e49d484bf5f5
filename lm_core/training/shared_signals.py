"""Signals that ask a run to stop: whichever of its processes gets one, all of them hear of it."""

from lm_core.parallel.group import Group
from lm_core.training.signals import StopRequested, StopSignals

# A cluster may signal all processes, and the launcher too, which hands it on to all of them: that
# is one request. torchrun kills what has not ended after 30 seconds.
_SECONDS_TO_HAND_ON = 10.0


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

    def _is_one_request(self, seconds: float) -> bool:
        alone = super()._is_one_request(seconds)
        return alone if self._group.is_alone else seconds < _SECONDS_TO_HAND_ON

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
