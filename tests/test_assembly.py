"""From a configuration to its text, in this process."""

from dataclasses import replace
from functools import partial

import pytest

from lm_core import assembly, examination, experiment, planning
from lm_core.config.resolution import resolve
from lm_core.data.corpus import load_corpus
from lm_core.data.token_store import encode_corpus
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
        for function in (load_corpus, encode_corpus):
            alike = partial(function, largest_in_memory=10)
            monkeypatch.setattr(module, function.__name__, alike)


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
