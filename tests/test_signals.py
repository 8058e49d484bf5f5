import contextlib
import os
import signal
import sys
import threading
import time

import pytest

from lm_core.errors import StoppedAtOnce
from lm_core.training import signals as signals_module
from lm_core.training.signals import (
    SIGNALS,
    StopRequested,
    StopSignals,
    stop_at_once_on_signals,
)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_is_noted_and_interrupts_nothing(number):
    with StopSignals() as signals:
        assert signals.received is None
        os.kill(os.getpid(), number)
        assert signals.received == number


def test_a_second_interrupt_acts_at_once(monkeypatch):
    monkeypatch.setattr(signals_module, "SECONDS_OF_ONE_REQUEST", 0.0)
    with StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.received == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_of_one_moment_are_one_request(monkeypatch, second):
    monkeypatch.setattr(signals_module, "SECONDS_OF_ONE_REQUEST", 60.0)
    with StopSignals() as signals:
        for number in (signal.SIGTERM, second, second):
            os.kill(os.getpid(), number)
        assert signals.received == signal.SIGTERM


def test_a_terminal_that_hangs_up_after_another_signal_asks_for_nothing_more(monkeypatch):
    monkeypatch.setattr(signals_module, "SECONDS_OF_ONE_REQUEST", 0.0)
    with StopSignals() as signals:
        for number in (signal.SIGHUP, signal.SIGHUP):
            os.kill(os.getpid(), number)
        assert signals.received == signal.SIGHUP


def test_afterwards_the_handlers_are_what_they_were():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with StopSignals():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_in_another_thread_it_does_nothing():
    results = []

    def body():
        with StopSignals() as signals:
            results.append(signals.received)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert results == [None]


def test_what_is_being_done_is_given_up_once_a_signal_has_come():
    with StopSignals() as signals:
        signals.check()
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(StopRequested):
            signals.check()


@pytest.mark.parametrize("number", SIGNALS)
def test_outside_training_a_signal_ends_the_program_and_a_further_one_kills_it(number):
    stop_at_once_on_signals()
    with pytest.raises(StoppedAtOnce) as error:
        os.kill(os.getpid(), number)
    assert error.value.exit_code == 128 + number
    assert signal.getsignal(number) == signal.SIG_DFL


def test_no_handler_of_errors_takes_the_end_for_an_error():
    stop_at_once_on_signals()
    with pytest.raises(KeyboardInterrupt), contextlib.suppress(Exception):
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_hang_up_that_is_ignored_stays_so_as_nohup_asks():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop_at_once_on_signals()
    with StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGHUP)
        assert signals.received is None
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_an_interrupt_that_is_ignored_in_the_background_is_meant_all_the_same():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stop_at_once_on_signals()
    with StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.received == signal.SIGINT


def test_a_signal_that_was_noted_is_acted_on_when_asked():
    with StopSignals() as signals:
        signals.act_on_received()
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(StoppedAtOnce) as caught:
            signals.act_on_received()
    assert caught.value.signal_number == signal.SIGTERM


def test_a_signal_that_meets_a_finaliser_acts_a_moment_later():
    class Finalised:
        def __del__(self):
            # What is raised here, Python throws away.
            signal.raise_signal(signal.SIGTERM)
            for _ in range(100):
                pass

    def interrupted():
        finalised = Finalised()
        del finalised
        time.sleep(20)

    stop_at_once_on_signals()
    with pytest.raises(StoppedAtOnce) as caught:
        interrupted()
    assert caught.value.signal_number == signal.SIGTERM


def test_what_else_python_throws_away_is_told_as_ever(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    stop_at_once_on_signals()

    class Finalised:
        def __del__(self):
            raise ZeroDivisionError

    finalised = Finalised()
    del finalised
    assert [each.exc_type for each in told] == [ZeroDivisionError]
