"""Every mistake in a configuration is one exact sentence, whatever the source."""

import contextlib

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lm_core.errors import InputError
from tests.config_sources import problems, sources

COUNT = "(allowed: an integer from 1 to 2147483647)"
STEPS = "(allowed: an integer from 1 to 99999999)"
SHARE = "(allowed: a number from 0 to below 1)"
STEPS_OR_NULL = "(allowed: an integer from 1 to 99999999, or null)"
POSITIVE = "(allowed: a number greater than 0)"
SEED = "(allowed: an integer from 0 to 9223372036854775807, or null)"
TEXT = "(allowed: a text, not empty)"
TOP_P = "(allowed: a number greater than 0 and at most 1, or null)"
PART = "(allowed: a number greater than 0 and below 1)"
NOT_NEGATIVE = "(allowed: a number of at least 0)"
KIND = "(allowed: ascii, char, byte or bpe)"
NO_CODE = "a configuration may run no code of its own"
NO_SCOPE = "a scope has no place here: one run has one value for each hyperparameter"
REFERENCE = "is a reference; a hyperparameter takes a plain value"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("n_head: 3", "1: n_head: unknown hyperparameter; did you mean n_heads?"),
        ("N_LAYERS: 3", "1: N_LAYERS: unknown hyperparameter; did you mean n_layers?"),
        ("n_layers: 0", f"1: n_layers: 0 is less than 1 {COUNT}"),
        ("n_layers: -1", f"1: n_layers: -1 is less than 1 {COUNT}"),
        ("n_layers: 1.5", f"1: n_layers: 1.5 is no integer {COUNT}"),
        ("n_layers: six", f"1: n_layers: 'six' is a text {COUNT}"),
        ("n_layers: '6'", f"1: n_layers: '6' is a text {COUNT}"),
        ("n_layers: 1:30", f"1: n_layers: '1:30' is a text {COUNT}"),
        ("n_layers: true", f"1: n_layers: true is a truth value {COUNT}"),
        ("n_layers:", f"1: n_layers: null is no value {COUNT}"),
        ("n_layers: [6]", f"1: n_layers: [6] is a list {COUNT}"),
        ("n_layers: {a: 6}", f"1: n_layers: {{'a': 6}} is a mapping {COUNT}"),
        ("batch_size: 1e4", f"1: batch_size: 10000.0 is no integer, write 10000 {COUNT}"),
        (
            "\nmax_steps: 1000000000",
            f"2: max_steps: 1000000000 is greater than 99999999 {STEPS}",
        ),
        ("dropout: 1.5", f"1: dropout: 1.5 is not less than 1 {SHARE}"),
        ("dropout: off", f"1: dropout: 'off' is a text {SHARE}"),
        ("dropout: .nan", f"1: dropout: nan is not finite {SHARE}"),
        (
            "learning_rate: 0",
            "1: learning_rate: 0 is not greater than 0 (allowed: a number greater than 0)",
        ),
        (
            "learning_rate: 1e400",
            "1: learning_rate: inf is not finite (allowed: a number greater than 0)",
        ),
        (
            "train_ratio: 1.0",
            "1: train_ratio: 1.0 is not less than 1 (allowed: a number greater than 0 and below 1)",
        ),
        (
            "seed: -1",
            "1: seed: -1 is less than 0 "
            "(allowed: an integer from 0 to 9223372036854775807, or null)",
        ),
        (
            "tokenizer: Byte",
            "1: tokenizer: 'Byte' is an unknown tokenizer; did you mean byte? "
            "(allowed: ascii, char, byte or bpe)",
        ),
        ("corpus: ''", "1: corpus: '' is empty (allowed: a text, not empty, or null)"),
        ("sampling_prompt: ''", "1: sampling_prompt: '' is empty (allowed: a text, not empty)"),
        (
            "sampling_prompt: off\nsampling_prompt: on",
            "2: sampling_prompt: set twice in this file, first in line 1",
        ),
        (
            "corpus: 2001-01-01",
            "1: corpus: '2001-01-01' has the YAML type tag:yaml.org,2002:timestamp; "
            "quote it if a text is meant",
        ),
        ("n_layers: !!int x", "1: n_layers: 'x' cannot be read as tag:yaml.org,2002:int"),
        ("- n_layers", "1: a configuration is a mapping, with lines such as `n_layers: 4`"),
        ("n_layers: *x", "1: not valid YAML: found undefined alias 'x'"),
        (
            "hooks: {foward: []}",
            "1: hooks.foward: unknown kind of hook; did you mean forward? "
            "(there are forward and update)",
        ),
        ("hooks: {update: 3}", "1: hooks.update: 3 is not a list"),
        ("hooks:\n  update:\n    - every: 3", "3: hooks.update[0].name: is missing"),
        (
            "sampling_prompt: 12",
            "1: sampling_prompt: 12 is an integer (allowed: a text, not empty)",
        ),
        ("corpus: 1e3", "1: corpus: 1000.0 is a number (allowed: a text, not empty, or null)"),
        ("d_model: 0", f"1: d_model: 0 is less than 1 {COUNT}"),
        ("d_model: 2147483648", f"1: d_model: 2147483648 is greater than 2147483647 {COUNT}"),
        ("n_heads: 2.0", f"1: n_heads: 2.0 is no integer, write 2 {COUNT}"),
        ("d_ff: .inf", f"1: d_ff: inf is no integer {COUNT}"),
        ("dropout: -0.1", f"1: dropout: -0.1 is less than 0 {SHARE}"),
        ("dropout: 1", f"1: dropout: 1 is not less than 1 {SHARE}"),
        ("dropout: null", f"1: dropout: null is no value {SHARE}"),
        ("max_seq_len: 1e400", f"1: max_seq_len: inf is no integer {COUNT}"),
        ("batch_size: []", f"1: batch_size: [] is a list {COUNT}"),
        ("learning_rate: -3e-4", f"1: learning_rate: -0.0003 is not greater than 0 {POSITIVE}"),
        ("learning_rate: 3e-4s", f"1: learning_rate: '3e-4s' is a text {POSITIVE}"),
        ("weight_decay: -1", f"1: weight_decay: -1 is less than 0 {NOT_NEGATIVE}"),
        ("weight_decay: true", f"1: weight_decay: true is a truth value {NOT_NEGATIVE}"),
        ("beta1: 1.0", f"1: beta1: 1.0 is not less than 1 {SHARE}"),
        ("beta2: -.inf", f"1: beta2: -inf is not finite {SHARE}"),
        ("beta2: 1", f"1: beta2: 1 is not less than 1 {SHARE}"),
        ("seed: 1.5", f"1: seed: 1.5 is no integer {SEED}"),
        (
            "seed: 9223372036854775808",
            f"1: seed: 9223372036854775808 is greater than 9223372036854775807 {SEED}",
        ),
        ("eval_cadence: 0", f"1: eval_cadence: 0 is less than 1 {STEPS_OR_NULL}"),
        ("eval_cadence: never", f"1: eval_cadence: 'never' is a text {STEPS_OR_NULL}"),
        (
            "sampling_cadence: 100000000",
            f"1: sampling_cadence: 100000000 is greater than 99999999 {STEPS_OR_NULL}",
        ),
        (
            "sampling_temperature: -0.5",
            f"1: sampling_temperature: -0.5 is less than 0 {NOT_NEGATIVE}",
        ),
        ("sampling_prompt: 3", f"1: sampling_prompt: 3 is an integer {TEXT}"),
        ("sampling_prompt: null", f"1: sampling_prompt: null is no value {TEXT}"),
        ("sampling_max_length: 0", f"1: sampling_max_length: 0 is less than 1 {COUNT}"),
        (
            "sampling_seed: null",
            "1: sampling_seed: null is no value "
            "(allowed: an integer from 0 to 9223372036854775807)",
        ),
        (
            "sampling_top_k: 0",
            "1: sampling_top_k: 0 is less than 1 (allowed: an integer of at least 1, or null)",
        ),
        ("sampling_top_p: 0", f"1: sampling_top_p: 0 is not greater than 0 {TOP_P}"),
        ("sampling_top_p: 1.1", f"1: sampling_top_p: 1.1 is greater than 1 {TOP_P}"),
        (
            "checkpoint_cadence: 1000.5",
            f"1: checkpoint_cadence: 1000.5 is no integer {STEPS_OR_NULL}",
        ),
        ("checkpoint_cadence: yes", f"1: checkpoint_cadence: 'yes' is a text {STEPS_OR_NULL}"),
        ("tokenizer: null", f"1: tokenizer: null is an unknown tokenizer {KIND}"),
        ("tokenizer: gpt2", f"1: tokenizer: 'gpt2' is an unknown tokenizer {KIND}"),
        ("train_ratio: 0", f"1: train_ratio: 0 is not greater than 0 {PART}"),
        ("train_ratio: 95%", f"1: train_ratio: '95%' is a text {PART}"),
        ("corpus: 3", "1: corpus: 3 is an integer (allowed: a text, not empty, or null)"),
        (
            "hooks: none",
            "1: hooks: 'none' is a text "
            "(allowed: a mapping with the keys forward and update, or null)",
        ),
        ("hooks: {forward: {}}", "1: hooks.forward: {} is not a list"),
        ("hooks: {update: [{name: 3}]}", "1: hooks.update[0].name: 3 is not a text"),
        (
            "hooks: {update: [{name: identity, enabled: 1}]}",
            "1: hooks.update[0].enabled: 1 is not true or false",
        ),
        ("lr: 1e-3", "1: lr: unknown hyperparameter; did you mean learning_rate?"),
        (
            "Transformer.n_layers: 6",
            "1: Transformer.n_layers: unknown hyperparameter; did you mean n_layers?",
        ),
        ("max_step: 5", "1: max_step: unknown hyperparameter; did you mean max_steps?"),
        (
            "temperature: 0.7",
            "1: temperature: unknown hyperparameter; did you mean sampling_temperature?",
        ),
        ("kind: byte", "1: kind: unknown hyperparameter; did you mean tokenizer?"),
        ("path: a.txt", "1: path: unknown hyperparameter; did you mean corpus?"),
        (
            "Sampler.top_k: 5",
            "1: Sampler.top_k: unknown hyperparameter; did you mean sampling_top_k?",
        ),
        ("include: default.yaml", "1: include: unknown hyperparameter; did you mean extends?"),
    ],
)
def test_each_mistake_in_a_yaml_file_is_one_exact_sentence(folder, content, sentence):
    (folder / "my.yaml").write_text(content)
    assert problems(files=["my.yaml"]) == [f"my.yaml:{sentence}"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("Transformer.n_layers = 0", f"Transformer.n_layers: 0 is less than 1 {COUNT}"),
        ("Transformer.n_layers = 'six'", f"Transformer.n_layers: 'six' is a text {COUNT}"),
        ("Transformer.n_layers = (6,)", f"Transformer.n_layers: [6] is a list {COUNT}"),
        ("Transformer.n_layers = 6j", f"Transformer.n_layers: 6j is a complex {COUNT}"),
        ("Transformer.dropout = 1e400", f"Transformer.dropout: inf is not finite {SHARE}"),
        ("Trainer.max_steps = 1e3", f"Trainer.max_steps: 1000.0 is no integer, write 1000 {STEPS}"),
        (
            "Sampler.temprature = 1",
            "Sampler.temprature: unknown parameter; did you mean Sampler.temperature?",
        ),
        (
            "Trainer.dropout = 6",
            "Trainer.dropout: unknown parameter; did you mean Transformer.dropout?",
        ),
        (
            "Trainer.sampling_seed = 6",
            "Trainer.sampling_seed: unknown parameter; did you mean Sampler.seed?",
        ),
        (
            "temperature = 6",
            "temperature: a macro that nothing uses; did you mean Sampler.temperature?",
        ),
        ("Block.size = 6", "Block.size: unknown parameter"),
        ("lm_core.Sampler.seed = 1", "lm_core.Sampler.seed: unknown parameter; write Sampler.seed"),
        (
            "Transformer.vocab_size = 6",
            "Transformer.vocab_size: is not a hyperparameter: "
            "the program itself gives it a value when it runs; did you mean Tokenizer.vocab_size?",
        ),
        (
            "a/b/Transformer.n_layers = 6",
            f"a/b/Transformer.n_layers: {NO_SCOPE}; write Transformer.n_layers",
        ),
        ("Trainer.seed = @Sampler()", f"Trainer.seed: @Sampler() {REFERENCE}"),
        ("Trainer.hooks = {'update': [@a/x]}", f"Trainer.hooks: @a/x {REFERENCE}"),
        ("Trainer.seed = %sede", "Trainer.seed: %sede: unknown macro"),
        ("n_layers = 6", "n_layers: a macro that nothing uses; did you mean Transformer.n_layers?"),
        ("nothing = 6", "nothing: a macro that nothing uses"),
        ("import os", f"import os: {NO_CODE}; --allow_gin_import=os allows this module"),
        ("Trainer.hooks = {'update': [{}]}", "Trainer.hooks.update[0].name: is missing"),
    ],
)
def test_each_mistake_in_gin_is_the_same_sentence_in_a_file_and_in_a_binding(
    folder, text, sentence
):
    (folder / "my.gin").write_text(text)
    line = text.count("\n") + 1
    assert problems(files=["my.gin"]) == [f"my.gin:{line}: {sentence}"]
    assert problems(bindings=[text]) == [f"--gin_bindings: {sentence}"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("Trainer.seed=null", "Trainer.seed: null is YAML; gin has None"),
        ("load_corpus.path=null", "load_corpus.path: null is YAML; gin has None"),
        ("Trainer.hooks=false", "Trainer.hooks: false is YAML; gin has False"),
        ("a/Transformer.n_layer=3", f"a/Transformer.n_layer: {NO_SCOPE}"),
        ("Trainer/seed=3", f"Trainer/seed: {NO_SCOPE}"),
        ("Trainer.run_dir='x'", "Trainer.run_dir: unknown parameter"),
        (
            "lm_core.Transformer.vocab_size=3",
            "lm_core.Transformer.vocab_size: is not a hyperparameter: "
            "the program itself gives it a value when it runs; did you mean Tokenizer.vocab_size?",
        ),
    ],
)
def test_advice_that_would_not_work_is_not_given(folder, text, sentence):
    assert problems(bindings=[text]) == [f"--gin_bindings: {sentence}"]


