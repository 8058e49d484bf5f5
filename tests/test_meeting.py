import threading

import pytest
import torch

from lm_core.errors import (
    DivergenceError,
    InputError,
    MachineError,
    StoppedAtOnce,
    StoppedError,
    ToldBefore,
    UnheardError,
)
from lm_core.parallel.meeting import Meeting, meeting_here
from lm_core.parallel.world import World


@pytest.fixture
def store():
    return torch.distributed.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)


def meetings(store, n=2, name="first"):
    return [Meeting(World(rank, n, rank, n), store, name) for rank in range(n)]


def in_a_thread(function):
    thread = threading.Thread(target=function)
    thread.start()
    return thread


def failed(meeting, error):
    with pytest.raises(type(error)), meeting:
        raise error


def test_alone_nothing_is_waited_for():
    with Meeting(World()) as meeting:
        meeting.share({"a": 1})
        meeting.meet()
        meeting.require_all_well()
        meeting.require_a_way_on()
        meeting.remember_run("here")
        assert meeting.remembered_run is None
    failed(Meeting(World()), InputError("wrong"))


def test_all_have_what_the_first_shares(store):
    first, second = meetings(store)
    found = []
    thread = in_a_thread(lambda: found.append(second.shared()))
    assert not found
    first.share({"values": [1, None, "ä"]})
    thread.join(10)
    assert found == [{"values": [1, None, "ä"]}]


def test_nobody_goes_on_before_all_have_come(store):
    three = meetings(store, 3)
    passed = []
    threads = [in_a_thread(lambda m=m: (m.meet(), passed.append(m))) for m in three[:2]]
    threads[0].join(0.3)
    assert not passed
    three[2].meet()
    for thread in threads:
        thread.join(10)
    assert len(passed) == 2


def test_they_meet_again(store):
    first, second = meetings(store)
    thread = in_a_thread(lambda: (second.meet(), second.meet()))
    first.meet()
    first.meet()
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize("kind", [InputError, MachineError, DivergenceError])
def test_what_one_fails_at_ends_the_others_and_says_who_it_was(store, kind):
    first, second, third = meetings(store, 3)
    failed(second, kind("the disk is gone"))
    with pytest.raises(kind, match=r"process 1 of 3 on .*: the disk is gone"):
        first.meet()
    with pytest.raises(kind, match="process 1 of 3"):
        third.shared()


def test_the_first_speaks_for_itself(store):
    first, second = meetings(store)
    failed(first, InputError("n_layers: -1 is too small"))
    with pytest.raises(InputError, match=r"^n_layers: -1"):
        second.shared()


def test_the_first_word_stands(store):
    first, second, third = meetings(store, 3)
    failed(second, InputError("cause"))
    failed(third, MachineError("consequence"))
    with pytest.raises(InputError, match=r"process 1 of 3 on .*: cause"):
        first.require_all_well()


def test_a_word_that_is_on_its_way_is_waited_for(store):
    first, second = meetings(store)
    first.failure_told_in_time()
    thread = threading.Timer(0.2, lambda: failed(second, MachineError("no memory")))
    thread.start()
    with pytest.raises(MachineError, match="no memory"):
        first.failure_told_in_time()
    thread.join()


def test_a_run_that_stopped_as_asked_has_not_failed(store):
    first, second = meetings(store)
    failed(first, StoppedError("saved", 15))
    second.require_all_well()


def test_what_failed_in_one_attempt_is_forgotten_in_the_next(store):
    failed(meetings(store)[1], MachineError("lost"))
    first, second = meetings(store, name="second")
    second.require_all_well()
    first.require_a_way_on()


def test_processes_that_are_started_again_know_the_run(store):
    first, _ = meetings(store)
    assert first.remembered_run is None
    first.remember_run("runs/base")
    assert meetings(store, name="second")[0].remembered_run == "runs/base"


@pytest.mark.parametrize("kind", [InputError, DivergenceError])
def test_what_a_person_has_to_mend_is_not_tried_again(store, kind):
    failed(meetings(store)[0], kind("wrong"))
    with pytest.raises(ToldBefore) as caught:
        meetings(store, name="second")[0].require_a_way_on()
    assert caught.value.exit_code == kind.exit_code


def test_a_signal_that_ends_one_ends_the_others_like_it(store):
    first, second = meetings(store)
    failed(second, StoppedAtOnce(15))
    with pytest.raises(StoppedAtOnce) as caught:
        first.meet()
    assert caught.value.signal_number == 15


def test_of_a_loss_the_first_process_tells_if_it_is_there(store):
    first, second, third = meetings(store, 3)
    assert type(first.tell_of_a_loss("gone")) is MachineError
    assert type(second.tell_of_a_loss("gone")) is MachineError
    first, second, third = meetings(store, 3, name="without the first")
    assert type(third.tell_of_a_loss("gone")) is UnheardError
    assert type(second.tell_of_a_loss("gone")) is MachineError


def test_a_launcher_that_is_gone_is_told(store):
    class Gone:
        def check(self, names):
            raise RuntimeError("Broken pipe\nand more")

    _, second = meetings(store)
    second._now = second._always = Gone()
    gone = r"launcher .* cannot be reached: Broken pipe$"
    with pytest.raises(MachineError, match=gone):
        second.shared()
    with pytest.raises(MachineError, match=gone):
        second.require_a_way_on()
    with pytest.raises(MachineError, match=gone):
        _ = second.remembered_run


def test_where_all_is_done_a_launcher_that_is_gone_is_no_harm(store):
    class Gone:
        def add(self, key, number):
            raise RuntimeError("Broken pipe")

    first, _ = meetings(store)
    first._now = Gone()
    first.part()
    with pytest.raises(MachineError, match="cannot be reached"):
        first.meet()


def test_all_part_together_and_hear_of_one_that_fails(store):
    first, second = meetings(store)
    thread = in_a_thread(second.part)
    first.part()
    thread.join(5)
    assert not thread.is_alive()
    first, second = meetings(store, name="again")
    failed(second, DivergenceError("the loss is infinite"))
    with pytest.raises(DivergenceError, match="the loss is infinite"):
        first.part()


def test_a_process_that_is_ended_because_another_failed_tells_why(store):
    first, second = meetings(store)
    failed(second, InputError("there is no module hooks"))
    with pytest.raises(InputError, match=r"process 1 of 2 on .*: there is no module hooks"), first:
        raise StoppedAtOnce(15)
    with pytest.raises(ToldBefore) as caught:
        first.require_a_way_on()
    assert caught.value.exit_code == InputError.exit_code


def test_a_process_that_is_ended_for_itself_is_stopped(store):
    class Gone:
        def check(self, names):
            raise RuntimeError("Broken pipe")

        def compare_set(self, *words):
            raise RuntimeError("Broken pipe")

    first, second = meetings(store)
    failed(first, StoppedAtOnce(15))
    failed(second, StoppedAtOnce(2))
    third, _ = meetings(store, name="gone")
    third._now = Gone()
    failed(third, StoppedAtOnce(15))


def test_processes_that_do_not_find_each_other_are_told_what_is_missing(monkeypatch):
    for name in ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UnheardError, match=r"cannot find each other.*torchrun"):
        meeting_here(World(1, 2, is_launched=True))


def test_one_process_that_was_launched_knows_its_run_when_it_is_started_again(store):
    for name in ("first", "second"):
        meeting = Meeting(World(is_launched=True), store, name)
        meeting.meet()
        found, _ = meeting.remembered_run, meeting.remember_run("runs/base")
    assert found == "runs/base"
