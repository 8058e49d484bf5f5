import json
import os
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_core import new_folders
from lm_core.errors import MachineError
from lm_core.record import RunDirectory, default_run_path
from lm_core.run_lock import RunLock
from tests.locks import is_held

MANIFEST = {"corpus": {"sha256": "abc"}, "outcome": "running"}


def create(path):
    return RunDirectory.create(path, "n_layers: 4\n", "Transformer.n_layers = 4\n", MANIFEST)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_new_run_has_all_its_files(tmp_path):
    run = create(tmp_path / "runs" / "a")
    assert {path.name for path in run.path.iterdir()} == {
        "config.yaml",
        "config.gin",
        "manifest.json",
        "metrics.jsonl",
        "samples.jsonl",
        "checkpoints",
    }
    assert run.manifest == MANIFEST
    assert RunDirectory.open(run.path).path == run.path


def test_an_empty_folder_can_become_a_run(tmp_path):
    assert create(tmp_path).manifest == MANIFEST


def test_the_folder_where_a_command_stands_does_not_become_a_run(folder):
    for path in (folder, Path(), Path("../") / folder.name):
        with pytest.raises(ValueError, match=r"is where this command stands; name one in it"):
            create(path)
    assert list(folder.iterdir()) == []
    assert create(Path("run")).manifest == MANIFEST


def test_a_link_to_an_empty_folder_can_become_a_run(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "run").symlink_to("there")
    run = create(tmp_path / "run")
    assert run.path == tmp_path / "there"
    assert (tmp_path / "run" / "manifest.json").is_file()


def test_a_folder_that_holds_a_run_is_refused(tmp_path):
    create(tmp_path / "a")
    with pytest.raises(ValueError, match="already holds a run: --resume goes on with it"):
        create(tmp_path / "a")


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="is not empty, and holds no run"):
        create(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "a").write_text("x")
    with pytest.raises(ValueError, match=r"a cannot be made: a file is in its place"):
        create(tmp_path / "a")
    with pytest.raises(ValueError, match="cannot be made"):
        create(tmp_path / "a" / "b")


@pytest.mark.parametrize("n_before", range(13))
def test_where_making_it_fails_nothing_of_it_stays(tmp_path, monkeypatch, n_before):
    left = {"n": n_before}
    for name in ("mkdir", "open"):
        original = getattr(Path, name)

        def operation(self, *arguments, original=original, **options):
            left["n"] -= 1
            if left["n"] == -1:
                raise PermissionError(13, "Permission denied")
            return original(self, *arguments, **options)

        monkeypatch.setattr(Path, name, operation)
    if n_before < 10:
        with pytest.raises(ValueError, match="cannot be made: Permission denied"):
            create(tmp_path / "some" / "where" / "run")
        assert list(tmp_path.iterdir()) == []
    else:
        create(tmp_path / "some" / "where" / "run")


