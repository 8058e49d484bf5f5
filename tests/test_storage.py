import builtins
import errno
import os
import sys

import pytest

from lm_core.errors import InputError, MachineError
from lm_core.search import storage
from lm_core.search.storage import failures_told, open_database, open_journal, shown_url
from tests.small_studies import records


@pytest.fixture
def without(monkeypatch):
    """Makes a package one that is not installed."""
    real = builtins.__import__

    def forget(package):
        def importing(name, *arguments, **options):
            if name == package or name.startswith(f"{package}."):
                raise ModuleNotFoundError(f"No module named {package!r}", name=package)
            return real(name, *arguments, **options)

        for name in [name for name in sys.modules if name.split(".")[0] == package]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setattr(builtins, "__import__", importing)

    return forget


@pytest.mark.parametrize("package", ["optuna", "cmaes"])
def test_what_is_not_installed_is_told_with_the_command_that_installs_it(without, package):
    without(package)
    with pytest.raises(InputError) as error:
        storage.require_optuna("cmaes")
    assert f" needs the package {package}: No module named '{package}'; " in error.value.message
    install = "python -m pip install -c constraints.txt -e '.[search]' installs it"
    assert error.value.message.endswith(install)


def test_a_missing_package_of_the_report_is_told_at_the_start(without, monkeypatch):
    without("sklearn")
    monkeypatch.setattr(storage, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"^the report of --mode=search needs the package sklearn"):
        storage.require_optuna("tpe")


def test_a_database_without_sqlalchemy_is_told_with_the_command_that_installs_it(without):
    without("sqlalchemy")
    with pytest.raises(InputError, match=r"^--storage needs the package sqlalchemy: .* it$"):
        open_database("postgresql://127.0.0.1:1/none")


def test_a_missing_driver_is_told_with_the_command_that_installs_it(without):
    without("psycopg")
    with pytest.raises(InputError, match=r"the driver is missing: .* -e '\.\[search\]'$"):
        open_database("postgresql://127.0.0.1:1/none")


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_a_database_that_is_not_there_is_told_without_its_password(scheme):
    with pytest.raises(InputError) as error:
        open_database(f"{scheme}://me:secret@127.0.0.1:1/none")
    assert error.value.message.startswith(f"--storage={scheme}://me:***@127.0.0.1:1/none: cannot")
    assert "secret" not in error.value.message
    assert "\n" not in error.value.message


@pytest.mark.parametrize("address", ["", "nonsense", "nonsense://a", "http://me:secret@host/x"])
def test_what_is_no_address_of_a_database_is_told(address):
    with pytest.raises(InputError, match="is no address of a database, such as") as error:
        open_database(address)
    assert "secret" not in error.value.message


def test_redis_is_refused_since_its_journal_holds_pickles():
    with pytest.raises(InputError, match="holds pickles, which could run code here"):
        open_database("redis://127.0.0.1")


def test_a_password_is_never_shown():
    assert "secret" not in shown_url("not an address://me:secret@host")


def test_a_database_in_a_file_keeps_trials(folder):
    open_database("sqlite:///trials.db")
    assert (folder / "trials.db").exists()


def test_a_damaged_journal_is_told(folder):
    (folder / "study.journal").write_text('{"op_code": 0}\n{"op_code": 77}\n')
    with pytest.raises(MachineError, match=r"study.journal is damaged: .*put back a copy"):
        open_journal(folder / "study.journal")


def test_a_half_written_line_does_not_damage_a_journal(folder):
    first = records(folder)
    first.create("me")
    with (folder / "study.journal").open("ab") as stream:
        stream.write(b'{"op_code": 4, "trial')
    second = records(folder)
    assert len(second.all()) == 1
    second.create("me")
    first.create("me")
    assert [record.number for record in records(folder).all()] == [0, 1, 2]
    assert all(record.values for record in first.all())


def test_a_database_that_fails_on_the_way_is_told_in_a_line():
    from sqlalchemy.exc import OperationalError

    url = "postgresql://me:secret@host/x"
    with pytest.raises(MachineError) as error, failures_told(url):
        raise OperationalError("SELECT", {}, ValueError("gone\naway"))
    assert error.value.message == (
        "--storage=postgresql://me:***@host/x failed: gone; when it is back, the same command "
        "goes on"
    )


def test_a_journal_that_cannot_be_written_is_told_and_the_same_command_goes_on():
    with pytest.raises(MachineError) as error, failures_told(None):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert error.value.message == (
        "the study cannot be written: No space left on device; when that is mended, the same "
        "command goes on"
    )
