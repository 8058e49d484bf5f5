"""Pages whose commands and examples are run from the first to the last, in one folder."""

import contextlib
import io
import sys

import pytest

from tests import exchanged  # noqa: F401 -- keeps transformers off the network
from tests.pages import PROGRAM, blocks, clone, program, words

# Each with the number of its blocks: commands, Python, and what either prints.
PAGES = {"docs/exchange.md": (9, 1, 4), "docs/library.md": (1, 8, 8)}


@pytest.fixture
def main(tmp_path, monkeypatch, capsys):
    """Runs the program in a newcomer's folder, in this process."""
    (tmp_path / "lm_core").mkdir()
    project = clone(tmp_path / "lm_core")
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "argv", ["run.py"])
    main_of_copy = program(project)
    return lambda arguments: main_of_copy(arguments, capsys)


def executed(lines, names):
    """What Python prints that is run with the names that earlier examples have left."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec("\n".join(lines), names)
    return output.getvalue().splitlines()


@pytest.mark.parametrize("page", PAGES)
def test_all_of_a_page_does_what_it_says(page, main):
    names, printed, failed = {}, None, False
    n_commands = n_examples = n_outputs = 0
    for language, lines in blocks(page):
        if language == "text":
            assert printed == lines
            n_outputs += 1
            failed = False
            continue
        # What fails is shown to fail.
        assert not failed
        if language == "python":
            printed = executed(lines, names)
            n_examples += 1
            continue
        for line in lines:
            assert line.startswith(PROGRAM)
            code, output, errors = main(words(line))
            printed, failed = output or errors, code != 0
            assert bool(errors) == failed, errors
        n_commands += 1
    assert not failed
    assert (n_commands, n_examples, n_outputs) == PAGES[page]
