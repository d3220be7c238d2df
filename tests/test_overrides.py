"""Short names of what sets jobs apart."""

from tocsin.overrides import as_mapping, differing, short_keys


def test_signs_go_and_options_of_hydra_are_left_out() -> None:
    given = ["model=mae", "++data.window=50", "+a.b=c=d", "hydra.sweep.dir=x", "hydra/launcher=ray"]
    assert as_mapping(given) == {"model": "mae", "data.window": "50", "a.b": "c=d"}


def test_only_what_differs_is_told_and_under_short_keys() -> None:
    jobs = [
        {"model": "mae", "model.d_model": "16", "seed": "1", "trainer.max_epochs": "2"},
        {"model": "mae", "model.d_model": "32", "seed": "2", "trainer.max_epochs": "2"},
        {"model": "pca", "seed": "1", "trainer.max_epochs": "2"},
    ]
    assert differing(jobs, ("seed",)) == [
        {"model": "mae", "d_model": "16"},
        {"model": "mae", "d_model": "32"},
        {"model": "pca"},
    ]


def test_keys_are_as_long_as_they_must_be() -> None:
    assert short_keys(["optimizer.lr", "model.lr", "data.window", "seed"]) == {
        "optimizer.lr": "optimizer.lr",
        "model.lr": "model.lr",
        "data.window": "window",
        "seed": "seed",
    }
    assert short_keys(["lr", "model.lr"]) == {"lr": "lr", "model.lr": "model.lr"}


def test_paths_are_told_by_their_last_part_unless_that_is_the_same() -> None:
    assert differing([{"data.path": "/a/x.csv"}, {"data.path": "/a/y.csv"}]) == [
        {"path": "x.csv"},
        {"path": "y.csv"},
    ]
    assert differing([{"data.path": "/a/x.csv"}, {"data.path": "/b/x.csv"}])[1] == {"path": "/b/x.csv"}
