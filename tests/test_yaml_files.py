import pytest

from lm_core.config.statements import Reading
from lm_core.config.yaml_files import read_yaml


@pytest.fixture
def read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def read_content(content):
        path = tmp_path / "my.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        reading = Reading()
        reading.take_from(tmp_path)
        read_yaml(path, reading)
        return reading

    return read_content


def sentences(reading):
    return [finding.text for finding in reading.findings]


def values(reading):
    assert reading.findings == []
    return {statement.key: statement.value for statement in reading.statements}


def test_numbers_are_numbers_as_yaml_1_2_has_them(read):
    content = "learning_rate: 3e-4\nbatch_size: 1e3\nmax_steps: 010\nd_ff: 0x10\ndropout: .5"
    expected = {
        "learning_rate": 3e-4,
        "batch_size": 1000.0,
        "max_steps": 10,
        "d_ff": 16,
        "dropout": 0.5,
    }
    assert values(read(content)) == expected


def test_words_that_yaml_1_1_took_for_something_else_are_texts(read):
    content = "corpus: off\nsampling_prompt: 1:30\ntokenizer: no"
    assert values(read(content)) == {"corpus": "off", "sampling_prompt": "1:30", "tokenizer": "no"}


def test_every_statement_knows_its_line(read):
    reading = read("# comment\n\nn_layers: 6\n\nd_model: 8 # comment\n")
    assert [str(s.source) for s in reading.statements] == ["my.yaml:3", "my.yaml:5"]


def test_nested_values_know_the_line_of_each_path(read):
    reading = read("hooks:\n  forward:\n    - name: a\n      every: 3\n    - {name: b}\n")
    (statement,) = reading.statements
    assert statement.value == {"forward": [{"name": "a", "every": 3}, {"name": "b"}]}
    assert statement.lines["hooks.forward[0].every"] == 4
    assert statement.lines["hooks.forward[1]"] == 5


@pytest.mark.parametrize("content", ["", "\n", "# nothing\n", "---\n", "{}\n", "\ufeff"])
def test_an_empty_file_states_nothing(read, content):
    assert values(read(content)) == {}


