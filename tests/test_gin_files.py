import pytest

from lm_core.config.gin_files import GinReader
from lm_core.config.statements import Reading


@pytest.fixture
def read(folder):
    def read_sources(content="", bindings=(), allowed=()):
        reading = Reading()
        reader = GinReader(reading, [folder / "library"], allowed)
        if content:
            (folder / "my.gin").write_text(content)
            reader.read_file(folder / "my.gin")
        for binding in bindings:
            reader.read_binding(binding, "--gin_bindings")
        reader.resolve_macros()
        return reading

    return read_sources


def sentences(reading):
    return [finding.text for finding in reading.findings]


def values(reading):
    assert reading.findings == []
    return {statement.key: statement.value for statement in reading.statements}


def test_bindings_become_statements_with_their_lines(read):
    reading = read("# comment\nTransformer.n_layers = 6\nSampler.prompt = 'O'\n")
    assert [(s.key, s.value, str(s.source)) for s in reading.statements] == [
        ("n_layers", 6, "my.gin:2"),
        ("sampling_prompt", "O", "my.gin:3"),
    ]


def test_blocks_work_too(read):
    reading = read("Transformer:\n  n_layers = 6\n  d_ff = 8\n")
    assert values(reading) == {"n_layers": 6, "d_ff": 8}
    assert str(reading.statements[1].source) == "my.gin:3"


def test_macros_are_evaluated_wherever_they_stand(read):
    content = "Transformer.d_model = %width\nwidth = %base\nbase = 64\nTransformer.d_ff = %width\n"
    assert values(read(content)) == {"d_model": 64, "d_ff": 64}
    nested = "every = 3\nTrainer.hooks = {'update': [{'name': 'x', 'every': %every}]}"
    assert values(read(nested)) == {"hooks": {"update": [{"name": "x", "every": 3}]}}


def test_a_macro_can_come_from_the_command_line(read):
    reading = read("width = 64\nTransformer.d_model = %width\n", bindings=["width = 32"])
    assert values(reading) == {"d_model": 32}


def test_tuples_are_lists(read):
    assert values(read("Trainer.hooks = {'update': ({'name': 'x'},)}")) == {
        "hooks": {"update": [{"name": "x"}]}
    }


@pytest.mark.parametrize(
    ("binding", "value"),
    [
        ("Tokenizer.kind=byte", "byte"),
        (" Tokenizer.kind = byte ", "byte"),
        ("Tokenizer.kind='byte'", "byte"),
    ],
)
def test_a_bare_word_on_the_command_line_can_be_a_text(read, binding, value):
    assert values(read(bindings=[binding])) == {"tokenizer": value}


