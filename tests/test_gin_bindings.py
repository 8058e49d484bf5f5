"""Gin on the command line, where a shell has eaten the quotes."""

import pytest

from lm_core.config.gin_files import GinReader
from lm_core.config.statements import Reading


def read(binding):
    reading = Reading()
    reader = GinReader(reading, [])
    reader.read_binding(binding, "--gin_bindings")
    reader.resolve_macros()
    return reading


def sentences(reading):
    return [finding.text for finding in reading.findings]


def values(reading):
    assert reading.findings == []
    return {statement.key: statement.value for statement in reading.statements}


@pytest.mark.parametrize(
    ("binding", "value"),
    [
        ("Tokenizer.kind=byte", {"tokenizer": "byte"}),
        ("load_corpus.path=my-text.txt", {"corpus": "my-text.txt"}),
        ("load_corpus.path=~/data/*.txt", {"corpus": "~/data/*.txt"}),
        ("load_corpus.path=None", {"corpus": None}),
        ("Sampler.prompt=true", {"sampling_prompt": "true"}),
        ("Sampler.prompt=Once", {"sampling_prompt": "Once"}),
        ("Sampler.prompt=null", {"sampling_prompt": "null"}),
        ("Sampler.prompt=\u6f22", {"sampling_prompt": "\u6f22"}),
        ("load_corpus.path=*.txt", {"corpus": "*.txt"}),
        ("load_corpus.path=2024/a.txt", {"corpus": "2024/a.txt"}),
        ("load_corpus.path=a#b", {"corpus": "a#b"}),
        (" load_corpus.path = a.txt ", {"corpus": "a.txt"}),
        ("Sampler.prompt='a b'", {"sampling_prompt": "a b"}),
        ("Trainer.seed=3", {"seed": 3}),
    ],
)
def test_a_text_of_one_word_needs_no_quotes_on_the_command_line(binding, value):
    assert values(read(binding)) == value


@pytest.mark.parametrize(
    ("binding", "told"),
    [
        ("Tokeniser.kind=byte", "Tokeniser.kind: unknown parameter; did you mean Tokenizer.kind?"),
        ("kind=byte", "kind: a macro that nothing uses; did you mean Tokenizer.kind?"),
        ("load_corpus.path=a b", "'load_corpus.path=a b': not valid gin: 'a' is no value"),
        ("load_corpus.path=null", "load_corpus.path: null is YAML; gin has None"),
        ("Trainer.seed=a.b", "'Trainer.seed=a.b': not valid gin: 'a' is no value; a text needs"),
    ],
)
def test_a_bare_word_is_told_for_what_is_wrong_with_it(binding, told):
    (sentence,) = sentences(read(binding))
    assert sentence.startswith(f"--gin_bindings: {told}")
