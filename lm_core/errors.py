"""The errors a person is meant to read, and the exit code each one ends the program with."""


class LabError(Exception):
    """An error whose message is written for the person at the terminal.

    ``run.py`` prints ``message`` on standard error, without a traceback, and exits with
    ``exit_code``. Anything else that is raised is a defect of the lab and keeps its traceback.

    Gin appends its own call chain to the text of an exception that passes through a configurable;
    ``message`` stays as it was written.
    """

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InputError(LabError, ValueError):
    """What was asked for cannot be done: a wrong value, file, flag or combination of them.

    Library code raises it wherever it would raise a ``ValueError`` for a user's mistake. The
    message names the culprit, where it stands, and what to do instead.
    """

    exit_code = 2


class MachineError(LabError, RuntimeError):
    """The request was right and the machine failed it: no memory, no space, a damaged file."""

    exit_code = 1


class DivergenceError(LabError, ArithmeticError):
    """Training left the finite numbers."""

    exit_code = 3


class StoppedError(LabError):
    """A signal asked the run to stop, and it stopped after saving.

    Args:
        message: What was saved and how to go on.
        signal_number: The signal that asked; the exit code is 128 plus it, as shells have it.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number