def test_none_true_and_false_keep_their_meaning(read):
    assert values(read(bindings=["load_corpus.path=None"])) == {"corpus": None}
    assert values(read(bindings=["Transformer.n_layers=True"])) == {"n_layers": True}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("Tokenizer.kind = byte", "my.gin:1: not valid gin: "),
        ("\nTransformer.n_layers =", "my.gin:2: not valid gin: there is no value after the ="),
        ("Transformer.n_layers = [1,\n", "my.gin:1: not valid gin: a bracket or a quotation mark"),
        ("Transformer.n_layers = 3 4", "my.gin:1: not valid gin: more follows after the value"),
        ("what is this", "my.gin:1: not valid gin: "),
        ("Trainer.hooks = {[1]: 2}", "my.gin:1: not valid gin: a list or a mapping is no name"),
        ("Sampler.prompt = 'open", "my.gin:1: not valid gin: "),
        ("  a = 1\n b = 2", "my.gin:2: not valid gin: unindent does not match"),
        ("$", "my.gin:1: not valid gin: "),
        (
            "Transformer.n_layer = 6",
            "my.gin:1: Transformer.n_layer: unknown parameter; did you mean Transformer.n_layers?",
        ),
        ("Nothing.at_all = 6", "my.gin:1: Nothing.at_all: unknown parameter"),
        (
            "lm_core.model.transformer.Transformer.n_layers = 6",
            "my.gin:1: lm_core.model.transformer.Transformer.n_layers: unknown parameter; "
            "write Transformer.n_layers",
        ),
        (
            "Transformer.vocab_size = 6",
            "my.gin:1: Transformer.vocab_size: is not a hyperparameter: the program itself gives",
        ),
        (
            "train/Transformer.n_layers = 6",
            "my.gin:1: train/Transformer.n_layers: a scope has no place here",
        ),
        (
            "Transformer.n_layers = @Trainer",
            "my.gin:1: Transformer.n_layers: @Trainer is a reference",
        ),
        ("Trainer.hooks = [@a/B()]", "my.gin:1: Trainer.hooks: @a/B() is a reference"),
        ("Transformer.n_layers = %n", "my.gin:1: Transformer.n_layers: %n: unknown macro"),
        (
            "width = 3\nTransformer.d_ff = %widht\nTransformer.d_model = %width",
            "my.gin:2: Transformer.d_ff: %widht: unknown macro; did you mean width?",
        ),
        (
            "n_layers = 6",
            "my.gin:1: n_layers: a macro that nothing uses; did you mean Transformer.",
        ),
        (
            "temperature = 6",
            "my.gin:1: temperature: a macro that nothing uses; did you mean Sampler.",
        ),
        (
            "sampling_seed = 6",
            "my.gin:1: sampling_seed: a macro that nothing uses; did you mean Sa",
        ),
        ("import os", "my.gin:1: import os: a configuration may run no code of its own; --allow"),
        ("import os as o", "my.gin:1: import os as o: a configuration may run no code"),
        (
            "from os import path",
            "my.gin:1: from os import path: a configuration may run no code of its own; "
            "--allow_gin_import=os allows this module",
        ),
        (
            "d = 6\nd = 7\nTransformer.n_layers = %d",
            "my.gin:2: d: set twice in this file, first in line 1",
        ),
        (
            "Trainer.hooks = {\n  'update': [{'name': 'x'}],\n  'update': [],\n}",
            "my.gin:3: update: set twice in one mapping, first in line 2",
        ),
        (
            "Transformer.n_layers = 6\nTransformer.n_layers = 7",
            "my.gin:2: Transformer.n_layers: set twice in this file, first in line 1",
        ),
        ("include 'nope.gin'", "my.gin:1: include: 'nope.gin': unknown file"),
        ("include 3", "my.gin:1: not valid gin: "),
        (
            "include 'my.gin'",
            "my.gin:1: include: the files include each other in a circle: my.gin -> my.gin",
        ),
        (
            "from __gin__ import dynamic_registration",
            "my.gin:1: from __gin__ import dynamic_registration: there is no dynamic registration",
        ),
        ("Trainer.hooks = {(1, 2): 3}", "my.gin:1: Trainer.hooks: [1, 2] is no name"),
        ("a = 'x'\nTrainer.hooks = {%a: 3, 'x': 4}", "my.gin:2: Trainer.hooks: 'x' is set twice"),
        (
            "Transformer.n_layers = six",
            "my.gin:1: not valid gin: 'six' is no value; a text needs quotes",
        ),
        (
            "load_corpus.path = 'C:\\Users\\x.txt'",
            "my.gin:1: not valid gin: a \\ in a text begins an escape; write \\\\ for",
        ),
        ("Trainer.hooks = {'a': 1, ('a'): 2}", "my.gin:1: a: set twice in one mapping"),
        (
            "a = %nope\nTrainer.seed = %a",
            "my.gin:2: Trainer.seed: %nope, in the value of %a: unknown macro",
        ),
        (
            "Trainer.seed = null",
            "my.gin:1: not valid gin: null is YAML; gin has None",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_line(read, content, problem):
    problems = sentences(read(content))
    assert len(problems) == 1, problems
    assert problems[0].startswith(problem)


def test_what_follows_a_mistake_is_read_all_the_same(read):
    reading = read(
        "Transformer.n_layers = six\nTransformer.d_f = 3\nTrainer.seed = 4\n"
        "Trainer.hooks = {'update': [\nTokenizer.kind = byte\nw = 5\nTransformer.d_ff = %w\n"
    )
    assert [line.partition(": ")[0] for line in sentences(reading)] == [
        f"my.gin:{line}" for line in (1, 2, 4, 5)
    ]
    assert {s.key: s.value for s in reading.statements} == {"seed": 4, "d_ff": 5}
    assert reading.unread == {"n_layers", "hooks", "tokenizer"}
    assert reading.is_complete


def test_no_macro_is_told_for_what_cannot_be_read(read):
    content = "Trainer.seed = a %used\nused = 3\nbroken = a b\nTransformer.d_ff = %broken\n"
    told = sentences(read(content))
    assert [line.partition(": ")[0] for line in told] == ["my.gin:1", "my.gin:3"]
    for unreadable in ("Transformer d_ff 3", "include a.gin", "^"):
        told = sentences(read(f"{unreadable}\nTransformer.n_layers = %elsewhere\nunused = 3\n"))
        assert [line.partition(": ")[0] for line in told] == ["my.gin:1"]


@pytest.mark.parametrize(
    "statement",
    [
        "Transformer.n_layer = %x",
        "train/Transformer.n_layers = %x",
        "Transformer.vocab_size = %x",
        "Trainer.seed = 1\nTrainer.seed = %x",
        "a = %x\nTransformer.n_layers = %a foo",
    ],
)
def test_a_macro_of_a_statement_that_is_refused_is_used_all_the_same(read, statement):
    (told,) = sentences(read(f"x = 3\n{statement}\n"))
    assert "a macro that nothing uses" not in told


def test_a_macro_that_cannot_be_is_told_even_where_a_later_one_overrides_it(read):
    reading = read("x = %nope\nTrainer.seed = %x\n", bindings=["x = 5"])
    (told,) = sentences(reading)
    assert told.startswith("my.gin:1: x: %nope: unknown macro")


def test_macros_that_become_too_deep_are_used_all_the_same(read):
    chain = "".join(f"x{i} = %x{i + 1}\n" for i in range(60)) + "x60 = 1\nTrainer.seed = %x0\n"
    (told,) = sentences(read(chain))
    assert told.startswith("my.gin:62: Trainer.seed: is far too large or deep")


def test_macros_that_define_each_other_are_told(read):
    problems = sentences(read("a = %b\nb = %a\nTransformer.n_layers = %a"))
    assert problems == ["my.gin:3: Transformer.n_layers: %a is defined by itself"]


def test_an_allowed_module_may_be_imported(read):
    assert values(read("import my_hooks\nTransformer.n_layers = 6", allowed=["my_hooks"])) == {
        "n_layers": 6
    }


def test_a_part_of_an_allowed_module_may_be_imported(read):
    content = "from my_hooks import a\nimport my_hooks as b\nTransformer.n_layers = 6"
    assert values(read(content, allowed=["my_hooks"])) == {"n_layers": 6}
    assert values(read("from pack import a\n", allowed=["pack.a"])) == {}


def test_a_name_set_twice_in_a_mapping_on_the_command_line_is_told(read):
    problems = sentences(read(bindings=["Trainer.hooks = {'update': [], 'update': []}"]))
    assert problems == ["--gin_bindings: update: set twice in one mapping"]


def test_a_file_whose_name_looks_like_a_flag_has_lines(folder):
    reading = Reading()
    (folder / "--odd.gin").write_text("\nTransformer.n_layers = 6\n")
    GinReader(reading, []).read_file(folder / "--odd.gin")
    assert str(reading.statements[0].source) == "--odd.gin:2"


def test_an_include_is_relative_to_its_file_then_looked_for_in_the_folders(folder, read):
    (folder / "library").mkdir()
    (folder / "deep").mkdir()
    (folder / "library" / "a.yaml").write_text("n_layers: 6\n")
    (folder / "deep" / "b.gin").write_text("include 'c.gin'\nTransformer.d_ff = 8\n")
    (folder / "deep" / "c.gin").write_text("Transformer.d_model = 16\n")
    reading = read("include 'a.yaml'\ninclude 'deep/b.gin'\n")
    assert values(reading) == {"n_layers": 6, "d_model": 16, "d_ff": 8}
    assert [str(s.source) for s in reading.statements] == [
        "library/a.yaml:1",
        "deep/c.gin:1",
        "deep/b.gin:2",
    ]


def test_a_longer_circle_of_includes_ends(folder, read):
    (folder / "other.gin").write_text("include 'my.gin'\n")
    assert sentences(read("include 'other.gin'\n")) == [
        "other.gin:1: include: the files include each other in a circle: "
        "my.gin -> other.gin -> my.gin"
    ]


def test_files_that_include_each_other_twice_over_do_not_explode(folder, read):
    for i in range(30):
        (folder / f"{i}.gin").write_text(f"include '{i + 1}.gin'\ninclude '{i + 1}.gin'\n")
    (folder / "30.gin").write_text("")
    told = sentences(read("include '0.gin'"))
    assert told[0].endswith("more than 100 files are read for this configuration")


def test_an_include_takes_the_file_beside_it_before_one_in_the_working_directory(folder, read):
    (folder / "deep").mkdir()
    (folder / "deep" / "a.gin").write_text("include 'b.gin'\n")
    (folder / "deep" / "b.gin").write_text("Transformer.n_layers = 6\n")
    (folder / "b.gin").write_text("Transformer.n_layers = 7\n")
    assert values(read("include 'deep/a.gin'\n")) == {"n_layers": 6}


@pytest.mark.parametrize("name", ["other.gin", "other.yaml"])
def test_an_include_from_elsewhere_is_refused_with_the_flag_that_allows_its_folder(
    folder, tmp_path_factory, read, name
):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "other.gin").write_text("Transformer.n_layers = 6\n")
    (elsewhere / "other.yaml").write_text("n_layers: 6\n")
    (folder / f"link-{name}").symlink_to(elsewhere / name)
    for written in (str(elsewhere / name), f"../{elsewhere.name}/{name}", f"link-{name}"):
        (told,) = sentences(read(f"include '{written}'"))
        start = f"my.gin:1: include: '{written}' lies outside the folders of this configuration; "
        assert told == f"{start}--gin_search_paths={elsewhere} allows its folder"
    reading = Reading()
    (folder / "my.gin").write_text(f"include '{elsewhere / name}'")
    GinReader(reading, [elsewhere]).read_file(folder / "my.gin")
    assert values(reading) == {"n_layers": 6}


