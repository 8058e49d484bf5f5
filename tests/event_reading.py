"""Events as TensorBoard itself reads them."""

from tensorboard import context
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins import base_plugin
from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

ALL = {"scalars": 0, "tensors": 0}
STATUSES = list(api_pb2.Status.values())


def events_of(run_dir):
    """All events of a run."""
    return EventAccumulator(str(run_dir / "tensorboard"), size_guidance=ALL).Reload()


def curves(run_dir):
    """The curves of a run: for each tag, steps and values."""
    events = events_of(run_dir)
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def texts(run_dir):
    """The texts of a run: for each tag, steps and Markdown."""
    events = events_of(run_dir)
    return {
        tag: [(e.step, e.tensor_proto.string_val[0].decode()) for e in events.Tensors(tag)]
        for tag in events.PluginTagToContent("text")
    }


def compared(folder):
    """The rows of the page HPARAMS about the runs below a folder."""
    runs = plugin_event_multiplexer.EventMultiplexer().AddRunsFromDirectory(str(folder)).Reload()
    provider = data_provider.MultiplexerDataProvider(runs, str(folder))
    backend = backend_context.Context(base_plugin.TBContext(data_provider=provider))
    request = api_pb2.ListSessionGroupsRequest(
        slice_size=100, allowed_statuses=STATUSES, include_metrics=True
    )
    page = list_session_groups.Handler(context.RequestContext(), backend, "", request).run()
    return list(page.session_groups)


def hyperparameters(row):
    """The hyperparameters in a row of that page."""
    return {key: getattr(v, v.WhichOneof("kind")) for key, v in row.hparams.items()}


def metrics_of(row):
    """The metrics in a row of that page."""
    return {metric.name.tag: metric.value for metric in row.metric_values}


def status(row):
    """How the runs of a row ended."""
    (session,) = row.sessions
    return api_pb2.Status.Name(session.status)
