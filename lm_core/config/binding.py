"""The resolved configuration handed to gin, which hands it to the constructors."""

import gin

from lm_core.config.rendering import gin_text
from lm_core.config.resolution import ResolvedConfig


def bind(config: ResolvedConfig) -> None:
    """Makes the configuration gin's, in place of anything bound before, and locks it.

    What gin parses is the text that the run records as ``config.gin``. The modules that define
    the configurables must have been imported.
    """
    gin.clear_config()
    gin.parse_config(gin_text(config))
    gin.finalize()