def test_a_file_named_by_the_user_may_include_what_lies_beside_it(tmp_path_factory, folder):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "a.gin").write_text("include 'b.gin'\n")
    (elsewhere / "b.gin").write_text("Transformer.n_layers = 6\n")
    reading = Reading()
    GinReader(reading, []).read_file(elsewhere / "a.gin")
    assert values(reading) == {"n_layers": 6}


def test_the_same_file_may_be_read_twice_in_a_row(folder, read):
    (folder / "a.gin").write_text("Transformer.n_layers = 6\n")
    assert values(read("include 'a.gin'\ninclude 'a.gin'\n")) == {"n_layers": 6}


def test_several_statements_in_one_binding_and_several_bindings(read):
    reading = read(
        bindings=["Transformer.n_layers=6\nTransformer.d_ff=8", "Transformer.n_layers=7"]
    )
    assert values(reading) == {"n_layers": 7, "d_ff": 8}
    assert {str(s.source) for s in reading.statements} == {"--gin_bindings"}


def test_within_one_binding_the_later_statement_wins_as_among_bindings(read):
    reading = read(bindings=["Trainer.seed=1\nTrainer.seed=2"])
    assert [statement.value for statement in reading.statements] == [1, 2]


@pytest.mark.parametrize("text", ["", "  ", "# Transformer.n_layers = 6"])
def test_a_binding_that_binds_nothing_is_told(read, text):
    (told,) = sentences(read(bindings=[text]))
    assert told.startswith(f"--gin_bindings: {text!r} binds nothing; write NAME=VALUE")


