"""From a configuration to its text, in this process."""

import gzip
import json
from dataclasses import replace
from functools import partial

import pytest

from lm_core import assembly, examination, experiment, planning
from lm_core.config.resolution import resolve
from lm_core.data.corpus import load_corpus
from lm_core.data.token_store import encode_corpus, encode_split
from lm_core.errors import InputError
from tests.tiny_run import looking_at, request


@pytest.mark.parametrize(
    ("warmup_steps", "end", "source"), [(0, 3, "max_steps"), (3, 3, "max_steps"), (4, 4, "warmup")]
)
def test_the_end_of_the_decay_tells_where_it_is_from(tmp_path, warmup_steps, end, source):
    table = {"Trainer__learning_rate_schedule": "cosine", "Trainer__warmup_steps": warmup_steps}
    config = assembly.completed(resolve(request(tmp_path, **table).config))
    assert config.values.decay_steps == end
    assert str(config.sources["decay_steps"]).startswith(source)


def treat_files_as_large(monkeypatch, tmp_path):
    """Makes every file a large corpus, whose tokens are kept."""
    monkeypatch.setenv("LM_CORE_CACHE", str(tmp_path / "cache"))
    for module in (assembly, examination):
        for function in (load_corpus, encode_corpus, encode_split):
            alike = partial(function, largest_in_memory=10)
            monkeypatch.setattr(module, function.__name__, alike, raising=False)


def damage(folder):
    """Flips a bit of a token."""
    (path,) = folder.glob("*.tokens")
    content = bytearray(path.read_bytes())
    content[-500] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("mode", ["train", "plan", "evaluate", "evaluate another text"])
def test_damage_in_what_is_kept_is_told_and_mended_when_the_corpus_is_verified(
    tmp_path, monkeypatch, capsys, mode
):
    treat_files_as_large(monkeypatch, tmp_path)
    text = tmp_path / "text.txt"
    text.write_text("all's well that ends well, " * 100)
    table = {"load_corpus__path": str(text), "Tokenizer__kind": "char"}
    experiment.train(request(tmp_path, **table))
    if mode == "train":
        ask = replace(request(tmp_path, **table), run_dir=tmp_path / "again")
        act = experiment.train
    elif mode == "plan":
        ask, act = request(tmp_path, **table), planning.plan
    else:
        ask = looking_at(tmp_path, corpus=str(text) if "another" in mode else None)
        act = examination.evaluate
    damage(tmp_path / "cache")
    capsys.readouterr()
    act(replace(ask, verify_corpus=True))
    told = capsys.readouterr().err
    assert "reading the corpus: " in told
    assert "is damaged; the corpus is encoded anew" in told
    assert "encoding the corpus: " in told
    act(replace(ask, run_dir=tmp_path / "third") if mode == "train" else ask)
    told = capsys.readouterr().err
    assert "encoding the corpus" not in told
    assert "checking the tokens" not in told


def test_a_run_on_a_large_corpus_is_that_on_a_small_one(tmp_path, capsys, monkeypatch):
    text = tmp_path / "text.txt"
    text.write_text("Größe und 🙂, " * 200, encoding="utf-8")
    table = {"load_corpus__path": str(text), "Tokenizer__kind": "char", "Trainer__seed": 3}
    experiment.train(request(tmp_path, **table))
    in_memory = capsys.readouterr().out.splitlines()[-2]
    treat_files_as_large(monkeypatch, tmp_path)
    experiment.train(replace(request(tmp_path, **table), run_dir=tmp_path / "again"))
    assert capsys.readouterr().out.splitlines()[-2] == in_memory
    assert list((tmp_path / "cache").glob("*.tokens"))


def write_documents(folder, documents):
    """A folder of JSON lines, compressed and not, and of text."""
    folder.mkdir()
    lines = [json.dumps({"content": document}) + "\n" for document in documents]
    (folder / "a.jsonl").write_text("".join(lines[::2]))
    (folder / "b.json.gz").write_bytes(gzip.compress("".join(lines[1::2]).encode()))
    (folder / "c.txt").write_text("a text among them\n" * 3)
    return folder


@pytest.mark.parametrize("is_large", [False, True])
@pytest.mark.parametrize("kind", ["byte", "char"])
def test_a_run_on_documents_is_planned_trained_gone_on_with_and_evaluated(
    tmp_path, monkeypatch, capsys, is_large, kind
):
    if is_large:
        treat_files_as_large(monkeypatch, tmp_path)
    documents = [f"Document {number}, which is short" for number in range(60)]
    folder = write_documents(tmp_path / "data", documents)
    table = {
        "load_corpus__path": str(folder),
        "load_corpus__text_key": "content",
        "split_corpus__split_by": "document",
        "split_corpus__train_ratio": 0.7,
        "Tokenizer__kind": kind,
    }
    planning.plan(request(tmp_path, **table))
    experiment.train(request(tmp_path, **table))
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())["corpus"]
    assert manifest["documents"]["number"] == 61
    assert manifest["bytes"] == sum(map(len, documents)) + 54
    more = {**table, "Trainer__max_steps": 5}
    experiment.train(request(tmp_path, resume=True, **more))
    trained = capsys.readouterr().out
    examination.evaluate(looking_at(tmp_path))
    assert f"final {capsys.readouterr().out.splitlines()[-1]}" in trained.splitlines()
    examination.evaluate(looking_at(tmp_path, corpus=str(folder / "b.json.gz")))
    assert "b.json.gz, " in capsys.readouterr().out
    (folder / "c.txt").rename(folder / "0.txt")
    for act in (
        partial(experiment.train, request(tmp_path, resume=True, **more)),
        partial(examination.evaluate, looking_at(tmp_path)),
    ):
        with pytest.raises(InputError, match="another one than"):
            act()


def test_the_same_text_in_other_documents_is_another_experiment_where_they_matter(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for name in "abcdef":
        (folder / f"{name}.txt").write_text(f"what is in {name} " * 30)
    table = {"load_corpus__path": str(folder), "split_corpus__split_by": "document"}
    experiment.train(request(tmp_path, **table))
    by_position = request(tmp_path, load_corpus__path=str(folder))
    experiment.train(replace(by_position, run_dir=tmp_path / "by position"))
    (folder / "a.txt").write_text((folder / "a.txt").read_text() + (folder / "b.txt").read_text())
    (folder / "b.txt").unlink()
    with pytest.raises(InputError, match="is in other documents than before"):
        experiment.train(request(tmp_path, resume=True, **table))
    with pytest.raises(InputError, match="is another one than"):
        examination.evaluate(looking_at(tmp_path))
    experiment.train(replace(by_position, run_dir=tmp_path / "by position", resume=True))