def test_null_has_several_spellings(read):
    assert values(read("seed: null\ncorpus:\neval_cadence: ~")) == {
        "seed": None,
        "corpus": None,
        "eval_cadence": None,
    }


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("n_head: 3", "my.yaml:1: n_head: unknown hyperparameter; did you mean n_heads?"),
        ("\n\nzzz: 3", "my.yaml:3: zzz: unknown hyperparameter"),
        (
            "n_layers: 3\nn_layers: 3",
            "my.yaml:2: n_layers: set twice in this file, first in line 1",
        ),
        ("- n_layers", "my.yaml:1: a configuration is a mapping, with lines such as `n_layers: 4`"),
        ("just words", "my.yaml:1: a configuration is a mapping"),
        ("n_layers: [1,", "my.yaml:1: not valid YAML: "),
        ("a: 1\n\tn_layers: 3", "my.yaml:2: not valid YAML: a tab, where only spaces may stand"),
        ("a: 1\nb:\n\t- 3", "my.yaml:3: not valid YAML: a tab, where only spaces may stand"),
        ("seed: 1\nd_model = 3\n", "my.yaml:2: not valid YAML: this line needs a colon"),
        ("d_model = 3\nseed: 1\n", "my.yaml:1: not valid YAML: this line needs a colon"),
        ("d_model:3\nseed: 1\n", "my.yaml:1: not valid YAML: this line needs a colon"),
        ("seed: 1\nd_model 3\nd_ff: 4", "my.yaml:2: not valid YAML: this line needs a colon"),
        ("sampling_prompt: To: be", "my.yaml:1: not valid YAML: a colon too many; a text with"),
        ("seed: 1\n  d_model: 3", "my.yaml:2: not valid YAML: a colon too many; a text with"),
        ("  seed: 1\nd_model: 3", "my.yaml:2: not valid YAML: this line begins further right"),
        ("seed: 1\ncorpus: 'a\nd_ff: 3\n", "my.yaml:2: not valid YAML: a quotation mark that"),
        ("\nhooks: {update: [3,\nd_ff: 3\n", "my.yaml:2: not valid YAML: a bracket that is not"),
        ("n_layers: 1_2", "my.yaml:1: n_layers: '1_2' is no number in YAML 1.2; leave out the _"),
        ("dropout: 0.0_1", "my.yaml:1: dropout: '0.0_1' is no number in YAML 1.2; leave out"),
        ("seed: 1\nd_model", "my.yaml:2: not valid YAML: this line needs a colon"),
        (
            "\nmodel:\n  d_model: 3",
            "my.yaml:2: model: unknown hyperparameter; all of them stand in one list, without",
        ),
        ("train: {lr: 3}", "my.yaml:1: train: unknown hyperparameter; all of them stand in one"),
        ("hook: {forward: []}", "my.yaml:1: hook: unknown hyperparameter; did you mean hooks?"),
        ("n_layers: 3\n---\nn_layers: 4", "my.yaml:2: not valid YAML: a second document"),
        ("%YAML 1.1\n---\nseed: off", "my.yaml:1: a directive with % has no place here"),
        ("n_layers: *x", "my.yaml:1: not valid YAML: found undefined alias 'x'"),
        ("corpus: 2001-01-01", "my.yaml:1: corpus: '2001-01-01' has the YAML type"),
        ("corpus: !!python/name:os.system x", "my.yaml:1: corpus: 'x' has the YAML type"),
        ("hooks: !!set {a}", "my.yaml:1: hooks: has the YAML type"),
        ("hooks: {update: !mine []}", "my.yaml:1: hooks.update: has the YAML type"),
        ("? [1, 2]\n: 3", "my.yaml:1: ?: unknown hyperparameter"),
        ("hooks: {? [1] : 2}", "my.yaml:1: hooks: has a key that is a list or a mapping"),
        ("hooks: {a: 1, a: 2}", "my.yaml:1: hooks.a: set twice in one mapping, first in line 1"),
        ("hooks: &x {a: *x}", "my.yaml:1: hooks: is far too large or deep"),
        ("hooks: " + "[" * 60 + "]" * 60, "my.yaml:1: hooks: is far too large or deep"),
        ("hooks: " + "[" * 5000, "my.yaml:1: not valid YAML: lists and mappings are nested"),
        ("n_layers: " + "9" * 5000, "my.yaml:1: n_layers: '999"),
        ("n_layers: 3\x00", "my.yaml:1: not valid YAML: "),
        ("corpus: 'open", "my.yaml:1: not valid YAML: "),
        ("n_layers: !!bool maybe", "my.yaml:1: n_layers: 'maybe' cannot be read as tag:yaml.org"),
        ("n_layers: !!int ''", "my.yaml:1: n_layers: '' cannot be read as tag:yaml.org"),
        ("dropout: !!float ''", "my.yaml:1: dropout: '' cannot be read as tag:yaml.org"),
        ('corpus: "\\UFFFFFFFF"', "my.yaml: not valid YAML: "),
        ("!mine {n_layers: 3}", "my.yaml:1: a configuration is a mapping"),
        ("<<: {n_layers: 3}", "my.yaml:1: <<: unknown hyperparameter"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(read, content, problem):
    problems = sentences(read(content))
    assert [told for told in problems if told.startswith(problem)], problems


def test_a_bomb_of_aliases_does_not_explode(read):
    lines = ["hooks:", "  a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"  a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 30)]
    assert "far too large" in sentences(read("\n".join(lines)))[0]


def test_a_file_that_is_no_text_is_refused(read):
    with pytest.raises(ValueError, match=r"my.yaml:2: is not UTF-8 text"):
        read(b"n_layers: 3\n# \xff")


def test_a_file_far_too_large_is_refused(read):
    with pytest.raises(ValueError, match="is larger than 200,000 bytes"):
        read(b"#" * 1_000_001)


def test_good_statements_beside_bad_ones_are_kept(read):
    reading = read("n_layer: 3\nd_model: 8\n")
    assert [s.key for s in reading.statements] == ["d_model"]
    assert len(reading.findings) == 1


