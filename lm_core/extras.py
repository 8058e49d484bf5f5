"""Packages that only some want, and what to say to who asks for what needs them."""

import importlib
from types import ModuleType

from lm_core.errors import InputError


def needed(module: str, extra: str, who: str) -> ModuleType:
    """A module of a package that is no part of a plain installation.

    Args:
        module: Its name, such as ``matplotlib.figure``.
        extra: The extra of ``setup.cfg`` that brings the package.
        who: What needs it, such as a flag.

    Raises:
        InputError: It is not installed, or cannot be imported; says what installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        install = f"python -m pip install -c constraints.txt -e '.[{extra}]'"
        message = f"{who} needs the package {package}, which cannot be imported ({error})"
        raise InputError(f"{message}: {install}") from error
