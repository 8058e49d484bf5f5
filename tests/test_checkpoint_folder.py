import errno
import os
import shutil
import socket
from pathlib import Path

import pytest

from lm_core.errors import InputError, MachineError
from lm_core.training import checkpoint, checkpoint_folder
from lm_core.training.checkpoint import CheckpointDamagedError, load_checkpoint, save_checkpoint
from lm_core.training.checkpoint_folder import (
    chosen_checkpoint,
    clean_up,
    list_checkpoints,
    remove_checkpoints,
    remove_superseded,
)
from tests.tiny_checkpoint import DAMAGES, FILES, assert_equal, damage_empty, make, newest


@pytest.mark.parametrize("name", [*FILES, "checksums.json"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_passed_over_and_the_one_before_used(tmp_path, name, damage):
    folder = tmp_path / "checkpoints"
    save_checkpoint(folder, make(step=1))
    path = save_checkpoint(folder, make(step=2))
    damage(path / name)
    with pytest.raises(CheckpointDamagedError) as error:
        load_checkpoint(path)
    assert str(path / name) in str(error.value)
    found, reports = newest(folder)
    assert found.step == 1
    assert len(reports) == 1
    assert str(path) in reports[0]


def test_a_step_under_another_steps_name_is_noticed(tmp_path):
    save_checkpoint(tmp_path, make(step=3)).rename(tmp_path / "step-00000004")
    with pytest.raises(MachineError, match="none of the 1 checkpoints"):
        newest(tmp_path)


def test_without_any_checkpoint_there_is_none(tmp_path):
    assert newest(tmp_path) == (None, [])
    assert newest(tmp_path / "missing") == (None, [])


def test_when_all_are_damaged_that_is_an_error(tmp_path):
    for step in (1, 2):
        damage_empty(save_checkpoint(tmp_path, make(step)) / "state.json")
    with pytest.raises(MachineError, match="none of the 2 checkpoints"):
        newest(tmp_path)


def test_only_whole_names_with_ascii_digits_count(tmp_path):
    good = save_checkpoint(tmp_path, make(step=12))
    for name in (
        "step-00000013\n",
        "step-٠٠٠٠٠٠١٤",
        "step-15",
        "xstep-00000016",
        "step-00000017x",
        ".step-00000018.writing",
    ):
        shutil.copytree(good, tmp_path / name)
    assert list_checkpoints(tmp_path) == [(12, good)]


PLACED = {
    "a file": lambda path, other: path.write_text("x"),
    "a pipe": lambda path, other: os.mkfifo(path),
    "a link": lambda path, other: path.symlink_to(other, target_is_directory=True),
    "a link to nowhere": lambda path, other: path.symlink_to("nowhere"),
}


@pytest.mark.parametrize("place", PLACED.values(), ids=list(PLACED))
def test_what_is_in_the_place_of_a_checkpoint_is_told_and_passed_over(tmp_path, place):
    folder = tmp_path / "checkpoints"
    save_checkpoint(folder, make(1))
    place(folder / "step-00000002", save_checkpoint(tmp_path / "elsewhere", make(2)))
    found, (report,) = newest(folder)
    assert found.step == 1
    assert f"{folder / 'step-00000002'}" in report
    remove_checkpoints(folder, [1])
    with pytest.raises(MachineError, match="none of the 1 checkpoints in"):
        newest(folder)
    # It is removed like any other, and nothing that it leads to.
    remove_checkpoints(folder, [2])
    assert list(folder.iterdir()) == []
    assert load_checkpoint(tmp_path / "elsewhere" / "step-00000002").step == 2


def test_one_that_stepped_aside_counts_where_no_other_took_its_place(tmp_path):
    path = save_checkpoint(tmp_path, make(step=12))
    aside = tmp_path / ".step-00000012.replaced"
    shutil.copytree(path, aside)
    assert list_checkpoints(tmp_path) == [(12, path)]
    shutil.rmtree(path)
    assert list_checkpoints(tmp_path) == [(12, aside)]


def test_checkpoints_are_listed_oldest_first(tmp_path):
    for step in (100, 9, 20):
        save_checkpoint(tmp_path, make(step))
    assert [step for step, _ in list_checkpoints(tmp_path)] == [9, 20, 100]


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


OPERATIONS = [(os, "fsync"), (Path, "rename"), (Path, "mkdir"), (Path, "open"), (shutil, "rmtree")]


def kill_at(monkeypatch, n):
    """Ends the process at its n-th file operation, before it is done."""
    counter = {"left": n}
    for owner, name in OPERATIONS:
        original = getattr(owner, name)

        def operation(*arguments, original=original, **options):
            counter["left"] -= 1
            if counter["left"] < 0:
                raise Killed
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, operation)
    return counter


@pytest.mark.parametrize("same_step", [False, True])
def test_a_kill_at_any_moment_of_a_save_leaves_a_sound_checkpoint(tmp_path, same_step):
    old, new = make(step=1, value=1.0), make(step=1 if same_step else 2, value=2.0)
    n, finished = 0, False
    while not finished:
        folder = tmp_path / str(n)
        save_checkpoint(folder, old)
        with pytest.MonkeyPatch.context() as patch:
            kill_at(patch, n)
            try:
                save_checkpoint(folder, new)
                finished = True
            except Killed:
                pass
        assert newest(folder)[0] is not None
        clean_up(folder, print)
        found, reports = newest(folder)
        assert reports == []
        assert_equal(found, load_checkpoint(list_checkpoints(folder)[-1][1]))
        assert found.model["weight"].eq(1).all() or found.model["weight"].eq(2).all()
        assert all(path.name.startswith("step-") for path in folder.iterdir())
        save_checkpoint(folder, new)
        assert newest(folder)[0].model["weight"].eq(2).all()
        n += 1
    assert n > 10


def test_cleaning_up_a_missing_folder_is_nothing(tmp_path):
    clean_up(tmp_path / "missing", print)


def test_cleaning_up_touches_nothing_else(tmp_path):
    path = save_checkpoint(tmp_path, make())
    (tmp_path / "notes.writing").write_text("mine")
    (tmp_path / ".step-00000009.writing").mkdir()
    clean_up(tmp_path, print)
    assert {p.name for p in tmp_path.iterdir()} == {path.name, "notes.writing"}


@pytest.mark.parametrize(
    ("keep", "best", "left"),
    [
        (1, None, [5]),
        (2, None, [4, 5]),
        (2, 1, [1, 4, 5]),
        (2, 4, [4, 5]),
        # The best may be gone already, or never have been saved.
        (2, 77, [4, 5]),
        (9, None, [1, 2, 3, 4, 5]),
        (None, None, [1, 2, 3, 4, 5]),
    ],
)
def test_the_newest_sound_ones_stay_and_the_best_and_nothing_is_done_to_damaged_ones(
    tmp_path, keep, best, left
):
    for step in (1, 2, 3, 4, 5, 8):
        save_checkpoint(tmp_path, make(step))
    (tmp_path / "notes").mkdir()
    remove_superseded(tmp_path, keep, best, {8, 9})
    assert [step for step, _ in list_checkpoints(tmp_path)] == [*left, 8]
    assert len(list(tmp_path.iterdir())) == len(left) + 2
    remove_checkpoints(tmp_path, {8, 9})
    assert [step for step, _ in list_checkpoints(tmp_path)] == left


def test_a_kill_at_any_moment_of_a_removal_leaves_no_half_checkpoint(tmp_path):
    n, finished = 0, False
    while not finished:
        folder = tmp_path / str(n)
        for step in (1, 2, 3):
            save_checkpoint(folder, make(step))
        with pytest.MonkeyPatch.context() as patch:
            kill_at(patch, n)
            try:
                remove_superseded(folder, 1, 2)
                finished = True
            except Killed:
                pass
        clean_up(folder, print)
        steps = [step for step, _ in list_checkpoints(folder)]
        assert steps in ([1, 2, 3], [2, 3])
        for _, path in list_checkpoints(folder):
            load_checkpoint(path)
        assert [path.name for path in sorted(folder.iterdir())] == [f"step-{s:08d}" for s in steps]
        n += 1
    assert n > 1


def test_what_an_interrupted_removal_left_is_not_in_the_way_of_the_next(tmp_path):
    for step in (1, 2):
        save_checkpoint(tmp_path, make(step))
    shutil.copytree(tmp_path / "step-00000001", tmp_path / ".step-00000001.removed")
    remove_superseded(tmp_path, 1, None)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]