def test_a_file_inherits_what_it_does_not_state_wherever_it_says_so(tmp_path, read):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.yaml").write_text("extends: ../b.yaml\nd_ff: 8\nn_layers: 3\n")
    (tmp_path / "b.yaml").write_text("dropout: 0.2\nd_ff: 9\n")
    for content in ("extends: deep/a.yaml\nn_layers: 6\n", "n_layers: 6\nextends: deep/a.yaml\n"):
        reading = read(content)
        assert values(reading) == {"dropout": 0.2, "d_ff": 8, "n_layers": 6}
    assert [str(s.source) for s in reading.statements] == [
        "b.yaml:1",
        "b.yaml:2",
        "deep/a.yaml:2",
        "deep/a.yaml:3",
        "my.yaml:1",
    ]


def test_an_empty_file_may_be_extended_and_may_extend(tmp_path, read):
    (tmp_path / "a.yaml").write_text("")
    assert values(read("extends: a.yaml")) == {}


def test_a_circle_shows_the_way_around(tmp_path, read):
    (tmp_path / "a.yaml").write_text("\nextends: b.yaml\n")
    (tmp_path / "b.yaml").write_text("extends: my.yaml\n")
    circle = "my.yaml -> a.yaml -> b.yaml -> my.yaml"
    assert sentences(read("extends: a.yaml")) == [
        f"b.yaml:1: extends: the files extend each other in a circle: {circle}"
    ]
    assert sentences(read("extends: my.yaml")) == [
        "my.yaml:1: extends: the files extend each other in a circle: my.yaml -> my.yaml"
    ]


def test_a_chain_without_end_ends(tmp_path, read):
    for i in range(200):
        (tmp_path / f"{i}.yaml").write_text(f"extends: {i + 1}.yaml\n")
    (told,) = sentences(read("extends: 0.yaml"))
    assert told == "99.yaml: more than 100 files are read for this configuration"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            "extends: base.yml",
            "1: extends: 'base.yml': unknown file; did you mean base.yaml? (looked in",
        ),
        ("extends: bose.yaml", "1: extends: 'bose.yaml': unknown file; did you mean base.yaml?"),
        ("extends: base.gin", "1: extends: 'base.gin' is a gin file; only YAML can be extended"),
        ("extends: [base.yaml]", "1: extends: ['base.yaml'] is no path of a YAML file"),
        ("extends:", "1: extends: null is no path of a YAML file"),
        ("extends: ''", "1: extends: '' is no path of a YAML file"),
        ("extends: 3", "1: extends: 3 is no path of a YAML file"),
        ("extends: .", "1: extends: '.' is not a regular file"),
        (f"extends: {'x' * 5000}", "1: extends: 'xxx"),
        ('extends: "a\\0"', "1: extends: 'a\\x00': "),
        (
            "extends: base.yaml\nextends: base.yaml",
            "2: extends: set twice in this file, first in line 1",
        ),
        ("extend: base.yaml", "1: extend: unknown hyperparameter; did you mean extends?"),
    ],
)
def test_an_extends_that_cannot_work_is_told(tmp_path, read, content, problem):
    (tmp_path / "base.yaml").write_text("n_layers: 6\n")
    (tmp_path / "base.gin").write_text("Transformer.n_layers = 6\n")
    (told,) = sentences(read(content))
    assert told.startswith(f"my.yaml:{problem}")


@pytest.mark.parametrize("place", ["configs", "../configs"])
def test_an_extended_file_that_lies_near_by_is_found_for_the_message(tmp_path, place):
    own = tmp_path / "experiments"
    for folder in (own, own / place):
        folder.mkdir()
    (own / "my.yaml").write_text("extends: base.yaml")
    (own / place / "base.yaml").write_text("n_layers: 6\n")
    reading = Reading()
    read_yaml(own / "my.yaml", reading)
    (told,) = sentences(reading)
    assert f"my.yaml:1: extends: 'base.yaml': unknown file; did you mean {place}/" in told


