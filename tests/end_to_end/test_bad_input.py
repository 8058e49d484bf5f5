"""Mistakes at the command line: one clear message, exit code 2, nothing left behind."""

import os

import pytest

from tests.end_to_end.command_line import TINY, run


@pytest.fixture
def folder(tmp_path):
    """A working directory with every kind of wrong file."""
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "short.txt").write_text("too short")
    (tmp_path / "binary.txt").write_bytes(b"\x7fELF\x00\x01\xff" * 50)
    (tmp_path / "latin.txt").write_bytes("für".encode("latin-1") * 50)
    (tmp_path / "accents.txt").write_text("un café\n" * 400, encoding="utf-8")
    (tmp_path / "uneven.txt").write_text("x" * 100)
    (tmp_path / "no_text").mkdir()
    (tmp_path / "broken.yaml").write_text("n_layers: [1\n")
    (tmp_path / "list.yaml").write_text("- n_layers\n")
    (tmp_path / "typo.yaml").write_text("# mine\nn_head: 2\n")
    (tmp_path / "text.yaml").write_text("learning_rate: '3e-4'\n")
    (tmp_path / "broken.gin").write_text("Transformer.n_layers = \n")
    (tmp_path / "python.gin").write_text("import os\n")
    (tmp_path / "occupied").mkdir()
    (tmp_path / "occupied" / "thesis.tex").write_text("x")
    (tmp_path / "file").write_text("x")
    os.mkfifo(tmp_path / "pipe.txt")
    return tmp_path


