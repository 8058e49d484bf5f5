"""Event files, which TensorBoard reads: their records written, and looked at again.

A file is a row of records, each an ``Event`` with its length before it, and checksums
(``tensorboard/summary/writer/record_writer.py`` has the layout). What writes them is TensorBoard's,
but for those parts of it that would load TensorFlow where it is installed. This module needs the
package ``tensorboard``, so that only who has asked for events may import it.
"""

import io
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

from google.protobuf.message import DecodeError
from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_shape_pb2, types_pb2
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
from tensorboard.plugins.hparams import metadata as hparams
from tensorboard.plugins.text import metadata as texts
from tensorboard.summary.writer.record_writer import RecordWriter

# From this version of the format on, TensorBoard heeds that a session has started.
_FILE_VERSION = "brain.Event:2"
# Before a record: its length, and the checksum of that. After it: its own checksum.
_LENGTH = struct.Struct("<Q4x")
# The checksum that follows each record has four bytes.
_CHECKSUM_BYTES = 4
# An event has some hundred bytes, a sample a few for each token; what is longer is something else.
_LONGEST_EVENT = 16 * 2**20


def beginning(now: float) -> bytes:
    """What a file begins with: its version, and that whatever other files tell is void.

    Args:
        now: Seconds since 1970, as in all that follows.
    """
    start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    return _record(event_pb2.Event(wall_time=now, file_version=_FILE_VERSION)) + _record(
        event_pb2.Event(wall_time=now, step=0, session_log=start)
    )


def scalars(step: int, values: Mapping[str, float], now: float) -> bytes:
    """The numbers of a step.

    Args:
        step: The step.
        values: Finite numbers by their tags; what stands before a tag's first slash groups them.
        now: When it was done.
    """
    summary = summary_pb2.Summary()
    for tag, value in values.items():
        summary.value.add(tag=_encodable(tag), simple_value=value)
    return _record(event_pb2.Event(wall_time=now, step=step, summary=summary))


def text(step: int, tag: str, markdown: str, now: float) -> bytes:
    """A text in Markdown that belongs to a step."""
    shape = tensor_shape_pb2.TensorShapeProto()
    content = markdown.encode("utf-8", errors="backslashreplace")
    tensor = TensorProto(dtype=types_pb2.DT_STRING, string_val=[content], tensor_shape=shape)
    summary = summary_pb2.Summary()
    metadata = texts.create_summary_metadata(display_name=None, description=None)
    summary.value.add(tag=tag, metadata=metadata, tensor=tensor)
    return _record(event_pb2.Event(wall_time=now, step=step, summary=summary))


def session_start(name: str, values: Mapping[str, bool | float | str], now: float) -> bytes:
    """The hyperparameters of a run, for the page HPARAMS.

    Args:
        name: What tells the run from all others; one that is found in two places counts once.
        values: Its hyperparameters.
        now: When it began.
    """
    start = plugin_data_pb2.SessionStartInfo(group_name=_encodable(name), start_time_secs=now)
    for key, value in values.items():
        if isinstance(value, bool):
            start.hparams[key].bool_value = value
        elif isinstance(value, str):
            start.hparams[key].string_value = _encodable(value)
        else:
            start.hparams[key].number_value = value
    content = plugin_data_pb2.HParamsPluginData(session_start_info=start)
    return _hparams_record(hparams.SESSION_START_INFO_TAG, content, now)


def session_end(status: str, now: float) -> bytes:
    """How a run ended, for the page HPARAMS.

    Args:
        status: ``SUCCESS``, ``FAILURE`` or ``UNKNOWN``.
        now: When it ended.
    """
    value = api_pb2.Status.Value(f"STATUS_{status}")
    end = plugin_data_pb2.SessionEndInfo(status=value, end_time_secs=now)
    content = plugin_data_pb2.HParamsPluginData(session_end_info=end)
    return _hparams_record(hparams.SESSION_END_INFO_TAG, content, now)


def times_of_steps(path: Path) -> dict[int, float]:
    """When a file says that each step had its numbers; what cannot be read of it is left out.

    Raises:
        OSError: There is no such file.
    """
    times: dict[int, float] = {}
    for event in _events(path):
        if any(value.HasField("simple_value") for value in event.summary.value):
            # What came out of the run follows at its last step, later than that was done.
            times.setdefault(event.step, event.wall_time)
    return times


def _events(path: Path) -> Iterator[event_pb2.Event]:
    with path.open("rb") as stream:
        while len(head := stream.read(_LENGTH.size)) == _LENGTH.size:
            (length,) = _LENGTH.unpack(head)
            if length > _LONGEST_EVENT:
                return
            try:
                yield event_pb2.Event.FromString(stream.read(length))
            except DecodeError:
                return
            stream.read(_CHECKSUM_BYTES)


def _hparams_record(tag: str, content: plugin_data_pb2.HParamsPluginData, now: float) -> bytes:
    summary = summary_pb2.Summary()
    metadata = hparams.create_summary_metadata(content)
    summary.value.add(tag=tag, metadata=metadata, tensor=hparams.NULL_TENSOR)
    return _record(event_pb2.Event(wall_time=now, summary=summary))


def _record(event: event_pb2.Event) -> bytes:
    stream = io.BytesIO()
    RecordWriter(stream).write(event.SerializeToString())
    return stream.getvalue()


def _encodable(text: str) -> str:
    """A text without half characters, which a message does not take."""
    return text.encode("utf-8", errors="backslashreplace").decode()
