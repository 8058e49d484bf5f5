import pytest

from lm_core.errors import InputError
from lm_core.search.study import require_same_study
from tests.small_studies import BASE, SPACE, study


def differences(folder, before, after, **given):
    """What is told when a study takes the place of another."""
    recorded = study(folder, before).definition()
    with pytest.raises(InputError) as error:
        require_same_study(recorded, study(folder, after, **given), "studies/my holds")
    first, *lines = error.value.message.splitlines()
    assert first == "studies/my holds another study; --run_dir names another folder:"
    return [line.strip() for line in lines]


def test_the_same_study_is_the_same(folder):
    one = study(folder)
    require_same_study(one.definition(), one, "here")


@pytest.mark.parametrize("line", ["trials: 50", "seeds_for_best: 9"])
def test_more_trials_and_seeds_make_no_other_study(folder, line):
    recorded = study(folder).definition()
    require_same_study(recorded, study(folder, f"{BASE}{SPACE}{line}\n"), "here")


def test_the_value_below_a_searched_key_makes_no_other_study(folder):
    (folder / "below.yaml").write_text("learning_rate: 0.5\n")
    recorded = study(folder, f"extends: below.yaml\n{BASE}{SPACE}").definition()
    require_same_study(recorded, study(folder), "here")


def test_everything_that_differs_is_told_with_its_place(folder):
    after = (
        BASE.replace("7", "8")
        + "sampler: random\nd_model: 64\nsearch:\n  learning_rate: {log_uniform: [1e-4, 1]}\n"
        "  n_layers: {choice: [1, 2]}\n"
    )
    assert differences(folder, BASE + SPACE, after) == [
        "d_model: 256 there, 64 now (my.yaml:5)",
        "seed: 7 there, 8 now (my.yaml:1)",
        'search.learning_rate: {"log_uniform": [0.0001, 0.1]} there, '
        '{"log_uniform": [0.0001, 1.0]} now (my.yaml:7)',
        'search.dropout: {"uniform": [0.0, 0.5]} there, not searched now (my.yaml:6)',
        'search.n_layers: not searched there, {"choice": [1, 2]} now (my.yaml:8)',
        "sampler: 'tpe' there, 'random' now (my.yaml:4)",
    ]


def test_a_flag_that_makes_another_study_is_told(folder):
    (told,) = differences(folder, BASE + SPACE, BASE + SPACE, max_steps=9)
    assert told == "max_steps: 40 there, 9 now (--max_steps)"


def test_a_hyperparameter_that_is_newer_than_the_study_had_its_default(folder):
    recorded = study(folder).definition()
    del recorded["values"]["z_loss"]
    require_same_study(recorded, study(folder), "here")


def test_a_seed_is_drawn_once_and_then_the_study_s(folder):
    text = BASE.replace("seed: 7\n", "") + SPACE
    drawn = study(folder, text).with_seed(None)
    assert drawn.config.sources["seed"].place == "drawn"
    again = study(folder, text).with_seed(drawn.definition())
    assert again.seed == drawn.seed
    require_same_study(drawn.definition(), again, "here")
    assert study(folder).with_seed(drawn.definition()).seed == 7


def test_the_configuration_of_a_trial_is_checked_as_a_whole(folder):
    one = study(folder, BASE + "search:\n  d_model: {int: [32, 36]}\n")
    assert one.values_of({"d_model": 36}, seed=3).seed == 3
    with pytest.raises(InputError, match="d_model: 33 is not divisible by n_heads 4"):
        one.values_of({"d_model": 33})


def test_a_text_that_is_not_there_is_told_as_training_tells_it(folder):
    with pytest.raises(InputError) as error:
        study(folder, f"corpus: none.txt\n{BASE}{SPACE}").require_text()
    assert error.value.message == "my.yaml:1: corpus: 'none.txt' does not exist"
    (folder / "none.txt").write_text("")
    with pytest.raises(InputError, match=r"my\.yaml:1: corpus: 'none\.txt' is empty"):
        study(folder, f"corpus: none.txt\n{BASE}{SPACE}").require_text()
    (folder / "none.txt").write_text("text")
    study(folder, f"corpus: none.txt\n{BASE}{SPACE}").require_text()
    study(folder).require_text()


def test_a_study_may_be_moved_with_its_text_and_be_given_by_either_name_of_it(folder, monkeypatch):
    text = f"corpus: text.txt\n{BASE}{SPACE}"
    recorded = study(folder, text).definition()
    absolute = study(folder, text.replace("text.txt", f"{folder}/text.txt"))
    require_same_study(recorded, absolute, "here")
    (folder / "moved").mkdir()
    monkeypatch.chdir(folder / "moved")
    moved = study(folder / "moved", text)
    require_same_study(recorded, moved, "here")
    assert moved.base.values.corpus == f"{folder}/moved/text.txt"
    (told,) = differences(folder, text, text.replace("text.txt", "other.txt"))
    assert told.startswith("corpus: 'text.txt' there, 'other.txt' now (")
