"""Whether the program runs in a notebook, and what can be shown in its cell."""

import html
import sys
from collections.abc import Callable
from typing import Any

# A bar of letters is so wide, where a notebook is read as plain text.
_WIDTH = 30
# A bar that leaves room for the words beside it.
_STYLE = "width: 30%; vertical-align: middle"

# Shows a picture of how far something is, in the place of the one before.
ShowInPlace = Callable[[float, str], None]


def place_in_notebook() -> ShowInPlace | None:
    """A place in the output of the cell that runs now; None: this is no notebook.

    A notebook is any program that shows what IPython's kernel sends it (Jupyter, VS Code, Colab).
    Its own display is used, which needs no further package, and no widgets.
    """
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    # IPython on a terminal has no kernel, and has a terminal.
    if getattr(shell, "kernel", None) is None:
        return None
    from IPython.display import display

    handle: Any = None

    def show(share: float, text: str) -> None:
        nonlocal handle
        picture = picture_of(share, text)
        if handle is None:
            handle = display(picture, raw=True, display_id=True)
        else:
            handle.update(picture, raw=True)

    return show


def picture_of(share: float, text: str) -> dict[str, str]:
    """A bar with words beside it, as HTML and as plain text, by their media types.

    Args:
        share: How much of it is full, from 0 to 1.
        text: The words.
    """
    n_full = round(_WIDTH * share)
    bar = f'<progress value="{share:.4f}" max="1" style="{_STYLE}"></progress>'
    return {
        "text/html": f"{bar} <code>{html.escape(text)}</code>",
        "text/plain": f"[{'#' * n_full}{' ' * (_WIDTH - n_full)}] {text}",
    }
