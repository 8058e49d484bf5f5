"""What tests of the whole program share."""

import pytest

from tests.chromium import Browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A browser for all tests of a file."""
    with Browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened
