import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_core.command_line import FLAGS_OF_MODE, help_text, parse, path_given
from lm_core.errors import InputError

words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


def texts(given):
    return [(one.flag, one.text) for one in sorted(given)]


def test_files_keep_their_order_across_both_flags_and_so_do_bindings():
    values, _ = parse(
        ["--config=a", "--gin.X.y=1", "--gin_file=b", "--gin_bindings=X.y=2", "--config=c"]
    )
    files = sorted([*values.gin_file, *values.config])
    assert texts(files) == [("--config", "a"), ("--gin_file", "b"), ("--config", "c")]
    assert [given.text for given in sorted(values.gin_bindings)] == ["X.y=1", "X.y=2"]


@given(words)
def test_a_value_reaches_the_program_as_it_was_written(word):
    values, _ = parse([f"--run_dir={word}", f"--corpus={word}", f"--gin.Sampler.prompt={word}"])
    assert (values.run_dir, values.corpus) == (word, word)
    assert texts(values.gin_bindings) == [("--gin_bindings", f"Sampler.prompt={word}")]


@pytest.mark.parametrize("name", ["my-gin.yaml", "exp-gin.1", "a--gin.b", "x\n-gin.y"])
def test_a_name_that_looks_like_a_binding_inside_is_left_alone(name):
    values, _ = parse([f"--config={name}", f"--run_dir={name}", "--gin_bindings", f"a='{name}'"])
    assert texts(values.config) == [("--config", name)]
    assert values.run_dir == name
    assert texts(values.gin_bindings) == [("--gin_bindings", f"a='{name}'")]


def test_behind_two_dashes_no_word_is_a_flag():
    _, bare = parse(["--mode=diff", "--", "--gin.a=1", "b.yaml"])
    assert bare == ["--gin.a=1", "b.yaml"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--n_layer=3"], "unknown flag --n_layer; did you mean --gin.Transformer.n_layers?"),
        (["--confg=x"], "unknown flag --confg; did you mean --config?"),
        (["--undefok=n_layer", "--n_layer=3"], "unknown flag --undefok"),
        (["--flagfile=nope"], "unknown flag --flagfile"),
        (["--mode=trian"], "trian"),
        (["--run_dir="], "--run_dir is empty"),
        (["--mode=sample", "--verify_corpus"], "--verify_corpus does not apply to --mode=sample"),
        (["--gin.X.y", "6"], "--gin.X.y has no value; write --gin.X.y=6"),
        (["my.yaml"], "did you mean --config=my.yaml?"),
        (["my file.gin"], "did you mean --gin_file='my file.gin'?"),
        (["--mode=diff", "a.yaml"], "compares two runs or configuration files, named without a"),
        (
            ["--mode=diff", "a.yaml", "b.yaml", "c.yaml"],
            "without a flag, not 3: --mode=diff runs/l",
        ),
        (["--mode=compare"], "--mode=compare compares runs, named without a flag, not 0"),
        (["--mode=compare", "a", "--run_dir=b"], "--run_dir does not apply to --mode=compare"),
        (["--mode=compare", "a", "--format=gin"], "gin does not apply to --mode=compare"),
        (["--mode=config", "--format=csv"], "csv does not apply to --mode=config"),
        (["Transformer.n_layers=6"], "did you mean --gin_bindings=Transformer.n_layers=6?"),
    ],
)
def test_a_wrong_command_line_is_told(arguments, message):
    with pytest.raises(InputError) as error:
        parse(arguments)
    assert message in error.value.message


def test_runs_to_be_compared_may_be_one_or_many():
    assert parse(["--mode=compare", "a"])[1] == ["a"]
    assert parse(["--mode=compare", "a", "b", "--format=csv", "c"])[1] == ["a", "b", "c"]


def test_both_spellings_of_the_steps_are_one_flag():
    assert parse(["--max-steps=3"])[0].max_steps == 3
    assert parse(["--max_steps=3"])[0].max_steps == 3


@pytest.mark.parametrize(("text", "value"), [("1e4", 1e4), ("six", "six"), ("3.5", 3.5)])
def test_steps_that_are_no_integer_are_left_to_the_check_of_all_values(text, value):
    assert parse([f"--max_steps={text}"])[0].max_steps == value


def test_the_help_has_every_flag_of_every_mode():
    told = help_text("What it is.")
    assert told.startswith("What it is.\n")
    for name in set().union(*FLAGS_OF_MODE.values(), {"mode", "allow_gin_import"}):
        assert f"\n  --{name}: " in told
    assert max(map(len, told.splitlines())) <= 96


@pytest.mark.parametrize("text", ["~nobody-has-this-name/x", "x" * 300])
def test_what_is_no_path_is_told_with_its_flag(text):
    with pytest.raises(InputError, match=r"^--run_dir: .* is no path: "):
        path_given("--run_dir", text)


def test_a_tilde_is_the_home_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert path_given("--run_dir", "~/x") == tmp_path / "x"
