"""Pieces of HTML, in which every text from outside is text and nothing else."""

import html
from collections.abc import Iterable, Sequence


class Html(str):
    """Text that is HTML already; any other text is escaped where it enters a page."""


def element(name: str, *children: str, **attributes: str | bool) -> Html:
    """An element with its children.

    Args:
        name: Its name.
        *children: ``Html``, or texts, which are escaped.
        **attributes: Its attributes; ``class_`` is class, ``data_step`` is data-step; True stands
            for one without a value, False for none.
    """
    given = "".join(
        f" {_attribute(key)}" + ("" if value is True else f'="{html.escape(str(value))}"')
        for key, value in attributes.items()
        if value is not False
    )
    return Html(f"<{name}{given}>{join(children)}</{name}>")


def join(children: Iterable[str]) -> Html:
    """Children one after the other: ``Html``, or texts, which are escaped."""
    return Html("".join(c if isinstance(c, Html) else html.escape(c) for c in children))


def table(heading: Sequence[str], rows: Iterable[Sequence[str]], is_sortable: bool = False) -> Html:
    """A table that scrolls by itself where it is too wide.

    Args:
        heading: The names of the columns.
        rows: Cells, as texts or as whole ``td`` elements; or rows that are whole ``tr`` elements.
        is_sortable: Whether a click on a column sorts by it.
    """
    head = element("tr", *(element("th", name, scope="col") for name in heading))
    body = [row if isinstance(row, Html) else element("tr", *map(_cell, row)) for row in rows]
    attributes = {"class_": "sortable"} if is_sortable else {}
    whole = element("table", element("thead", head), element("tbody", *body), **attributes)
    return element("div", whole, class_="scroll")


def facts(pairs: Iterable[tuple[str, str]]) -> Html:
    """Names with what is known of each."""
    parts = [part for name, fact in pairs for part in (element("dt", name), element("dd", fact))]
    return element("dl", *parts, class_="facts")


def details(summary: str, *children: str) -> Html:
    """Something that is folded away behind a line."""
    return element("details", element("summary", summary), *children)


def _cell(cell: str) -> Html:
    return cell if isinstance(cell, Html) and cell.startswith("<td") else element("td", cell)


def _attribute(key: str) -> str:
    return key.rstrip("_").replace("_", "-")