def test_a_file_given_twice_tells_its_mistakes_once(folder):
    (folder / "my.yaml").write_text("n_layer: 3\n")
    assert len(problems(files=["my.yaml", "my.yaml"])) == 1


def test_a_prompt_that_the_tokenizer_does_not_take_is_told_before_anything_is_built(folder):
    (folder / "my.yaml").write_text("sampling_prompt: é\n")
    assert problems(files=["my.yaml"]) == [
        "sampling_prompt 'é' (my.yaml:1) has characters unknown to tokenizer 'ascii' (default)"
    ]


def test_a_mistake_in_a_macro_tells_where_the_macro_stands(folder):
    (folder / "my.gin").write_text("a = None\nTrainer.max_steps = %a")
    told = f"Trainer.max_steps: null is no value {STEPS}"
    assert problems(files=["my.gin"]) == [f"my.gin:2 (%a from my.gin:1): {told}"]
    (folder / "my.gin").write_text("b = 2\n\nTrainer.max_steps = %a")
    given = {"files": ["my.gin"], "bindings": ["a = %b", "b = 0"]}
    told = f"Trainer.max_steps: 0 is less than 1 {STEPS}"
    place = "my.gin:3 (%a from --gin_bindings, %b from --gin_bindings)"
    assert problems(**given) == [f"{place}: {told}"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "Transformer.n_layers=",
            "there is no value after the =, or its quotation mark is not closed",
        ),
        ("Transformer.n_layers 3 = 4", "a line is NAME = VALUE, as in `Transformer.n_layers = 4`"),
        (
            "Trainer.learning_rate=0,001",
            "more follows after the value; a text needs quotes, a fraction a point, "
            "a further statement its own line or flag",
        ),
        ("'Transformer.n_layers=6'", "a line begins with a name, as in `Transformer.n_layers = 4`"),
        ("Transformer. n_layers=6", "the name holds a space, or a sign that no name has"),
        ("Trainer.seed = -null", "'-null' is no value; a text needs quotes"),
    ],
)
def test_a_binding_that_is_no_gin_is_quoted_with_the_reason(folder, text, reason):
    assert problems(bindings=[text]) == [f"--gin_bindings: {text!r}: not valid gin: {reason}"]


