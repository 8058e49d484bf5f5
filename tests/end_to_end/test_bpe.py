"""Byte-level BPE from the command line: trained, gone on with, evaluated, sampled from, planned."""

import json

import pytest

from lm_core.data.bpe import BpeTokenizer
from tests.end_to_end.command_line import TINY, manifest, metrics, run

OPTIONS = [*TINY, "--gin.Tokenizer.kind=bpe", "--gin.Tokenizer.vocab_size=400"]
OPTIONS += ["--gin.Trainer.seed=5", "--max_steps=4", "--gin.Trainer.sampling_cadence=2"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a run in it, and what it printed."""
    folder = tmp_path_factory.mktemp("trained")
    return folder, run(*OPTIONS, "--run_dir=one", cwd=folder, check=0)


def weights(folder, step):
    return (folder / "checkpoints" / f"step-{step:08d}" / "model.safetensors").read_bytes()


def test_a_run_has_the_vocabulary_that_was_asked_for(trained):
    folder, done = trained
    assert done.stderr == ""
    assert manifest(folder / "one")["tokenizer"]["vocab_size"] == 400
    tokenizer = BpeTokenizer((folder / "one" / "tokenizer.json").read_text())
    assert tokenizer.vocab_size == 400
    rows = [json.loads(line) for line in (folder / "one" / "samples.jsonl").open()]
    assert all(row["text"].startswith("The") for row in rows)


def test_two_runs_are_equal_bit_for_bit(trained):
    folder, _ = trained
    variables = {"RAYON_NUM_THREADS": "1", "PYTHONHASHSEED": "3"}
    run(*OPTIONS, "--run_dir=two", cwd=folder, check=0, **variables)
    names = ("one", "two")
    one, two = ((folder / name / "tokenizer.json").read_bytes() for name in names)
    assert one == two
    assert weights(folder / "one", 4) == weights(folder / "two", 4)
    assert metrics(folder / "one") == metrics(folder / "two")
    assert manifest(folder / "one")["config_hash"] == manifest(folder / "two")["config_hash"]


def test_a_resume_goes_on_as_if_nothing_had_happened(trained):
    folder, _ = trained
    run(*OPTIONS, "--run_dir=parts", "--max_steps=2", cwd=folder, check=0)
    run("--run_dir=parts", "--resume", "--max_steps=4", cwd=folder, check=0)
    assert weights(folder / "one", 4) == weights(folder / "parts", 4)


def test_it_is_evaluated_and_sampled_from(trained):
    folder, done = trained
    evaluated = run("--mode=evaluate", "--run_dir=one", cwd=folder, check=0).stdout
    (final,) = [line for line in done.stdout.splitlines() if line.startswith("final validation")]
    assert final.removeprefix("final ") in evaluated
    prompt = "--gin.Sampler.prompt='Ünï 猫 <|endoftext|>'"
    sampled = run("--mode=sample", "--run_dir=one", prompt, cwd=folder, check=0).stdout
    assert sampled.startswith("Ünï 猫 <|endoftext|>")


def test_its_own_tokenizer_makes_the_same_run_when_it_is_given_as_a_file(trained):
    folder, _ = trained
    given = [option for option in OPTIONS if "vocab_size" not in option]
    given += ["--gin.Tokenizer.file=one/tokenizer.json", "--run_dir=given"]
    done = run(*given, cwd=folder, check=0)
    assert done.stderr == ""
    assert weights(folder / "one", 4) == weights(folder / "given", 4)


def test_a_plan_counts_the_parameters_that_there_are(trained):
    folder, _ = trained
    planned = run("--mode=plan", "--format=json", *OPTIONS, cwd=folder, check=0).stdout
    found = json.loads(planned)["parameters"]["total"]
    assert found == manifest(folder / "one")["n_parameters"]


def test_runs_with_bytes_and_with_bpe_compare_in_bits_per_byte(trained):
    folder, _ = trained
    for name, option in (("bytes", "kind=byte"), ("bpe", "vocab_size=400")):
        for seed in (1, 2, 3):
            options = [*TINY, f"--gin.Trainer.seed={seed}", "--max_steps=2"]
            kind = [] if name == "bytes" else ["--gin.Tokenizer.kind=bpe"]
            words = [*options, *kind, f"--gin.Tokenizer.{option}", f"--run_dir={name}-{seed}"]
            run(*words, cwd=folder, check=0)
    names = [f"{name}-{seed}" for name in ("bytes", "bpe") for seed in (1, 2, 3)]
    done = run("--mode=compare", *names, cwd=folder, check=0)
    assert "bits per byte" in done.stdout


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "it is no JSON"),
        ('{"model": {"type": "WordPiece"}}', "its model is 'WordPiece'; the lab takes byte-level"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_file_that_is_no_tokenizer_is_told_in_one_line_with_its_source(
    tmp_path, content, message
):
    if content is not None:
        (tmp_path / "mine.json").write_text(content)
    words = ["--gin.Tokenizer.kind=bpe", "--gin.Tokenizer.file=mine.json", "--max_steps=1"]
    done = run(*TINY, *words, cwd=tmp_path, check=2)
    (line,) = done.stderr.splitlines()
    assert message in line
    assert "mine.json" in line
    assert list(tmp_path.glob("runs/*")) == []


def test_a_file_without_bpe_is_a_mistake_that_is_told_before_anything_is_read(tmp_path):
    done = run("--mode=config", "--gin.Tokenizer.file=mine.json", cwd=tmp_path, check=2)
    assert "is for bpe, and not for tokenizer" in done.stderr
