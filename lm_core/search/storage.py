"""Where the trials of a study are remembered: a journal in its folder, or a database."""

import contextlib
import time
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm_core.errors import InputError, MachineError, one_line
from lm_core.extras import needed
from lm_core.search.locks import JournalLock

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

# How to get what a search needs.
INSTALL = "python -m pip install -c constraints.txt -e '.[search]'"
# Seconds to wait for a database to answer at the start.
_SECONDS_TO_CONNECT = 10
# Seconds in which a database has made the few tables of Optuna.
_SECONDS_OF_MAKING = 2.0
# SQLAlchemy's names of PostgreSQL and its driver; the lab brings psycopg.
_POSTGRESQL = ("postgresql", "postgres")
# What makes its connections wait no longer than so many seconds.
_TIMEOUT_ARGUMENT = {"postgresql": "connect_timeout", "mysql": "connect_timeout"}


def require_optuna(sampler: str) -> None:
    """Imports what a search needs, and makes it quiet.

    Args:
        sampler: One of ``SAMPLERS``.

    Raises:
        InputError: It is not installed; says how to get it.
    """
    optuna = needed("optuna", "search", "--mode=search")
    # It takes a second to import, and is needed at the end only; that it is missing is told now.
    if find_spec("sklearn") is None:
        needed("sklearn", "search", "the report of --mode=search")
    if sampler == "cmaes":  # Told now, not after the first trials.
        needed("cmaes", "search", "sampler: cmaes")
    # What it says is for programmers; people have the table of the study.
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def open_journal(journal: Path) -> "BaseStorage":
    """The storage of a study in a file of its own, which is made where there is none.

    Raises:
        MachineError: It cannot be read.
    """
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    try:
        return JournalStorage(JournalFileBackend(str(journal), JournalLock(journal)))
    except OSError as error:
        raise MachineError(f"{journal} cannot be opened: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        message = f"{journal} is damaged: {type(error).__name__}: {error}"
        raise MachineError(f"{message}; put back a copy, or begin anew in another --run_dir") from (
            error
        )


def open_database(url: str) -> "BaseStorage":
    """The storage of studies in a database.

    Args:
        url: Its address, as SQLAlchemy has it.

    Raises:
        InputError: There is none, or what it needs is not installed.
    """
    needed("sqlalchemy", "search", "--storage")
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import (
        ArgumentError,
        IntegrityError,
        NoSuchModuleError,
        ProgrammingError,
        SQLAlchemyError,
    )

    who = f"--storage={shown_url(url)}"
    if url.startswith("redis"):
        message = "Optuna's journal in Redis holds pickles, which could run code here"
        raise InputError(f"{who}: {message}; take a database such as postgresql://HOST/NAME")
    try:
        address, kind = _with_driver(url)
        arguments: dict[str, Any] = {"pool_pre_ping": True}
        if kind in _TIMEOUT_ARGUMENT:
            arguments["connect_args"] = {_TIMEOUT_ARGUMENT[kind]: _SECONDS_TO_CONNECT}
        try:
            return RDBStorage(address, engine_kwargs=arguments)
        except (IntegrityError, ProgrammingError):
            # Of two machines that make the tables in the same moment, one fails.
            time.sleep(_SECONDS_OF_MAKING)
            return RDBStorage(address, engine_kwargs=arguments)
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        reason = "is no address of a database, such as postgresql://HOST/NAME"
        raise InputError(f"{who}: {reason} ({_first_line(error)})") from error
    except ImportError as error:
        # Optuna wraps the driver's own error in a sentence of many lines.
        extra = INSTALL if kind == "postgresql" else "python -m pip install the driver of it"
        raise InputError(f"{who}: the driver is missing: {extra}") from error
    except (SQLAlchemyError, RuntimeError, OSError) as error:
        cause = getattr(error, "orig", None) or error
        raise InputError(f"{who}: cannot be reached: {_first_line(cause)}") from error


def shown_url(url: str) -> str:
    """An address without its password, for messages."""
    try:
        from sqlalchemy.engine import make_url

        return make_url(url).render_as_string(hide_password=True)
    except Exception:  # Whatever is wrong with it, no password may be shown.
        return one_line(url.rpartition("@")[2])


def _with_driver(url: str) -> tuple[str, str]:
    """An address with the driver that the lab brings, and the kind of its database."""
    from sqlalchemy.engine import make_url

    address = make_url(url)
    kind = address.get_backend_name()
    if address.drivername in _POSTGRESQL:
        address, kind = address.set(drivername="postgresql+psycopg"), "postgresql"
    return address.render_as_string(hide_password=False), kind


@contextlib.contextmanager
def failures_told(url: str | None) -> Iterator[None]:
    """Says of a storage that fails in the middle of a study that the same command goes on.

    Args:
        url: The address of the database; None: there is a journal.

    Raises:
        MachineError: It did.
    """
    if url is None:  # Without what databases need, which takes a second to import.
        try:
            yield
        except OSError as error:
            message = f"the study cannot be written: {error.strerror or error}"
            raise MachineError(f"{message}; when that is mended, the same command goes on") from (
                error
            )
        return
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        cause = getattr(error, "orig", None) or error.__cause__ or error
        message = f"--storage={shown_url(url)} failed: {_first_line(cause)}"
        raise MachineError(f"{message}; when it is back, the same command goes on") from error


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return one_line(lines[0]) if lines else type(error).__name__
