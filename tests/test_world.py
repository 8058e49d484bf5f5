import pytest

from lm_core.errors import InputError
from lm_core.parallel import world
from lm_core.parallel.world import (
    World,
    is_told_by_another,
    leave_the_word,
    without_launcher,
    world_here,
)

TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
}


def test_without_a_launcher_a_process_is_alone_and_the_first():
    here = world_here({})
    assert here == World()
    assert here.is_alone
    assert here.is_first


def test_what_torchrun_says_is_read():
    here = world_here(TORCHRUN)
    assert here == World(3, 4, 1, 2, is_launched=True)
    assert not here.is_alone
    assert not here.is_first


@pytest.mark.parametrize(
    ("name", "value"),
    [("RANK", "4"), ("RANK", "-1"), ("WORLD_SIZE", "many"), ("LOCAL_RANK", "2"), ("RANK", "")],
)
def test_what_cannot_be_is_refused(name, value):
    with pytest.raises(InputError, match=f"environment: .*{name}"):
        world_here({**TORCHRUN, name: value})


def test_what_is_started_without_the_launcher_s_variables_is_alone():
    environment = without_launcher({**TORCHRUN, "PATH": "/bin"})
    assert environment == {"PATH": "/bin"}
    assert world_here(environment) == World()


def set_variables(monkeypatch, **more):
    for name, value in {**TORCHRUN, **more}.items():
        monkeypatch.setenv(name, value)


def test_the_first_process_speaks_for_all(monkeypatch):
    assert not is_told_by_another()
    set_variables(monkeypatch)
    assert is_told_by_another()
    set_variables(monkeypatch, RANK="0")
    assert not is_told_by_another()
    set_variables(monkeypatch, RANK="nonsense")
    assert not is_told_by_another()


def test_a_process_that_fails_waits_for_the_first_to_tell_it(monkeypatch):
    waited = []
    monkeypatch.setattr(world.time, "sleep", waited.append)
    leave_the_word()
    assert not waited
    set_variables(monkeypatch)
    leave_the_word()
    assert len(waited) == 1


def test_the_waiting_ends_with_a_signal(monkeypatch):
    def interrupted(seconds):
        raise KeyboardInterrupt

    set_variables(monkeypatch)
    monkeypatch.setattr(world.time, "sleep", interrupted)
    leave_the_word()


def test_a_connected_process_ends_at_once_so_that_others_notice(monkeypatch):
    set_variables(monkeypatch)
    monkeypatch.setattr(world.time, "sleep", pytest.fail)
    monkeypatch.setattr(world, "_is_connected", lambda: True)
    leave_the_word()