def contents(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


BINDING = "--gin_bindings="
CASES = [
    # The corpus.
    (["--corpus=nope.txt"], "nope.txt' does not exist"),
    (["--corpus=empty.txt"], "empty.txt' is empty"),
    (["--corpus=binary.txt"], "binary.txt is not UTF-8 text: byte 4 is a zero byte"),
    (["--corpus=latin.txt"], "latin.txt is not UTF-8 text: byte 1 is 0xfc"),
    (["--corpus=no_text"], "no_text' is a folder without a *.txt file"),
    (["--corpus=*.md"], "*.md' is a glob that matches no file"),
    (["--corpus=pipe.txt"], "is not a regular file"),
    (["--corpus=short.txt"], "the training part of the corpus has 8 tokens"),
    (
        ["--corpus=uneven.txt"],
        "the validation part of the corpus has 5 tokens; one window needs 17",
    ),
    (["--corpus=accents.txt"], "accents.txt: line 1, column 7 (character 7): the ascii tokenizer"),
    # Values.
    ([f"{BINDING}split_corpus.train_ratio=0"], "split_corpus.train_ratio: 0 is not greater than 0"),
    ([f"{BINDING}split_corpus.train_ratio=1"], "split_corpus.train_ratio: 1 is not less than 1"),
    ([f"{BINDING}split_corpus.train_ratio=1.5"], "1.5 is not less than 1"),
    (
        [f"{BINDING}Transformer.d_model=15"],
        "d_model 15 (--gin_bindings) is not divisible by n_heads",
    ),
    ([f"{BINDING}Transformer.n_layers=-1"], "Transformer.n_layers: -1 is less than 1"),
    ([f"{BINDING}Transformer.n_layers=0"], "Transformer.n_layers: 0 is less than 1"),
    ([f"{BINDING}Transformer.n_layers=2.5"], "Transformer.n_layers: 2.5 is no integer"),
    ([f"{BINDING}Transformer.n_layers='six'"], "Transformer.n_layers: 'six' is a text"),
    ([f"{BINDING}Transformer.n_layers=six"], "Transformer.n_layers: 'six' is a text (allowed: an"),
    ([f"{BINDING}Transformer.n_layers=True"], "Transformer.n_layers: true is a truth value"),
    ([f"{BINDING}Trainer.batch_size=0"], "Trainer.batch_size: 0 is less than 1"),
    ([f"{BINDING}Trainer.eval_cadence=0"], "Trainer.eval_cadence: 0 is less than 1"),
    ([f"{BINDING}Transformer.dropout=1.5"], "Transformer.dropout: 1.5 is not less than 1"),
    ([f"{BINDING}Trainer.learning_rate=1e400"], "Trainer.learning_rate: inf is not finite"),
    ([f"{BINDING}Sampler.prompt=''"], "Sampler.prompt: '' is empty"),
    (
        [f"{BINDING}Sampler.prompt='né'"],
        "sampling_prompt 'né' (--gin_bindings) has characters unknown to tokenizer 'ascii'",
    ),
    (
        [f"{BINDING}Sampler.prompt='né'", "--gin.Tokenizer.kind=char"],
        "--gin_bindings: Sampler.prompt: line 1, column 2",
    ),
    ([f"{BINDING}Tokenizer.kind=word"], "'word' is an unknown tokenizer"),
    (["--max_steps=0"], "--max_steps: 0 is less than 1"),
    (["--max_steps=-5"], "--max_steps: -5 is less than 1"),
    (["--max_steps=99999999999999999999"], "99999999999999999999 is greater than 99999999"),
    (["--max_steps=1e4"], "--max_steps: 10000.0 is no integer, write 10000"),
    (["--max_steps=3.0"], "--max_steps: 3.0 is no integer, write 3"),
    (["--max_steps=1_0"], "--max_steps: '1_0' is a text (allowed: an integer from 1"),
    (["--max_steps=many"], "--max_steps: 'many' is a text (allowed: an integer from 1"),
    # Names.
    ([f"{BINDING}Transformer.n_layer=6"], "did you mean Transformer.n_layers?"),
    ([f"{BINDING}n_layers=6"], "a macro that nothing uses; did you mean Transformer.n_layers?"),
    (["--gin.transformer.N_LAYERS=6"], "did you mean Transformer.n_layers?"),
    (["--gin.Tokenizer.kind=ASCII"], "'ASCII' is an unknown tokenizer; did you mean ascii?"),
    (["--gin.Transformer.n_layer=6"], "did you mean Transformer.n_layers?"),
    (["--gin.Transformer.n_layers"], "'Transformer.n_layers' binds nothing; write NAME=VALUE"),
    (["--gin.Transformer.n_layers:6"], "'Transformer.n_layers:6' binds nothing; write NAME="),
    ([f"{BINDING}import os"], "--allow_gin_import=os allows this module"),
    # Hooks.
    (
        [f"{BINDING}Trainer.hooks={{'forward': [{{'name': 'x'}}]}}"],
        "Trainer.hooks.forward[0].name: 'x' is an unknown forward hook (there are",
    ),
    (
        [f"{BINDING}Trainer.hooks={{'forward': [{{'name': 'activation_stats', 'sites': 'x'}}]}}"],
        "--gin_bindings: Trainer.hooks.forward[0].sites: 'x' matches no site (there are embedding",
    ),
    (
        [f"{BINDING}Trainer.hooks={{'forward': [{{'name': 'ablate_heads', 'heads': [9]}}]}}"],
        "--gin_bindings: Trainer.hooks.forward[0].heads: the model has no head 9",
    ),
    (
        ["--allow_gin_import=no_such_module"],
        "--allow_gin_import=no_such_module: cannot be imported",
    ),
    # Files.
    (["--config=nope.yaml"], "--config: 'nope.yaml': unknown file"),
    (["--config=fast-trainin.yaml"], "did you mean fast-training.yaml?"),
    (["--config=small"], "--config: 'small': unknown file; did you mean small-model.yaml?"),
    (["--config=small-model.yml"], "did you mean small-model.yaml?"),
    (["--gin_file=base"], "--gin_file: 'base': unknown file; did you mean base.gin?"),
    (["--config=broken.yaml"], "broken.yaml:1: not valid YAML: a bracket that is not closed"),
    (["--config=list.yaml"], "list.yaml:1: a configuration is a mapping"),
    (["--config=typo.yaml"], "typo.yaml:2: n_head: unknown hyperparameter; did you mean n_heads?"),
    (["--config=text.yaml"], "text.yaml:1: learning_rate: '3e-4' is a text"),
    (["--config=latin.txt"], "latin.txt:1: is not UTF-8 text"),
    (["--config=pipe.txt"], "is not a regular file"),
    (["--gin_file=nope.gin"], "--gin_file: 'nope.gin': unknown file"),
    (["--gin_file=broken.gin"], "broken.gin:1: not valid gin"),
    (["--gin_file=python.gin"], "python.gin:1: import os"),
    # Flags.
    (["--mode=trian"], "flag --mode=trian: value should be one of <train|config|plan|diff|"),
    (["--format=xml"], "flag --format=xml: value should be one of <table|yaml|gin|json|csv>"),
    (["--log_config=some"], "flag --log_config=some: value should be one of <changed|all>"),
    (["--format=json"], "--format does not apply to --mode=train"),
    (["--n_layers=6"], "unknown flag --n_layers; did you mean --gin.Transformer.n_layers?"),
    (["--lr=1e-3"], "unknown flag --lr; did you mean --gin.Trainer.learning_rate?"),
    (["--batch-size=4"], "unknown flag --batch-size; did you mean --gin.Trainer.batch_size?"),
    (["--zzz"], "unknown flag --zzz; --help lists the flags"),
    (["--flagfile=nope"], "unknown flag --flagfile; --help lists the flags"),
    (["--gin_search_paths=nope"], "--gin_search_paths: 'nope' is no folder"),
    (["--corpus="], "--corpus is empty; give it a value, or leave it out"),
    (["--run_dir="], "--run_dir is empty; give it a value, or leave it out"),
    (["--gin_file="], "--gin_file is empty; give it a value, or leave it out"),
    (["--config=fast-training.yaml", "--config="], "--config is empty"),
    (["--gin_bindings="], "--gin_bindings is empty"),
    (["--gin."], "--gin_bindings is empty"),
    (["--gin_search_paths="], "--gin_search_paths is empty"),
    (["--allow_gin_import="], "--allow_gin_import is empty"),
    (["--confg=small-model.yaml"], "unknown flag --confg; did you mean --config?"),
    (["--resume=yes"], "flag --resume=yes: Non-boolean argument to boolean flag; --help"),
    (["stray"], "'stray' belongs to no flag; a value with a space needs quotes; --help lists"),
    (
        ["--config=broken.yaml", "my.yaml"],
        "'my.yaml' belongs to no flag; did you mean --config=my.yaml? Each file needs a flag",
    ),
    (["my.gin"], "'my.gin' belongs to no flag; did you mean --gin_file=my.gin?"),
    (["--allow_gin_import=hooks.py"], "cannot be imported: a module is named without .py"),
    (
        ["Trainer.seed=3"],
        "'Trainer.seed=3' belongs to no flag; did you mean --gin_bindings=Trainer.seed=3?",
    ),
    (["--resume"], "--resume needs --run_dir"),
    # Run directories.
    (["--run_dir=occupied"], "occupied is not empty, and holds no run"),
    (["--run_dir=file"], "a file is in its place"),
    (["--run_dir=file/below"], "file/below cannot be made: a file is in the place of one"),
    (["--run_dir=/proc/nowhere"], "the run directory /proc/nowhere cannot be made"),
]


@pytest.mark.parametrize(("arguments", "message"), CASES, ids=[" ".join(a) for a, _ in CASES])
def test_a_mistake_is_told_and_nothing_is_left_behind(folder, arguments, message):
    before = contents(folder)
    small = [] if arguments[0].startswith("--mode") else TINY
    options = [*small, "--max_steps=1", *arguments]
    if not any(a.startswith("--run_dir") or a == "--resume" for a in arguments):
        options.append("--run_dir=out")
    done = run(*options, cwd=folder, check=2)
    assert message in done.stderr, done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert "In call to configurable" not in done.stderr
    assert done.stdout == ""
    assert contents(folder) == before


def test_all_mistakes_are_told_at_once(folder):
    options = ["--config=typo.yaml", "--config=text.yaml", "--gin.Transformer.d_model=250"]
    lines = run(*options, "--max_steps=0", cwd=folder, check=2).stderr.splitlines()
    assert lines[0] == "error: 4 problems"
    assert len(lines) == 5


def test_a_run_directory_that_holds_a_run_is_not_touched(folder):
    options = [*TINY, "--max_steps=1", "--run_dir=out"]
    run(*options, cwd=folder, check=0)
    before = {path: path.stat().st_mtime_ns for path in (folder / "out").rglob("*")}
    done = run(*options, cwd=folder, check=2)
    assert "out already holds a run: --resume goes on with it" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in (folder / "out").rglob("*")} == before