def test_what_cannot_be_removed_is_told(tmp_path, monkeypatch):
    for step in (1, 2):
        save_checkpoint(tmp_path, make(step))

    def refused(self, target):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(MachineError, match=r"step-00000001 cannot be removed: Permission denied"):
        remove_superseded(tmp_path, 1, None)


def test_a_checkpoint_that_goes_away_while_it_is_read_is_no_damage(tmp_path, monkeypatch):
    """As when a run is looked at that is being trained."""
    for step in (1, 2):
        save_checkpoint(tmp_path, make(step))
    read = checkpoint_folder.load_checkpoint

    def raced(path):
        if path.name.endswith("2"):
            save_checkpoint(tmp_path, make(3))
            remove_superseded(tmp_path, 1, None)
        return read(path)

    monkeypatch.setattr(checkpoint_folder, "load_checkpoint", raced)
    found, reports = newest(tmp_path)
    assert (found.step, reports) == (3, [])


@pytest.mark.parametrize("use", [list_checkpoints, lambda f: clean_up(f, print), newest])
def test_a_link_in_the_place_of_the_folder_is_refused(tmp_path, use):
    elsewhere = tmp_path / "elsewhere"
    save_checkpoint(elsewhere, make(1))
    (elsewhere / ".step-00000002.writing").mkdir()
    link = tmp_path / "checkpoints"
    link.symlink_to(elsewhere, target_is_directory=True)
    with pytest.raises(MachineError, match="checkpoints is a link"):
        use(link)
    with pytest.raises(MachineError, match="checkpoints is a link"):
        save_checkpoint(link, make(2))
    names = {path.name for path in elsewhere.iterdir()}
    assert names == {"step-00000001", ".step-00000002.writing"}


