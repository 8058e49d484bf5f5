import pytest

from lm_core.config.gin_macros import Macros, UnknownMacroError
from lm_core.config.gin_syntax import Macro, Reference
from lm_core.config.statements import Source
from lm_core.errors import InputError

HERE = Source("my.gin", 1)


def macros(**definitions):
    made = Macros()
    for name, value in definitions.items():
        made.define(name, value, HERE)
    return made


def test_a_value_holds_the_values_of_its_macros_and_where_they_were_set():
    made = macros(a=[1, Macro("b")], b=2)
    value, used = made.resolve({"x": Macro("a"), "y": (3,)})
    assert value == {"x": [1, 2], "y": [3]}
    assert used == "%a from my.gin:1, %b from my.gin:1"


def test_the_later_definition_wins_and_the_earlier_one_is_kept_to_be_checked():
    made = macros(a=1)
    made.define("a", 2, Source("--gin_bindings"))
    assert made.resolve(Macro("a"))[0] == 2
    assert list(made.overridden()) == []
    made = macros(a=Macro("nope"))
    made.define("a", 2, Source("--gin_bindings"))
    ((name, source, error),) = made.overridden()
    assert (name, source, error.name) == ("a", HERE, "nope")


def test_what_nothing_uses_is_known():
    made = macros(a=Macro("b"), b=1, c=2, d=3)
    made.use([Macro("a")])
    made.use({"x": Macro("d")})
    assert [name for name, _ in made.unused()] == ["c"]


def test_an_unknown_macro_is_told_with_the_nearest_name():
    with pytest.raises(UnknownMacroError, match="%wdth: unknown macro; did you mean width"):
        macros(width=1).resolve(Macro("wdth"))
    with pytest.raises(UnknownMacroError, match="%x, in the value of %width: unknown macro"):
        macros(width=Macro("x")).resolve(Macro("width"))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Macro("loop"), "%loop is defined by itself"),
        (Reference("@f()"), "@f() is a reference"),
        ({Macro("list"): 1}, "[1] is no name"),
        ({Macro("text"): 1, "x": 2}, "'x' is set twice"),
        ([Macro("text")] * 20_000, "is far too large or deep"),
        ([Macro("long")] * 11, "is far too large or deep"),
    ],
)
def test_what_has_no_plain_value_is_told(value, message):
    made = macros(loop=Macro("loop"), list=[1], text="x", long="x" * 100_000)
    with pytest.raises(InputError) as error:
        made.resolve(value)
    assert error.value.message.startswith(message)


def test_nested_macros_that_make_a_bomb_are_stopped_at_once():
    bomb = {f"x{i}": [Macro(f"x{i + 1}")] * 10 for i in range(30)}
    with pytest.raises(InputError, match="far too large"):
        macros(**bomb, x30=1).resolve(Macro("x0"))