def test_a_model_larger_than_the_machine_is_told_in_words(folder):
    arguments = ["--gin.Transformer.d_ff=2000000000", "--gin.Transformer.d_model=1000000"]
    done = run(*arguments, "--run_dir=out", cwd=folder, check=1)
    assert "the memory of this machine is too small" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "out").exists()


def test_a_batch_larger_than_the_machine_is_told_in_words(folder):
    before = contents(folder)
    huge = "--gin.Trainer.batch_size=1000000000"
    done = run(*TINY, huge, "--run_dir=out", cwd=folder, check=1)
    assert "the memory of this machine is too small" in done.stderr
    assert contents(folder) == before


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_is_printed_without_loading_pytorch(folder, flag):
    # Modules that cannot be imported stand in the places of PyTorch and Numba.
    (folder / "torch.py").write_text("raise SystemExit('PyTorch was imported')")
    (folder / "numba.py").write_text("raise SystemExit('Numba was imported')")
    done = run(flag, cwd=folder, check=0, PYTHONPATH=str(folder))
    for name in ("gin_file", "gin_bindings", "config", "corpus", "run_dir", "max_steps", "resume"):
        assert f"  --{name}: " in done.stdout
    assert done.stderr == ""


def test_wrong_flags_are_told_without_loading_pytorch(folder):
    (folder / "torch.py").write_text("raise SystemExit('PyTorch was imported')")
    (folder / "numba.py").write_text("raise SystemExit('Numba was imported')")
    done = run("--nope", cwd=folder, check=2, PYTHONPATH=str(folder))
    assert "unknown flag --nope" in done.stderr


