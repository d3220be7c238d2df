"""The columns of TensorBoard's HParams table: options, those that differ first, and metrics, that which ranks first.

Without such a list TensorBoard puts the metrics in alphabetical order and shows the first few of them.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tocsin.hyper_parameters import hyper_parameters
from tocsin.leaderboard.runs import KINDS, Found, Run
from tocsin.results import write_files


def write_columns(path: Path, found: Found, started: float) -> None:
    """Write an event file that lists the columns for some runs, unless it is there already.

    Args:
        path: Where; TensorBoard wants it in the folder of one of the runs.
        found: Runs that the table is about.
        started: When that run began, in seconds since 1970: TensorBoard takes the time of its first event for that.
    """
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
    from tensorboard.summary.writer.record_writer import RecordWriter

    configs = [run.config for run in found.runs] + [run.config for run in found.lost]
    table = api_pb2.Experiment(hparam_infos=_options(configs), metric_infos=_metrics(found.runs))
    data = plugin_data_pb2.HParamsPluginData(experiment=table, version=metadata.PLUGIN_DATA_VERSION)
    about = metadata.create_summary_metadata(data)
    value = Summary.Value(tag=metadata.EXPERIMENT_TAG, metadata=about, tensor=metadata.NULL_TENSOR)
    content = io.BytesIO()
    records = RecordWriter(content)
    records.write(Event(wall_time=started, file_version="brain.Event:2").SerializeToString())
    records.write(Event(wall_time=started, summary=Summary(value=[value])).SerializeToString())
    if not path.is_file() or path.read_bytes() != content.getvalue():
        write_files(path.parent, {path.name: content.getvalue()})


def _options(configs: Sequence[Mapping[str, Any]]) -> list[Any]:
    from tensorboard.plugins.hparams import api_pb2

    chosen = [hyper_parameters(config) for config in configs]
    infos = []
    for key in dict.fromkeys(key for options in chosen for key in options):
        found = {options[key] for options in chosen if key in options}
        differs = len(found) > 1 or not all(key in options for options in chosen)
        if all(isinstance(value, bool) for value in found):
            kind, domain = api_pb2.DATA_TYPE_BOOL, sorted(found)
        elif all(isinstance(value, int | float) for value in found):
            kind, domain = api_pb2.DATA_TYPE_FLOAT64, []
        else:
            kind, domain = api_pb2.DATA_TYPE_STRING, sorted(map(str, found))
        info = api_pb2.HParamInfo(name=key, type=kind, differs=differs)
        if domain:
            info.domain_discrete.extend(domain)
        else:
            info.domain_interval.min_value, info.domain_interval.max_value = min(found), max(found)
        infos.append(info)
    return sorted(infos, key=lambda info: not info.differs)


def _metrics(runs: Sequence[Run]) -> list[Any]:
    from tensorboard.plugins.hparams import api_pb2

    kinds = [kind for kind in KINDS if any(run.kind is kind for run in runs)]
    first = [name for kind in kinds for name in (kind.metric, *kind.beside)]
    every = [name for run in runs for name in run.sections["test"]]
    tags = [*(f"test/{name}" for name in dict.fromkeys([*first, *every]) if name in set(every)), "val_loss"]
    return [api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag)) for tag in tags]
