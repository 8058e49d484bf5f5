"""A bar in a notebook, shown by a stand-in for what IPython has in a kernel."""

import contextlib
import re
import sys
import types

import pytest

from lm_core.notebook import picture_of, place_in_notebook
from lm_core.progress import NotebookBar, ProgressLines, training_progress


class Cell:
    """What a cell shows: the newest picture at each of its places."""

    def __init__(self):
        self.pictures = []
        self.n_updates = 0

    def display(self, picture, raw, display_id):
        assert raw
        assert display_id
        self.pictures.append(picture)
        place = len(self.pictures) - 1
        return types.SimpleNamespace(update=lambda new, raw: self._update(place, new))

    def _update(self, place, picture):
        self.n_updates += 1
        self.pictures[place] = picture


@pytest.fixture
def cell(monkeypatch):
    """As in a cell of a notebook."""
    cell = Cell()
    put_ipython(monkeypatch, types.SimpleNamespace(kernel=object()), cell)
    return cell


def put_ipython(monkeypatch, shell, cell):
    module = types.ModuleType("IPython")
    module.get_ipython = lambda: shell
    display = types.ModuleType("IPython.display")
    display.display = cell.display
    monkeypatch.setitem(sys.modules, "IPython", module)
    monkeypatch.setitem(sys.modules, "IPython.display", display)


def test_without_ipython_and_with_ipython_on_a_terminal_there_is_no_notebook(monkeypatch):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert place_in_notebook() is None
    for shell in (None, types.SimpleNamespace()):
        put_ipython(monkeypatch, shell, Cell())
        assert place_in_notebook() is None
        assert isinstance(training_progress(1, 10), ProgressLines)


def test_one_bar_moves_in_its_place_and_stays_where_training_ended(cell, capsys):
    with training_progress(1, 400) as progress:
        assert isinstance(progress, NotebookBar)
        for step in range(1, 401):
            progress.update(step, 2.5, 1000.0)
        progress.note("step 400  validation loss 2.4")
    (picture,) = cell.pictures
    assert picture["text/plain"].startswith(f"[{'#' * 30}] step 400/400  loss 2.5000 nats")
    assert 'value="1.0000"' in picture["text/html"]
    # Steps that follow each other faster than the eye are not all shown.
    assert cell.n_updates < 100
    assert capsys.readouterr().out == "step 400  validation loss 2.4\n"


def test_an_end_before_the_last_step_shows_how_far_it_came(cell):
    with contextlib.suppress(KeyboardInterrupt), training_progress(1, 10) as progress:
        progress.update(4, 2.5, 1000.0)
        progress.update(5, 2.5, 1000.0)
        raise KeyboardInterrupt
    assert "step 5/10" in cell.pictures[0]["text/plain"]
    assert 'value="0.5000"' in cell.pictures[0]["text/html"]


def test_a_second_training_has_a_bar_of_its_own(cell):
    for _ in range(2):
        with training_progress(1, 10) as progress:
            progress.update(10, 2.5, 1000.0)
    assert len(cell.pictures) == 2


def test_where_a_stream_is_named_it_is_written_to(cell, capsys):
    assert isinstance(training_progress(1, 10, sys.stdout), ProgressLines)
    assert not cell.pictures


def test_words_cannot_become_marks():
    picture = picture_of(0.5, "<script>alert(1)</script> & more")
    assert "<script>" not in picture["text/html"]
    assert re.fullmatch(r"\[#{15} {15}\] <script>.*", picture["text/plain"])
