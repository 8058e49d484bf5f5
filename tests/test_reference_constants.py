import pytest

from lm_core.reference.constants import Number, named_constants, source_files, unnamed_numbers
from lm_core.reference.tables import PROJECT

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


@pytest.mark.parametrize(
    "source",
    [
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
    ],
)
def test_a_planted_number_is_found(source):
    assert len(unnamed_numbers(source, "x.py")) == 1


@pytest.mark.parametrize(
    "source",
    [
        "WIDTH = 256",
        "_LIMITS: tuple[int, ...] = (5, 6)",
        "x = y[3] + 2 * z - 1 if w > 0.0 else 1.0",
        "@gin.configurable(denylist=['a'])\ndef f(a, x: int = 64): ...",
        "@gin.configurable\nclass Model:\n    def __init__(self, x=64): ...",
        "@forward_hook('x')\nclass Hook:\n    def __init__(self, every: int = 100): ...",
        "class Hyperparameters:\n    x: int = field(77)",
        "'256'",
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
