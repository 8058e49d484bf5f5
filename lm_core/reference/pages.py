"""The files that hold something made from the code, and what they ought to hold."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from lm_core.reference import tables

# A generated part of a page stands between these two lines.
_PART = re.compile(r"<!-- generated: (?P<name>[\w-]+) -->\n.*?<!-- end -->", re.DOTALL)
_PARTS: dict[str, Callable[[], str]] = {
    "reference": tables.reference_table,
    "keys": tables.key_table,
    "audit": tables.audit_table,
    "options": tables.option_table,
    "constants": tables.constant_table,
    "counts": lambda: "\n".join(f"- {n} {what}" for what, n in tables.counts().items()),
}
PAGES = (
    "README.md",
    "configs/README.md",
    "docs/hyperparameter-audit.md",
    "docs/hyperparameter-audit-summary.md",
)
# The schemas for editors, each with what makes it.
SCHEMAS = {
    "configs/schema.json": tables.schema,
    "configs/search/schema.json": tables.study_schema,
}
_KEY_LINE = re.compile(r"(\w+): *(\S.*?) *(?: #.*)?")
# What a configuration file says of its own choice of a value is kept.
_OWN_WORDS = "# Here: "
_SECTION = "# ---"


def expected(project: Path) -> Iterator[tuple[Path, str]]:
    """Every file that holds something generated, with the text that it ought to have.

    Args:
        project: The folder of the project.
    """
    for name in PAGES:
        yield project / name, page((project / name).read_text())
    for path in sorted((project / "configs").glob("*.yaml")):
        yield path, configuration(path.read_text())
    for name, schema in SCHEMAS.items():
        yield project / name, json.dumps(schema(), indent=2) + "\n"


def page(text: str) -> str:
    """A page with its generated parts made anew.

    Args:
        text: The page.

    Raises:
        KeyError: It names a part that does not exist.
    """

    def anew(part: re.Match[str]) -> str:
        name = part["name"]
        return f"<!-- generated: {name} -->\n\n{_PARTS[name]()}\n\n<!-- end -->"

    return _PART.sub(anew, text)


def configuration(text: str) -> str:
    """A configuration file with the comments above and behind its keys made anew.

    Args:
        text: The file: a key on each line, comments, empty lines.
    """
    lines: list[str] = []
    for line in text.splitlines():
        match = _KEY_LINE.fullmatch(line)
        if match and match[1] in tables.KEYS:
            own = _pop_comment(lines)
            lines += [*tables.comment_lines(match[1]), *own]
            line = tables.value_line(match[1], match[2])
        lines.append(line)
    return "\n".join(lines) + "\n"


def _pop_comment(lines: list[str]) -> list[str]:
    """Takes the comment at the end of some lines away; returns the file's own words in it."""
    start = len(lines)
    while start and lines[start - 1].startswith("#") and not lines[start - 1].startswith(_SECTION):
        start -= 1
    comment = lines[start:]
    del lines[start:]
    own = [i for i, line in enumerate(comment) if line.startswith(_OWN_WORDS)]
    return comment[own[0] :] if own else []
