"""The resolved configuration handed to gin, which hands it to the constructors."""

import gin

from lm_core.config.rendering import gin_text
from lm_core.config.resolution import ResolvedConfig
from lm_core.errors import InputError


def bind(config: ResolvedConfig) -> None:
    """Makes the configuration gin's, in place of anything bound before, and locks it.

    What gin parses is the text that the run records as ``config.gin``. The modules that define
    the configurables must have been imported.

    Args:
        config: A checked configuration.

    Raises:
        InputError: A module of the user's has registered a configurable of a name of the lab's.
    """
    gin.clear_config()
    try:
        gin.parse_config(gin_text(config))
    except (ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        message = "another module has registered a configurable of a name that the lab has"
        raise InputError(f"{message}: {reason}") from error
    gin.finalize()
