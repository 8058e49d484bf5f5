"""Packages that only some want, and what to say to who asks for what needs them."""

import importlib
from types import ModuleType

from lm_core.errors import InputError


def needed(package: str, extra: str, who: str, module: str | None = None) -> ModuleType:
    """A module that needs a package which is no part of a plain installation.

    Args:
        package: The package, such as ``matplotlib``.
        extra: The extra of ``setup.cfg`` that brings it.
        who: What needs it, such as a flag.
        module: The module; None: the package itself.

    Raises:
        InputError: It is not installed, or broken; says what installs it.
    """
    try:
        # Where the package is missing, its own name is told, and not that of what it needs.
        found = importlib.import_module(package)
        return importlib.import_module(module) if module else found
    except Exception as error:  # A package that does not fit others fails in many ways.
        install = f"python -m pip install -c constraints.txt -e '.[{extra}]'"
        reason = str(error).partition("\n")[0]
        message = f"{who} needs the package {package}: {reason}"
        raise InputError(f"{message}; {install} installs it") from error
