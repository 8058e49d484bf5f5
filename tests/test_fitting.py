import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_core.config.hyperparameters import broken_rules
from lm_core.config.training_config import TrainingConfig
from lm_core.search.fitting import fitting_values
from lm_core.search.space import Choice, Range

DEFAULTS = TrainingConfig().to_dict()


def chosen(space, unknown=(), **values):
    return fitting_values(space, DEFAULTS | values, unknown)


def test_the_first_values_stand_for_all_where_they_fit():
    assert chosen({"n_layers": Choice((3, 2)), "dropout": Range(0.1, 0.2)}) == {
        "n_layers": 3,
        "dropout": 0.1,
    }


@pytest.mark.parametrize("options", [(3, 2), (2, 3)])
def test_the_order_of_the_options_does_not_decide_whether_there_are_some_that_fit(options):
    assert chosen({"n_heads": Choice(options)}, d_model=16) == {"n_heads": 2}


def test_only_what_is_at_odds_is_changed():
    space = {"n_layers": Choice((3, 2)), "n_heads": Choice((3, 5, 4)), "beta1": Range(0.1, 0.2)}
    assert chosen(space, d_model=16) == {"n_layers": 3, "n_heads": 4, "beta1": 0.1}


def test_a_rule_that_looks_at_a_third_value_is_kept_too():
    space = {"n_heads": Choice((16,)), "position": Choice(("rope", "learned"))}
    assert chosen(space, d_model=16) == {"n_heads": 16, "position": "learned"}


def test_where_none_fits_the_first_are_given_soon():
    space = {"n_heads": Choice((3, 5)), "d_ff": Range(1, 10**6, is_integer=True)}
    assert chosen(space, d_model=16) == {"n_heads": 3, "d_ff": 1}


def test_a_value_that_nobody_knows_breaks_no_rule():
    assert chosen({"n_heads": Choice((3, 2))}, unknown={"d_model"}, d_model=16) == {"n_heads": 3}


@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=4, unique=True),
    st.lists(st.integers(2, 40), min_size=1, max_size=4, unique=True),
)
def test_what_fits_is_found_if_there_is_any(heads, widths):
    space = {"n_heads": Choice(tuple(heads)), "d_model": Choice(tuple(widths))}
    found = DEFAULTS | chosen(space)
    is_any = any(width % n == 0 for width in widths for n in heads)
    assert bool(broken_rules(found)) != is_any