def test_a_folder_that_cannot_be_synced_is_told_and_nothing_of_the_run_stays(tmp_path, monkeypatch):
    sync_folder = new_folders.sync_folder

    def failing(path):
        sync_folder(path)
        if (tmp_path / "some" / "run").exists():
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(new_folders, "sync_folder", failing)
    with pytest.raises(RuntimeError, match="some/run cannot be made: Input/output error"):
        create(tmp_path / "some" / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_cannot_be_made_is_told_of_the_run_itself(tmp_path, monkeypatch):
    def full(self, folder):
        raise MachineError(f"{folder}/.lock cannot be opened: No space left on device")

    monkeypatch.setattr(RunLock, "take", full)
    with RunLock() as lock, pytest.raises(MachineError) as error:
        RunDirectory.create(tmp_path / "a", "", "", MANIFEST, lock)
    words = f"{tmp_path / 'a'}/.lock cannot be opened: No space left on device; --run_dir names an"
    assert error.value.message.startswith(words)
    assert list(tmp_path.iterdir()) == []


def test_a_link_to_nowhere_is_told_as_that(tmp_path):
    (tmp_path / "a").symlink_to("nowhere")
    with pytest.raises(
        ValueError, match="a cannot be made: a link that leads nowhere is in its pl"
    ):
        create(tmp_path / "a")


def test_a_run_that_has_lost_its_manifest_says_how_to_run_it_again(tmp_path):
    run = create(tmp_path / "a")
    assert RunDirectory.is_at(run.path)
    (run.path / "manifest.json").unlink()
    assert not RunDirectory.is_at(run.path)
    with pytest.raises(ValueError, match=r"without its manifest.json.*put.*or --config=.*a/config"):
        create(run.path)


def test_a_manifest_that_leads_nowhere_is_told_as_that(tmp_path):
    run = create(tmp_path / "a")
    (run.path / "manifest.json").unlink()
    (run.path / "manifest.json").symlink_to("nowhere")
    assert RunDirectory.is_at(run.path)
    with pytest.raises(ValueError, match=r"manifest.json is a link that leads nowhere; put the"):
        RunDirectory.open(run.path)


def test_a_folder_that_nobody_may_look_into_is_told(tmp_path, monkeypatch):
    run = create(tmp_path / "a")

    def forbidden(path):
        raise PermissionError(13, "Permission denied")

    for name in ("iterdir", "is_symlink"):
        monkeypatch.setattr(Path, name, forbidden)
    for use in (RunDirectory.open, RunDirectory.is_at, create):
        with pytest.raises(ValueError, match=r"a cannot be (read|made): Permission denied"):
            use(run.path)


def test_opening_what_is_no_run_says_why(tmp_path):
    with pytest.raises(ValueError, match="there is no such folder"):
        RunDirectory.open(tmp_path / "missing")
    with pytest.raises(ValueError, match=r"it has no config.yaml"):
        RunDirectory.open(tmp_path)
    run = create(tmp_path / "a")
    sound = '"corpus": {"sha256": ""}'
    wrong = ("{", "[]", "{}", '{"corpus": 3}', "[" * 100_000, "\xff")
    wrong += tuple(f"{{{sound}, {field}}}" for field in ('"resumed": 3', '"resumed": [3]'))
    wrong += (f'{{{sound}, "numerics": 3}}', f'{{{sound}, "resumed": [{{"numerics": 3}}]}}')
    for content in wrong:
        (run.path / "manifest.json").write_text(content)
        with pytest.raises(ValueError, match=r"manifest.json is no manifest of a run"):
            RunDirectory.open(run.path)


def test_rewinding_keeps_the_lines_up_to_a_step(tmp_path):
    run = create(tmp_path / "a")
    run.append_metrics([{"step": step} for step in range(1, 8)])
    run.append_samples([{"step": 2, "text": "x"}])
    run.append_samples([{"step": 6, "text": "y"}])
    with run.metrics.open("a") as stream:
        stream.write('{"step": 4, "tra')
    run.rewind(4)
    assert lines(run.metrics) == [{"step": step} for step in range(1, 5)]
    assert lines(run.samples) == [{"step": 2, "text": "x"}]
    run.rewind(0)
    assert run.metrics.read_bytes() == b""


def test_all_samples_of_a_step_stay_or_all_go(tmp_path):
    run = create(tmp_path / "a")
    for step in (2, 4, 6):
        run.append_samples({"step": step, "sample": index} for index in range(3))
    run.rewind(5)
    assert lines(run.samples) == [{"step": s, "sample": i} for s in (2, 4) for i in range(3)]
    run.rewind(4, sampled_step=3)
    assert lines(run.samples) == [{"step": 2, "sample": index} for index in range(3)]


def test_rewinding_makes_missing_files_again(tmp_path):
    run = create(tmp_path / "a")
    run.metrics.unlink()
    run.rewind(3)
    run.append_metrics([{"step": 4}])
    assert lines(run.metrics) == [{"step": 4}]


def test_a_manifest_of_gigabytes_is_not_read(tmp_path):
    run = create(tmp_path / "run")
    with (run.path / "manifest.json").open("wb") as stream:
        stream.truncate(10**12)
    with pytest.raises(ValueError, match="is no manifest of a run"):
        RunDirectory.open(run.path)


@pytest.mark.parametrize(
    "write",
    [
        lambda run: run.append_metrics([{"step": 1}]),
        lambda run: run.append_samples([{"step": 1}]),
        lambda run: run.update_manifest(outcome="completed"),
        lambda run: run.write_config("", ""),
    ],
)
def test_nothing_is_written_into_a_run_that_took_the_place_of_the_own(tmp_path, write):
    with RunLock() as lock, RunLock() as other:
        run = RunDirectory.create(tmp_path / "a", "", "", MANIFEST, lock)
        RunDirectory.create(tmp_path / "b", "x", "x", MANIFEST, other)
        write(run)
        run.path.rename(tmp_path / "gone")
        (tmp_path / "b").rename(tmp_path / "a")
        before = {path: path.read_bytes() for path in run.path.iterdir() if path.is_file()}
        with pytest.raises(RuntimeError, match="a is no longer the run directory"):
            write(run)
        assert {path: path.read_bytes() for path in before} == before


def test_a_run_is_locked_before_anybody_can_see_it(tmp_path, monkeypatch):
    held = []
    rename = Path.rename

    def watched(self, target):
        held.append(is_held(self))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", watched)
    with RunLock() as lock:
        run = RunDirectory.create(tmp_path / "a", "", "", MANIFEST, lock)
        assert is_held(run.path)
    assert held == [True]


def test_a_run_that_was_made_in_the_meantime_is_told_as_one(tmp_path, monkeypatch):
    rename = Path.rename

    def raced(self, target):
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "manifest.json").write_text("{}")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", raced)
    with pytest.raises(ValueError, match="already holds a run: --resume goes on with it"):
        create(tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_an_interrupted_writer_left_goes_when_a_run_goes_on(tmp_path):
    run = create(tmp_path / "run")
    for name in (".manifest.json.77.tmp", ".metrics.jsonl.1.tmp"):
        (run.path / name).write_text("half")
    (run.path / ".notes.tmp").write_text("mine")
    run.rewind(0)
    hidden = {path.name for path in run.path.iterdir() if path.name.startswith(".")}
    assert hidden == {".notes.tmp"}


def test_the_manifest_is_updated_field_by_field(tmp_path):
    run = create(tmp_path / "a")
    run.update_manifest(outcome="completed", end="now")
    assert run.manifest == {**MANIFEST, "outcome": "completed", "end": "now"}


def test_a_full_disk_is_told_in_words(tmp_path, monkeypatch):
    run = create(tmp_path / "a")

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(RuntimeError, match=r"manifest.json cannot be written: No space left"):
        run.update_manifest(outcome="completed")
    with pytest.raises(RuntimeError, match=r"metrics.jsonl cannot be written: No space left"):
        run.sync()
    assert run.manifest == MANIFEST


def test_a_lost_run_directory_is_told_in_words(tmp_path):
    run = create(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    with pytest.raises(RuntimeError, match=r"metrics.jsonl cannot be written"):
        run.append_metrics([{"step": 1}])


def test_latest_points_at_the_newest_run_and_can_be_opened(tmp_path):
    create(tmp_path / "a").link_latest()
    create(tmp_path / "b").link_latest()
    link = tmp_path / "latest"
    assert link.readlink() == Path("b")
    assert RunDirectory.open(link).path == tmp_path / "b"
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "latest"}


def test_a_kill_while_the_link_is_made_leaves_nothing_for_long(tmp_path, monkeypatch):
    run = create(tmp_path / "a")

    def killed(self, target):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            run.link_latest()
    assert {path.name for path in tmp_path.iterdir()} == {"a"}


def test_a_folder_called_latest_is_left_alone(tmp_path):
    (tmp_path / "latest").mkdir()
    create(tmp_path / "a").link_latest()
    assert not (tmp_path / "latest").is_symlink()


def test_run_paths_carry_name_and_time_and_never_collide(tmp_path):
    now = datetime(2026, 1, 2, 3, 4, 5)
    first = default_run_path("fast-training", tmp_path, now)
    assert first == tmp_path / "fast-training-20260102-030405"
    first.mkdir()
    assert default_run_path("fast-training", tmp_path, now).name.endswith("-030405-2")


@given(st.text())
def test_no_name_leads_out_of_the_folder(name):
    path = default_run_path(name, Path("runs"), datetime(2026, 1, 2))
    assert path.parent == Path("runs")
    assert path.name.isascii()
    assert not path.name.startswith(".")
