"""What TensorBoard compares runs by."""

from tocsin.finished_runs import flat
from tocsin.hyper_parameters import hyper_parameters


def test_hyper_parameters_are_what_shapes_a_result() -> None:
    config = {
        "seed": 3,
        "cache_dir": "~/.cache",
        "model": {"_target_": "tocsin.models.pca.Pca", "components": 0.9},
        "data": {"_target_": "tocsin.data.sliding.Sliding", "seed": "${seed}", "channels": None},
        "task": {
            "_target_": "tocsin.tasks.series.Series",
            "scorer": {"_target_": "tocsin.scoring.ErrorScorer"},
        },
        "scheduler": None,
        "callbacks": {"checkpoint": {"_target_": "tocsin.callbacks.checkpoint.BestAndLast"}},
    }
    assert hyper_parameters(dict(flat(config))) == {
        "seed": 3,
        "model": "Pca",
        "model.components": 0.9,
        "data": "Sliding",
        "task": "Series",
        "task.scorer": "ErrorScorer",
    }
