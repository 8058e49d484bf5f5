import pytest

from lm_core.reference.constants import (
    Number,
    configurables,
    named_constants,
    numbers_that_decide,
    source_files,
    unnamed_numbers,
)
from lm_core.reference.tables import CONSTRUCTORS, PROJECT

FILES = source_files(PROJECT)
NAMES = [str(path.relative_to(PROJECT)) for path in FILES]


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_no_number_in_the_code_could_be_a_hyperparameter(path):
    assert unnamed_numbers(path.read_text(), path.name) == []


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_every_named_constant_says_why_it_is_what_it_is(path):
    for constant in named_constants(path.read_text(), path.name):
        assert len(constant.reason.split()) > 3, constant


def test_the_entry_point_and_the_wiring_are_among_the_files():
    assert {"run.py", "lm_core/experiment.py", "lm_core/assembly.py"} <= set(NAMES)


# What hands on what others configured, and what does with it what it was told.
WIRING = [
    "run.py",
    *(
        f"lm_core/{name}.py"
        for name in (
            "assembly",
            "command_line",
            "evaluation",
            "examination",
            "experiment",
            "inspection",
            "manifest",
            "planning",
            "recorded_config",
            "request",
            "resumption",
            "sampling",
            "training/adamw",
            "training/optimizer",
            "training/recorder",
            "training/restoring",
            "training/trainer",
        )
    ),
]
# Every number that has a name there. None of them changes what a run learns, but for AdamW's
# epsilon, on which the field agrees. One that does belongs into the table of hyperparameters.
NAMED_IN_THE_WIRING = {
    "DONE",
    "_DRAWN_STEPS",
    "HELP_INDENT",
    "HELP_WIDTH",
    "INTERRUPTED",
    "WORDS_OF_MODE",
    "_ANY_VOCABULARY",
    "_ARITHMETIC",
    "_EPSILON",
    "_GIT_TIMEOUT_SECONDS",
    "_LARGEST_HISTORY_BYTES",
    "_LONGEST_HISTORY",
    "_MATRIX_DIMENSIONS",
    "_MEASURED_SECONDS",
    "_MEASURED_STEPS",
    "_MEASURED_TOKENS",
    "_MEASURED_WINDOWS",
    "_MEBIBYTE",
    "_MOST_LAYERS",
    "_ONE_BLOCK",
    "_ONE_UPDATE",
    "_SHOWN_DIGITS",
    "_NO_DECAY",
    "_PROBE_DIGITS",
    "_PROBE_SEED",
    "_PROBE_SHAPE",
    "_SECONDS_BETWEEN_FLUSHES",
    "_TOKENS_A_BATCH",
    "_TYPICAL_PROGRAM",
    "_WHOLE",
}


@pytest.mark.parametrize("name", WIRING)
def test_the_entry_point_and_the_wiring_hold_no_number_that_decides_anything(name):
    source = (PROJECT / name).read_text()
    assert numbers_that_decide(source, name) == []
    assert {constant.name for constant in named_constants(source, name)} <= NAMED_IN_THE_WIRING


def test_every_name_that_the_wiring_may_have_for_a_number_is_there():
    sources = [(PROJECT / name).read_text() for name in WIRING]
    found = {c.name for source in sources for c in named_constants(source, "x.py")}
    assert found == NAMED_IN_THE_WIRING


@pytest.mark.parametrize(
    "source",
    [
        "Transformer(vocab_size, n_layers=2)",
        "clip(parameters, 1.0)",
        "Sampler(model, temperature=0)",
        "train(steps=n * 3)",
        "build([1, 2])",
        "build(*(1 if x else y,))",
        "build(int('500'))",
        "build(-1)",
        "n_layers = 2",
        "trainer.warmup = 2",
        "trainer.clip = 1.0",
        "def train(request, n_extra: int = 2): ...",
        "def train(request, *, n_extra=0): ...",
        "more = {'dropout': 1.0}",
        "(loss * 2).backward()",
        "loss = loss / 3",
        "def rate(): return 1",
        "rate = 1 if x else y",
        "for step in range(3): ...",
        "if step % 2: ...",
        "x = y + 2",
        "x = y - 1.0",
        "split(tokens, 0.5)",
        "tokens.split(3)",
        "if batch_size > 2: ...",
        "if loss > 1.5: ...",
    ],
)
def test_a_number_planted_in_the_wiring_is_found_however_small(source):
    assert numbers_that_decide(source, "x.py")


@pytest.mark.parametrize(
    "source",
    [
        "text.split(':', 1)",
        "json.dumps(x, indent=2)",
        "f(x[0])",
        "f(x, 'a')",
        "f(True)",
        "x = y if z else 0",
        "x = len(y) - 1",
        "if len(x) > 1: ...",
        "LIMIT = 3",
        "@gin.configurable\ndef f(x: int = 3): ...",
    ],
)
def test_what_is_a_mere_count_is_left_alone(source):
    assert numbers_that_decide(source, "x.py") == []


def test_whatever_gin_knows_has_its_arguments_in_the_table():
    # tests/test_binding.py compares their arguments with the table.
    known = {constructor.__name__ for constructor in CONSTRUCTORS.values()}
    assert known == {name for path in FILES for name in configurables(path.read_text())}


@pytest.mark.parametrize(
    "source",
    [
        "f(x, '1000')",
        "optimizer(lr=0.0003)",
        "def build(d_model=256): ...",
        "class Model:\n    width = 256",
        "for step in range(1000): ...",
        "train(steps=10_000 if x else y)",
        "rate = 0.1",
        "@decorated\ndef f(x: int = 64): ...",
        "f(-5)",
        "x = tokens[: 0.95]",
        "class Hyperparameters:\n    def f(self): return 77",
        "@gin.configurable\ndef f(x: int = 64):\n    return x * 12",
        "f(4j)",
        "n = 1.5",
        "clip(parameters, 1.0)",
    ],
)
def test_a_planted_number_is_found(source):
    assert len(unnamed_numbers(source, "x.py")) == 1


@pytest.mark.parametrize(
    "source",
    [
        "WIDTH = 256",
        "_LIMITS: tuple[int, ...] = (5, 6)",
        "x = y[3] + 2 * z - 1 if w > 0.0 else 1",
        "@gin.configurable(denylist=['a'])\ndef f(a, x: int = 64): ...",
        "@gin.configurable\nclass Model:\n    def __init__(self, x=64): ...",
        "@forward_hook('x')\nclass Hook:\n    def __init__(self, every: int = 100): ...",
        "class Hyperparameters:\n    x: int = field(77)",
        "'256 bytes'",
        "True",
    ],
)
def test_what_has_a_name_or_a_table_is_left_alone(source):
    assert unnamed_numbers(source, "x.py") == []


def test_a_number_is_told_with_its_place():
    assert unnamed_numbers("\nf(12)", "x.py") == [Number("x.py", 2, "12")]


def test_a_constant_has_the_comment_above_it():
    source = "# One\n# reason.\nWIDTH = 2 * 3\n\nDEPTH = 7\nname = 'a'\nFIRST = sizes[0]\n"
    width, depth = named_constants(source, "x.py")
    assert width == ("x.py", "WIDTH", "2 * 3", "One reason.")
    assert depth.reason == ""