@pytest.mark.parametrize(
    ("flag", "value", "sentence"),
    [
        ("max_steps", 0, f"--max_steps: 0 is less than 1 {STEPS}"),
        ("max_steps", 10**8, f"--max_steps: 100000000 is greater than 99999999 {STEPS}"),
        ("corpus", "", "--corpus: '' is empty (allowed: a text, not empty, or null)"),
        ("corpus", "\ud800", "--corpus: holds half of a surrogate pair, which is no character"),
    ],
)
def test_each_mistake_in_a_flag_is_one_exact_sentence(folder, flag, value, sentence):
    assert problems(**{flag: value}) == [sentence]


def test_a_wrong_record_of_a_run_is_told_like_any_other_file(folder):
    (folder / "config.yaml").write_text("n_layers: 0\n")
    assert problems(base=folder / "config.yaml", max_steps=0) == [
        f"config.yaml:1: n_layers: 0 is less than 1 {COUNT}",
        f"--max_steps: 0 is less than 1 {STEPS}",
    ]


def test_a_rejected_value_breaks_no_rule_besides(folder):
    (folder / "my.yaml").write_text("d_model: 250\nn_heads: 5\n")
    assert problems(files=["my.yaml"], bindings=["Transformer.n_heads=0"]) == [
        f"--gin_bindings: Transformer.n_heads: 0 is less than 1 {COUNT}"
    ]


