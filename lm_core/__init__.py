"""A Gin-configured laboratory for training language models.

What a program or a notebook needs is here: ``from lm_core import Transformer, Trainer, Sampler,
load_run``. Each name is imported when it is first asked for, so that ``import lm_core`` alone takes
no time.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lm_core.evaluation import Evaluator
    from lm_core.library import LoadedRun, load_run
    from lm_core.model.transformer import Transformer
    from lm_core.sampling import Sampler
    from lm_core.training.trainer import Trainer

__all__ = ["Evaluator", "LoadedRun", "Sampler", "Trainer", "Transformer", "load_run"]

# Where each of them is defined.
_MODULES = {
    "Evaluator": "lm_core.evaluation",
    "LoadedRun": "lm_core.library",
    "Sampler": "lm_core.sampling",
    "Trainer": "lm_core.training.trainer",
    "Transformer": "lm_core.model.transformer",
    "load_run": "lm_core.library",
}


def __getattr__(name: str) -> object:
    """Imports a name of ``__all__`` where it is asked for.

    Raises:
        AttributeError: There is no such name.
    """
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """What there is, imported or not."""
    return sorted({*globals(), *__all__})
