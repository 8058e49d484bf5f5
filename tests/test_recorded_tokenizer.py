"""The tokenizer in a run's record: what a run goes on with, and what it refuses."""

from dataclasses import replace

import pytest

from lm_core import examination, experiment
from lm_core.analysis.comparison import compare_runs
from lm_core.analysis.records import read_run
from lm_core.data import bpe_store
from lm_core.data.bpe import BpeTokenizer
from lm_core.data.bpe_training import train_bpe
from lm_core.data.tokenizer import ByteTokenizer
from lm_core.errors import InputError
from lm_core.record import RunDirectory
from lm_core.recorded_config import (
    read_record,
    recorded_tokenizer,
    require_recorded_tokenizer,
)
from lm_core.training.checkpoint_folder import newest_sound_checkpoint
from tests.tiny_run import looking_at, request

BPE = {"Tokenizer__kind": "bpe", "Tokenizer__vocab_size": 300, "load_corpus__path": "my.txt"}
TEXT = "the quick brown fox jumps over the lazy dog. " * 40


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with a text, and a tokenizer of it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.txt").write_text(TEXT)
    (tmp_path / "tokenizer.json").write_text(train_bpe([[TEXT]], 280).json)
    return tmp_path


def train(folder, **more):
    experiment.train(request(folder, **{**BPE, **more}))
    return RunDirectory.open(folder / "run")


def train_with_file(folder, **more):
    return train(folder, Tokenizer__file="tokenizer.json", Tokenizer__vocab_size=4096, **more)


def goes_on(folder, **more):
    experiment.train(request(folder, resume=True, Trainer__max_steps=5, **more))


def test_a_run_keeps_its_tokenizer_as_a_file_and_in_each_checkpoint(folder):
    run = train(folder)
    learned = recorded_tokenizer(run)
    assert learned.vocab_size <= 300
    assert run.manifest["tokenizer"] == {
        "kind": "bpe",
        "vocab_size": learned.vocab_size,
        "sha256": learned.sha256,
    }
    checkpoint = newest_sound_checkpoint(run.checkpoints, pytest.fail)
    assert BpeTokenizer.from_dict(checkpoint.state["tokenizer"]) == learned


def test_runs_with_other_tokenizers_have_no_such_file(folder):
    run = train(folder, Tokenizer__kind="byte", Tokenizer__vocab_size=4096)
    assert not run.tokenizer.exists()
    assert recorded_tokenizer(run) is None
    assert run.manifest["tokenizer"] == {"kind": "byte", "vocab_size": 256, "sha256": None}


def test_nothing_is_learned_again(folder, monkeypatch, capsys):
    train(folder)

    def never(*arguments):
        raise AssertionError("learned again")

    monkeypatch.setattr(bpe_store, "trained", never)
    goes_on(folder)
    examination.evaluate(looking_at(folder))
    examination.sample(looking_at(folder))
    assert "The" in capsys.readouterr().out


def test_a_run_without_a_checkpoint_starts_again_with_its_tokenizer(folder, monkeypatch):
    run = train(folder)
    for path in run.checkpoints.iterdir():
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    run.update_manifest(saved_step=0)
    monkeypatch.setattr(bpe_store, "trained", lambda *arguments: pytest.fail("learned again"))
    goes_on(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"/run/tokenizer\.json cannot be read: .*; the run cannot go on without it"),
        ("{}", r"tokenizer\.json has been changed: it is not the tokenizer that the run was"),
    ],
)
def test_a_resume_needs_the_tokenizer_as_it_was(folder, content, message):
    run = train(folder)
    run.tokenizer.unlink()
    if content is not None:
        run.tokenizer.write_text(content)
    with pytest.raises(InputError, match=message):
        goes_on(folder)


def test_a_file_is_recorded_by_its_absolute_path_and_named_by_its_content(folder):
    run = train_with_file(folder)
    recorded = read_record(run)
    assert recorded.values.tokenizer_file == str(folder / "tokenizer.json")
    assert recorded.config_hash == run.manifest["config_hash"]
    assert run.tokenizer.read_text() == (folder / "tokenizer.json").read_text()


def test_a_run_goes_on_with_its_file_elsewhere_and_not_with_another(folder):
    train_with_file(folder)
    (folder / "tokenizer.json").rename(folder / "moved.json")
    with pytest.raises(InputError, match=r"tokenizer\.json' cannot be read: No such file"):
        goes_on(folder)
    goes_on(folder, Tokenizer__file="moved.json")
    (folder / "moved.json").write_text(train_bpe([[TEXT]], 270).json)
    with pytest.raises(InputError, match=r"cannot go on .*\n  tokenizer_file: .*moved\.json is an"):
        goes_on(folder)
    with pytest.raises(
        InputError, match=r"cannot go on .*\n  tokenizer_file: '.* in the run, null"
    ):
        goes_on(folder, Tokenizer__file=None)


def test_a_process_with_another_tokenizer_does_not_share_in_a_run(folder):
    learned = recorded_tokenizer(train(folder))
    require_recorded_tokenizer(learned, learned.sha256)
    require_recorded_tokenizer(learned, None)
    for other in (train_bpe([[TEXT]], 270), ByteTokenizer()):
        with pytest.raises(InputError, match="another tokenizer than the run that it shares in"):
            require_recorded_tokenizer(other, learned.sha256)


def test_to_look_at_a_run_its_file_is_not_needed(folder, capsys):
    train_with_file(folder)
    (folder / "tokenizer.json").unlink()
    examination.evaluate(looking_at(folder))
    examination.sample(looking_at(folder))
    assert "bits per byte" in capsys.readouterr().out


def test_another_text_gives_another_tokenizer_and_no_way_to_go_on(folder):
    train(folder)
    (folder / "my.txt").write_text(TEXT + TEXT.upper())
    with pytest.raises(InputError, match=r"the text of .* is another one than before"):
        goes_on(folder)


def test_files_that_differ_are_other_configurations_wherever_they_lie(folder):
    (folder / "moved.json").write_text((folder / "tokenizer.json").read_text())
    (folder / "other.json").write_text(train_bpe([[TEXT]], 270).json)
    hashes = {}
    for name in ("tokenizer", "moved", "other"):
        asked = request(folder, **{**BPE, "Tokenizer__file": f"{name}.json", "Trainer__seed": 1})
        experiment.train(replace(asked, run_dir=folder / name))
        hashes[name] = RunDirectory.open(folder / name).manifest["config_hash"]
    assert hashes["tokenizer"] == hashes["moved"] != hashes["other"]
    found = compare_runs([read_run(folder / name) for name in ("tokenizer", "moved", "other")])
    assert found.keys == ["tokenizer_file"]
    assert [group.runs for group in found.groups] == [[0, 1], [2]]
    assert [one.unit for one in found.differences] == ["bits per byte"]


def test_a_vocabulary_that_is_not_as_asked_for_is_told(folder, capsys):
    learned = recorded_tokenizer(train(folder, Tokenizer__vocab_size=5000)).vocab_size
    told = capsys.readouterr().err
    assert f"vocab_size 5000 (--gin_bindings): the text gives no more than {learned} tokens" in told
    asked = request(folder, load_corpus__path="my.txt", Tokenizer__vocab_size=300)
    experiment.train(replace(asked, run_dir=folder / "other"))
    told = capsys.readouterr().err
    assert "vocab_size 300 (--gin_bindings) means nothing with tokenizer ascii" in told
