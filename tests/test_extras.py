"""Packages that only some want."""

import sys

import pytest

from lm_core.errors import InputError
from lm_core.extras import needed


def test_a_package_that_is_there_is_given():
    assert needed("json", "any", "somebody") is sys.modules["json"]
    decoder = needed("json", "any", "somebody", "json.decoder")
    assert decoder is sys.modules["json.decoder"]


def test_a_package_that_is_missing_is_told_with_what_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError) as error:
        needed("matplotlib", "figures", "--figures")
    assert error.value.message.startswith("--figures needs the package matplotlib: ")
    install = "python -m pip install -c constraints.txt -e '.[figures]' installs it"
    assert error.value.message.endswith(install)


def test_a_package_that_is_broken_is_told_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("raise RuntimeError('no\\nwonder')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"^x needs the package broken_package: no; python -m pip"):
        needed("broken_package", "y", "x")