def test_a_file_in_the_place_of_the_folder_is_told(tmp_path):
    (tmp_path / "checkpoints").write_text("mine")
    for use in (list_checkpoints, newest):
        with pytest.raises(MachineError, match="checkpoints is no folder"):
            use(tmp_path / "checkpoints")
    with pytest.raises(MachineError, match="checkpoints is no folder"):
        save_checkpoint(tmp_path / "checkpoints", make(1))


def chosen(folder, which):
    return chosen_checkpoint(folder, which, print)


def test_a_person_chooses_a_checkpoint_by_its_step_or_by_what_it_is(tmp_path):
    for step in (1, 2, 3):
        checkpoint = make(step)
        checkpoint.state |= {"best_validation_loss": 2.5, "best_step": 2}
        save_checkpoint(tmp_path, checkpoint)
    assert [chosen(tmp_path, which).step for which in ("newest", "best", "1")] == [3, 2, 1]
    for which in ("4", "01", "last", "../1", "-1"):
        with pytest.raises(InputError, match=r"no such .* \(there are newest, best, 1, 2, 3\)"):
            chosen(tmp_path, which)
    damage_empty(tmp_path / "step-00000002" / "state.json")
    for which in ("best", "2"):
        with pytest.raises(MachineError, match=r"state.json has 0 bytes"):
            chosen(tmp_path, which)
    shutil.rmtree(tmp_path / "step-00000002")
    with pytest.raises(InputError, match="--checkpoint=best: step 2, there is no such checkpoint"):
        chosen(tmp_path, "best")


def test_without_an_evaluation_there_is_no_best(tmp_path):
    assert chosen(tmp_path, "best") is None
    save_checkpoint(tmp_path, make(3))
    with pytest.raises(InputError, match="no evaluation was done up to the newest"):
        chosen(tmp_path, "best")


def make_pipe(path):
    os.mkfifo(path)


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))


def make_dangling_link(path):
    path.symlink_to("nowhere")


@pytest.mark.parametrize("make_it", [make_pipe, make_socket, make_dangling_link, Path.touch])
@pytest.mark.parametrize(
    "name", ["step-00000002", *(f".step-00000002.{kind}" for kind in ("writing", "replaced"))]
)
def test_what_is_no_folder_in_the_place_of_one_is_put_away(tmp_path, monkeypatch, make_it, name):
    monkeypatch.chdir(tmp_path)
    save_checkpoint(tmp_path, make(1))
    make_it(tmp_path / name)
    save_checkpoint(tmp_path, make(2))
    clean_up(tmp_path, print)
    assert newest(tmp_path)[0].step == 2
    assert {path.name for path in tmp_path.iterdir()} == {"step-00000001", "step-00000002"}


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EMFILE])
def test_a_checkpoint_that_cannot_be_read_now_is_no_damaged_one(tmp_path, monkeypatch, number):
    """To pass over it would be to train anew what is there, and to replace it."""
    for step in (1, 2):
        save_checkpoint(tmp_path, make(step))

    def refused(path, flags):
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(checkpoint, "_not_through_links", refused)
    with pytest.raises(
        MachineError, match=r"step-00000002.* cannot be read: .*; mend that"
    ) as told:
        newest(tmp_path)
    assert not isinstance(told.value, CheckpointDamagedError)


def test_what_is_left_over_and_cannot_be_removed_is_told_and_stops_nothing(tmp_path, monkeypatch):
    (tmp_path / ".step-00000002.removed").mkdir()

    def refused(path):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(checkpoint_folder, "remove", refused)
    told = []
    clean_up(tmp_path, told.append)
    (message,) = told
    assert message.endswith(
        ".step-00000002.removed is left over and cannot be removed: Permission denied"
    )


def test_the_best_of_a_run_that_is_being_trained_is_found_though_it_changes(tmp_path, monkeypatch):
    def save(step):
        made = make(step)
        made.state |= {"best_validation_loss": 1 / step, "best_step": step}
        save_checkpoint(tmp_path, made)
        remove_superseded(tmp_path, 1, step)

    save(1)
    steps = iter([2, 3])
    read = checkpoint_folder.newest_sound_checkpoint

    def raced(folder, report):
        if (step := next(steps, None)) is not None:
            save(step)
        return read(folder, report)

    monkeypatch.setattr(checkpoint_folder, "newest_sound_checkpoint", raced)
    assert chosen(tmp_path, "best").step == 3