@pytest.mark.parametrize("name", ["base.yaml", "configs/base.yaml"])
def test_a_file_of_the_labs_is_found_for_the_message_with_its_path(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    library, own = tmp_path / "lab" / "deep" / "configs", tmp_path / "home" / "own"
    for folder in (library, own):
        folder.mkdir(parents=True)
    (library / "base.yaml").write_text("n_layers: 6\n")
    (own / "my.yaml").write_text(f"extends: {name}")
    reading = Reading()
    reading.take_from(library)
    read_yaml(own / "my.yaml", reading)
    assert sentences(reading) == [
        f"home/own/my.yaml:1: extends: {name!r}: unknown file; did you mean "
        "../../lab/deep/configs/base.yaml? (looked in the folder of home/own/my.yaml)"
    ]


def test_what_lies_outside_the_folders_of_the_configuration_is_not_extended(tmp_path, read):
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (outside / "base.yaml").write_text("n_layers: 6\n")
    for name in (str(outside / "base.yaml"), f"../{outside.name}/base.yaml", "link.yaml"):
        (tmp_path / "link.yaml").unlink(missing_ok=True)
        (tmp_path / "link.yaml").symlink_to(outside / "base.yaml")
        reading = read(f"extends: {name}")
        (told,) = sentences(reading)
        assert told.startswith(f"my.yaml:1: extends: {name!r} lies outside the folders")
        assert told.endswith(f"--gin_search_paths={outside} allows its folder")
        assert not reading.is_complete


@pytest.mark.parametrize(
    "content",
    [
        "n_layers: 3\nextends: nope.yaml",
        "- x",
        "n_layers: 3\nd_model 5",
        "extends: [a.yaml]",
        "extends: !x a.yaml",
        "extends: a.yaml\nextends: b.yaml",
        "include: a.yaml",
        "base: a.yaml",
        "extends: [",
    ],
)
def test_a_file_that_cannot_be_read_may_set_anything(tmp_path, read, content):
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text("")
    assert not read(content).is_complete


def test_a_key_that_cannot_be_read_hides_no_other(tmp_path, read):
    (tmp_path / "base.yaml").write_text("d_ff: 8\n")
    reading = read(
        "extends: base.yaml\nn_head: 8\ndropout: [1\nn_layers 3\n# comment\nseed: 'x\nbeta1: 0.5\n"
        "hooks:\n  update:\n    - name: x\n\t- y\nbeta2: 0.6"
    )
    assert [line.partition(": ")[0] for line in sentences(reading)] == [
        "my.yaml:3",
        "my.yaml:4",
        "my.yaml:6",
        "my.yaml:11",
        "my.yaml:2",
    ]
    assert {s.key: (s.value, s.source.line) for s in reading.statements} == {
        "d_ff": (8, 1),
        "beta1": (0.5, 7),
        "beta2": (0.6, 12),
    }
    assert {"dropout", "seed", "hooks"} <= reading.unread


def test_a_value_that_cannot_be_read_is_known_to_be_unknown(read):
    reading = read("n_layers: !x 3\n!y d_ff: 3\nseed: 4\n")
    assert reading.unread == {"n_layers", "d_ff"}
    assert reading.is_complete


def test_what_is_wrong_in_an_extended_file_is_told_with_its_own_line(tmp_path, read):
    (tmp_path / "base.yaml").write_text("n_layers: 6\nn_head: 3\n")
    assert sentences(read("extends: base.yaml\nn_layer: 3")) == [
        "base.yaml:2: n_head: unknown hyperparameter; did you mean n_heads?",
        "my.yaml:2: n_layer: unknown hyperparameter; did you mean n_layers?",
    ]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            "hooks:\n  update:\n    - name: x\n      limit: 1\n      limit: 2\n",
            "my.yaml:5: hooks.update[0].limit: set twice in one mapping, first in line 4",
        ),
        (
            "hooks:\n  update:\n    - name: x\n      limit: 2020-01-01\n",
            "my.yaml:4: hooks.update[0].limit: '2020-01-01' has the YAML type",
        ),
        ("n_layers: 3\n\nseed: \x07", "my.yaml:3: not valid YAML: unacceptable character"),
        (
            "hooks: " + "{a: " * 500,
            "my.yaml: not valid YAML: lists and mappings are nested too deep",
        ),
        ("# c\n\n%YAML 1.1\n---\nn_layers: 3", "my.yaml:3: a directive with % has no place here"),
    ],
)
def test_what_is_wrong_deep_inside_is_told_with_its_own_line(read, content, problem):
    (told,) = sentences(read(content))
    assert told.startswith(problem)


def test_a_percent_sign_inside_a_text_is_no_directive(read):
    assert values(read("n_layers: 3\nsampling_prompt: |\n  %YAML\n")) == {
        "n_layers": 3,
        "sampling_prompt": "%YAML\n",
    }
