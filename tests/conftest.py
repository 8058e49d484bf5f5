"""What every test relies on: gin starts and ends empty."""

import gin
import pytest


@pytest.fixture(autouse=True)
def gin_is_clear():
    gin.clear_config()
    yield
    gin.clear_config()