WORDS = [" ", "\n", "\t", "'", '"', "#", "|", "{", "}", "[", "]", "(", ")", ",", "-", "/", "=", ":"]


NAMES = ["hooks", "n_layers", "Trainer.hooks", "Sampler.prompt", "a", "%a", "@a", "&b", "*b"]


VALUES = [
    "!!int",
    "!!bool",
    "!!x",
    "1",
    "1e400",
    ".nan",
    "\\UFFFFFFFF",
    "\\ud800",
    "include",
    "import",
]


pieces = st.sampled_from([*WORDS, *NAMES, *VALUES])


anything = st.lists(pieces, max_size=12).map("".join) | st.text(max_size=20)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=anything)
@example("n_layers: !!bool maybe")
@example("n_layers: !!int ''")
@example('sampling_prompt: "\\UFFFFFFFF"')
@example("Trainer.hooks = {(1, 2): 3}")
def test_whatever_is_written_the_answer_is_a_configuration_or_a_message(folder, content):
    for name in ("my.yaml", "my.gin"):
        (folder / name).write_text(content, encoding="utf-8", errors="replace")
        with contextlib.suppress(InputError):
            sources(files=[name])
    with contextlib.suppress(InputError):
        sources(bindings=[content])


def test_a_bare_word_on_the_command_line_is_a_text_and_told_as_one(folder):
    assert problems(bindings=["Transformer.n_layers=six"]) == [
        f"--gin_bindings: Transformer.n_layers: 'six' is a text {COUNT}"
    ]
