"""Text cut into pieces at places where no word of byte-level BPE reaches across."""

import re
from collections.abc import Iterable, Iterator

# White space by Unicode that Python's ``\s`` lacks, or that it was in some version of Unicode: what
# stands before a cut must be none for anybody.
_DOUBTFUL_SPACES = "\u180e\u200b\ufeff"
# Letters of Chinese and Japanese, which are written without spaces, and have always been letters.
_LETTERS_WITHOUT_SPACES = "\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fa5"
# Marks that stand behind them, and are no letters.
_MARKS = "、。，！？：；"  # noqa: RUF001
# All patterns of ``tokenizer_json.PATTERNS`` end a word here, whatever stands around: no part of
# them that matches a character which is no white space goes on with a space, and none that matches
# a letter or a digit goes on with a line end or a mark. Nor do they look back, so that what follows
# is cut as at the start of a text. (Signs do go on with line ends, in patterns after GPT-2's, and
# white space looks ahead, so that places behind it are no such places.)
_PLACE = re.compile(
    rf"[^\s{_DOUBTFUL_SPACES}](?= )"
    rf"|[A-Za-z0-9{_LETTERS_WITHOUT_SPACES}](?=\n)"
    rf"|[{_LETTERS_WITHOUT_SPACES}](?=[{_MARKS}])"
)


def has_place_inside(text: str) -> bool:
    """Whether a text, wherever it stands, has a place inside where ``pieces_of`` may cut."""
    return _PLACE.search(text) is not None


def pieces_of(texts: Iterable[str], at_least: int, at_most: int) -> Iterator[str]:
    """A text that comes in parts, cut into pieces that can be encoded each alone.

    Where it is cut follows from the whole text and not from its parts: after ``at_least``
    characters, at the first place where every word ends; after ``at_most``, where there is none.

    Args:
        texts: The parts; together they are the text.
        at_least: Characters of a piece, but for the last.
        at_most: Characters of a piece; no less than ``at_least``.

    Yields:
        The pieces, none empty.
    """
    buffer, start, searched = "", 0, 0
    for text in texts:
        buffer, searched, start = buffer[start:] + text, max(searched - start, 0), 0
        # A place shows only with the character behind it.
        while (rest := len(buffer) - start) > at_least:
            found = _PLACE.search(buffer, max(start + at_least - 1, searched))
            end = found.end() if found else None
            if end is None or end > start + at_most:
                if rest <= at_most:
                    searched = len(buffer) - 1
                    break
                end = start + at_most
            yield buffer[start:end]
            start = end
    if start < len(buffer):
        yield buffer[start:]
