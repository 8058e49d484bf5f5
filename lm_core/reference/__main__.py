"""Brings everything in the project that is made from the code up to date.

``python -m lm_core.reference`` writes what is stale; with ``--check`` it only names it, and ends
with exit code 1 if there is any.
"""

import sys

from lm_core.reference.pages import expected
from lm_core.reference.tables import PROJECT


def main(arguments: list[str]) -> int:
    """Writes or names the files that are stale, and returns the exit code."""
    if arguments not in ([], ["--check"]):
        print("usage: python -m lm_core.reference [--check]", file=sys.stderr)
        return 2
    is_check = bool(arguments)
    stale = [
        (path, text)
        for path, text in expected(PROJECT)
        if not path.exists() or path.read_text() != text
    ]
    for path, text in stale:
        if not is_check:
            path.write_text(text)
        print(f"{path.relative_to(PROJECT)} {'is stale' if is_check else 'is up to date now'}")
    return 1 if is_check and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