def test_a_wrong_binding_is_quoted(read):
    (problem,) = sentences(read(bindings=["Transformer.n_layers="]))
    assert problem.startswith("--gin_bindings: 'Transformer.n_layers=': not valid gin: ")


def test_a_bomb_of_macros_does_not_explode(read):
    lines = ["m0 = [1, 1, 1, 1]"]
    lines += [f"m{i} = [%m{i - 1}, %m{i - 1}, %m{i - 1}, %m{i - 1}]" for i in range(1, 15)]
    (problem,) = sentences(read("\n".join([*lines, "Trainer.hooks = %m14"])))
    assert problem.startswith("my.gin:16: Trainer.hooks: is far too large or deep")


def test_a_chain_of_macros_without_end_is_told(read):
    lines = ["m0 = 3", *(f"m{i} = %m{i - 1}" for i in range(1, 3000))]
    problems = sentences(read("\n".join([*lines, "Transformer.n_layers = %m2999"])))
    assert problems[0].startswith("my.gin:3001: Transformer.n_layers: is far too large or deep")


def test_a_file_that_cannot_be_read_does_not_include_itself(folder, read):
    (folder / "bad.gin").write_bytes(b"\xff")
    problems = sentences(read("include 'bad.gin'\ninclude 'bad.gin'\n"))
    assert problems == ["bad.gin:1: is not UTF-8 text"] * 2
