import signal

import pytest

from lm_core.parallel.group import Group
from lm_core.training import signals as stop_signals
from lm_core.training.shared_signals import SharedSignals
from lm_core.training.signals import StopRequested


class Two(Group):
    """A group whose other process has something to say."""

    def __init__(self, *theirs):
        super().__init__()
        self.theirs = theirs

    def largest(self, *numbers):
        return [max(pair) for pair in zip(numbers, self.theirs, strict=True)]


def test_nobody_stops_before_all_have_agreed():
    with SharedSignals(Group()) as signals:
        signal.raise_signal(signal.SIGTERM)
        assert signals.agreed is None
        signals.agree()
        assert signals.agreed == signal.SIGTERM


def test_a_signal_to_another_process_is_heard():
    with SharedSignals(Two(signal.SIGINT)) as signals:
        signals.agree()
        assert signals.agreed == signal.SIGINT
        assert signals.received is None
        with pytest.raises(StopRequested):
            signals.check()


def test_what_one_process_knows_all_know():
    with SharedSignals(Two(0, 1, 0)) as signals:
        assert signals.agree(False, True) == [True, True]
        assert signals.agree(False, False) == [True, False]
        assert signals.agreed is None


def test_a_signal_that_the_launcher_hands_on_later_is_the_same_request(monkeypatch):
    monkeypatch.setattr(stop_signals, "SECONDS_OF_ONE_REQUEST", 0.0)
    several = Two(0)
    several.n_processes = 2
    with SharedSignals(several) as signals:
        for _ in range(2):
            signal.raise_signal(signal.SIGTERM)
        assert signals.received == signal.SIGTERM
    with SharedSignals(Group()):
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_without_a_signal_nothing_is_given_up():
    with SharedSignals(Group()) as signals:
        signals.check()
        assert signals.agreed is None
