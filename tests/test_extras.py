"""Packages that only some want."""

import sys

import pytest

from lm_core.errors import InputError
from lm_core.extras import needed


def test_a_package_that_is_there_is_given():
    assert needed("json.decoder", "any", "somebody") is sys.modules["json.decoder"]


def test_a_package_that_is_missing_is_told_with_what_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError) as error:
        needed("matplotlib", "figures", "--figures")
    assert error.value.message.startswith("--figures needs the package matplotlib, which cannot")
    assert error.value.message.endswith("python -m pip install -c constraints.txt -e '.[figures]'")