def test_a_configurable_of_a_name_of_the_labs_is_told(folder):
    (folder / "clash.py").write_text("import gin\n\n@gin.configurable\nclass Trainer: pass\n")
    options = [*TINY, "--allow_gin_import=clash", "--max_steps=1", "--run_dir=out"]
    done = run(*options, cwd=folder, check=2)
    assert "another module has registered a configurable of a name that the lab has" in done.stderr
    assert not (folder / "out").exists()


def test_a_hook_that_cannot_be_made_is_told_before_anything_is_written(folder):
    (folder / "mine.py").write_text(
        "from lm_core.hooks import UpdateHook, update_hook\n\n\n"
        '@update_hook("mine")\nclass Mine(UpdateHook):\n'
        "    def __init__(self):\n        raise ValueError('not today')\n"
    )
    hooks = "--gin_bindings=Trainer.hooks = {'update': [{'name': 'mine'}]}"
    for mode in ("config", "train", "plan"):
        options = ["--allow_gin_import=mine", hooks, f"--mode={mode}"]
        done = run(*options, cwd=folder, check=2)
        told = "hooks.update[0]: ValueError in the __init__ of Mine: not today"
        assert done.stderr == f"error: --gin_bindings: Trainer.{told}\n"
    assert not (folder / "runs").exists()
