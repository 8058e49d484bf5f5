"""Event files, read back by TensorBoard and by what wrote them."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event

from lm_core import event_files

STEPS = {1: 10.0, 2: 20.5, 7: 30.25}


def written(path, *parts):
    path.write_bytes(b"".join(parts))
    return path


def steps(times=STEPS):
    return [event_files.scalars(step, {"loss/a": float(step)}, now) for step, now in times.items()]


def points(found):
    return [(event.wall_time, event.step, event.value) for event in found.Scalars("loss/a")]


def test_tensorboard_reads_what_is_written(tmp_path):
    text = event_files.text(2, "samples/0", "**some** text", 20.5)
    written(tmp_path / "tfevents", event_files.beginning(5.0), *steps(), text)
    found = EventAccumulator(str(tmp_path)).Reload()
    assert found.file_version == 2
    assert points(found) == [(10.0, 1, 1.0), (20.5, 2, 2.0), (30.25, 7, 7.0)]
    (text,) = found.Tensors("samples/0")
    assert (text.step, text.tensor_proto.string_val[0]) == (2, b"**some** text")


def test_a_file_voids_what_the_files_before_it_say(tmp_path):
    written(tmp_path / "tfevents.1", event_files.beginning(5.0), *steps())
    written(tmp_path / "tfevents.2", event_files.beginning(6.0), *steps({1: 60.0}))
    found = EventAccumulator(str(tmp_path)).Reload()
    assert points(found) == [(60.0, 1, 1.0)]


def test_the_times_of_steps_are_those_of_their_numbers(tmp_path):
    before = event_files.text(1, "samples/0", "written before the numbers", 9.0)
    after = event_files.scalars(7, {"final/loss": 1.0}, 99.0)
    path = written(tmp_path / "a", event_files.beginning(5.0), before, *steps(), after)
    assert event_files.times_of_steps(path) == STEPS


def test_a_file_that_was_cut_off_tells_what_is_whole(tmp_path):
    parts = steps()
    path = written(tmp_path / "a", *parts[:2], parts[2][:-10])
    assert event_files.times_of_steps(path) == {1: 10.0, 2: 20.5}


def test_a_record_of_an_impossible_length_is_not_read(tmp_path):
    parts = steps()
    path = written(tmp_path / "a", parts[0], struct.pack("<Q4x", 2**62), parts[1])
    assert event_files.times_of_steps(path) == {1: 10.0}


@given(st.binary(max_size=200))
def test_bytes_of_any_kind_are_read_without_an_error(tmp_path_factory, content):
    path = written(tmp_path_factory.mktemp("any") / "a", *steps({1: 10.0}), content)
    assert event_files.times_of_steps(path)[1] == 10.0


@pytest.mark.parametrize("status", ["SUCCESS", "FAILURE", "UNKNOWN"])
def test_a_record_is_an_event_between_its_length_and_its_checksum(status):
    record = event_files.session_end(status, 3.0)
    (length,) = struct.unpack_from("<Q", record)
    assert len(record) == length + struct.calcsize("<QII")
    assert Event.FromString(record[12:-4]).wall_time == 3.0
