"""The stand-in looks like the Health Data Map and only its faulty rows tell; it and the real maps are read alike."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from sklearn.metrics import roc_auc_score

from tocsin.data.cache import cached_folder
from tocsin.data.hdmap import HDMap, write_domain
from tocsin.data.synthetic import hdmap as generator
from tocsin.data.synthetic.hdmap import DOMAINS, DomainMaps, domain_maps
from tocsin.errors import ConfigError, DataError

N_TRAIN, N_TEST = 240, 120

# Published statistics of the maps (image specification, section 5.1): mean, sd and median of normal training maps;
# mean and sd of normal test maps. Where they are not known for domain D: nothing.
PUBLISHED = {
    "domain_A": ((0.248, 0.084, 0.233), (0.217, 0.098)),
    "domain_B": ((0.252, 0.084, 0.239), (0.223, 0.097)),
    "domain_C": ((0.246, 0.072, 0.234), (0.228, 0.075)),
    "domain_D": ((0.218,), ()),
}


@pytest.fixture(scope="module")
def drawn() -> dict[str, DomainMaps]:
    return {name: domain_maps(name, n_train=N_TRAIN, n_test=N_TEST, seed=42) for name in DOMAINS}


def parts(maps: DomainMaps) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    train, good, fault = np.split(maps.maps, [N_TRAIN, N_TRAIN + N_TEST])
    return train, good, fault


def auroc(good: np.ndarray, fault: np.ndarray) -> float:
    labels = np.repeat([0, 1], [len(good), len(fault)])
    return float(roc_auc_score(labels, np.concatenate([good, fault])))


def row_energy(maps: DomainMaps) -> float:
    """How well the row that is brightest for its tooth tells faults."""

    def shares(part: np.ndarray) -> np.ndarray:
        return part.mean(axis=2) / part.mean(axis=(1, 2))[:, None]

    train, good, fault = map(shares, parts(maps))
    good, fault = ((part - train.mean(axis=0)) / train.std(axis=0) for part in (good, fault))
    return auroc(good.max(axis=1), fault.max(axis=1))


# --- generator ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DOMAINS)
def test_statistics_are_those_of_the_real_maps(drawn: dict[str, DomainMaps], name: str) -> None:
    train, good, _ = parts(drawn[name])
    published_train, published_good = PUBLISHED[name]
    found = (train.mean(), train.std(), np.median(train))
    np.testing.assert_allclose(found[: len(published_train)], published_train, rtol=0.1)
    np.testing.assert_allclose((good.mean(), good.std())[: len(published_good)], published_good, rtol=0.1)
    assert train.shape[1:] == (31, 95)
    assert 0.03 < train.min() < 0.08
    assert 0.7 < train.max() < 1.2
    if name != "domain_D":
        np.testing.assert_allclose(np.quantile(train, [0.25, 0.75]), [0.19, 0.29], rtol=0.1)


def test_rows_tell_faults_and_domain_c_is_the_hardest(drawn: dict[str, DomainMaps]) -> None:
    found = {name: row_energy(maps) for name, maps in drawn.items()}
    assert all(0.8 < value < 0.99 for value in found.values())
    assert min(found, key=found.__getitem__) == "domain_C"


@pytest.mark.parametrize("name", DOMAINS)
@pytest.mark.parametrize(
    "statistic", [np.mean, np.std, np.max, lambda a, axis: np.quantile(a, 0.9, axis=axis)]
)
def test_brightness_does_not_tell_faults(drawn: dict[str, DomainMaps], name: str, statistic) -> None:
    _, good, fault = parts(drawn[name])
    assert 0.3 < auroc(statistic(good, axis=(1, 2)), statistic(fault, axis=(1, 2))) < 0.7


def test_bright_faults_are_not_clipped(drawn: dict[str, DomainMaps]) -> None:
    for name in ("domain_A", "domain_B", "domain_D"):
        train, _, fault = parts(drawn[name])
        assert fault.max() > max(1.0, train.max())
        assert (fault == fault.max()).sum() == 1


@pytest.mark.parametrize("name", DOMAINS)
def test_cold_maps_come_first_and_are_darker(drawn: dict[str, DomainMaps], name: str) -> None:
    for rows in (slice(N_TRAIN, N_TRAIN + N_TEST), slice(N_TRAIN + N_TEST, None)):
        condition = drawn[name].table["condition"].iloc[rows].tolist()
        assert condition == ["cold"] * (N_TEST // 2) + ["warm"] * (N_TEST // 2)
        bright = np.quantile(drawn[name].maps[rows], 0.9, axis=(1, 2))
        assert auroc(bright[: N_TEST // 2], bright[N_TEST // 2 :]) > 0.97
    assert 0.5 < (drawn[name].table["condition"].iloc[:N_TRAIN] == "warm").mean() < 0.9


@pytest.mark.parametrize("name", DOMAINS)
def test_masks_show_the_faulty_row_of_the_table(drawn: dict[str, DomainMaps], name: str) -> None:
    maps, table = drawn[name], drawn[name].table
    faulty = (table["class"] == "fault").to_numpy()
    assert not maps.masks[~faulty].any()
    assert (table["severity"][~faulty] == 0).all()
    assert (table["row"][~faulty] == -1).all()
    low, high = DOMAINS[name].contrast
    assert table["severity"][faulty].between(low - 1, high - 1).all()
    assert set(table["row"][faulty]) == {DOMAINS[name].fault_row + shift for shift in (-1, 0, 1)}
    for mask, row in zip(maps.masks[faulty], table["row"][faulty], strict=True):
        touched = np.flatnonzero(mask.any(axis=1))
        assert row in touched
        assert touched[-1] - touched[0] <= 2
        assert mask[row].mean() > 0.7
    good, fault = (part.mean(axis=2) / part.mean(axis=(1, 2))[:, None] for part in parts(maps)[1:])
    brighter = fault.mean(axis=0) / good.mean(axis=0)
    assert brighter.argmax() == DOMAINS[name].fault_row


def test_severity_is_the_contrast_that_is_seen(drawn: dict[str, DomainMaps]) -> None:
    _, good, fault = parts(drawn["domain_A"])
    table = drawn["domain_A"].table.iloc[-N_TEST:]
    share = fault.mean(axis=2) / fault.mean(axis=(1, 2))[:, None]
    normal = (good.mean(axis=2) / good.mean(axis=(1, 2))[:, None]).mean(axis=0)
    seen = share[np.arange(N_TEST), table["row"]] / normal[table["row"]] - 1
    assert np.corrcoef(seen, table["severity"])[0, 1] > 0.75


def test_seed_and_domain_make_the_maps() -> None:
    options = {"n_train": 3, "n_test": 2}
    one, same = (domain_maps("domain_A", **options, seed=1) for _ in range(2))
    np.testing.assert_array_equal(one.maps, same.maps)
    pd.testing.assert_frame_equal(one.table, same.table)
    for name, seed in (("domain_A", 2), ("domain_B", 1)):
        assert not np.allclose(one.maps, domain_maps(name, **options, seed=seed).maps, atol=0.01)


# --- datamodule ---------------------------------------------------------------------------------------------

SMALL = {"n_train": 10, "n_test": 4, "batch_size": 4}


def ready(**options: object) -> HDMap:
    module = HDMap(**{**SMALL, **options})
    module.setup()
    return module


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def test_stand_in_has_the_layout_of_the_real_set(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        module = ready(cache_dir=cache)
    assert "the maps are a drawn stand-in" in caplog.text
    (root,) = {path.parents[3] for path in module.ready.test.paths}
    folders = {
        f"domain_A/{name}": count for name, count in (("train/good", 10), ("test/good", 4), ("test/fault", 4))
    }
    for name, count in folders.items():
        assert [path.name for path in sorted((root / name).iterdir())] == [
            f"{i:06}.tiff" for i in range(count)
        ]
    stored = tifffile.imread(root / "domain_A/test/fault/000003.tiff")
    assert stored.dtype == np.float32
    np.testing.assert_array_equal(stored, domain_maps("domain_A", n_train=10, n_test=4, seed=42).maps[-1])
    manifest = pd.read_csv(root / "manifest.csv")
    assert [(root / path).is_file() for path in manifest["path"]] == [True] * 18


def test_map_reaches_the_batch_untouched(cache: Path) -> None:
    module = ready(cache_dir=cache)
    assert module.dims() == {"height": 32, "width": 96}
    (batch,) = module.score_dataloader(module.ready.test)
    assert batch.image.shape == (8, 3, 32, 96)
    for image, path in zip(batch.image.numpy(), module.ready.test.paths, strict=True):
        stored = tifffile.imread(path)
        for channel in image:
            np.testing.assert_array_equal(channel[:31, :95], stored)
        assert not image[:, 31].any()
        assert not image[:, :, 95].any()


def test_metadata_goes_with_the_image(cache: Path) -> None:
    test = ready(cache_dir=cache).ready.test
    assert test.metadata is not None
    assert test.metadata.columns.tolist() == ["condition", "severity", "row"]
    assert ((test.metadata["severity"] > 0) == test.labels).all()
    for path, row in zip(test.paths, test.metadata.itertuples(), strict=True):
        assert row.condition == ("cold" if int(path.stem) < 2 else "warm")
    module = ready(cache_dir=cache)
    masks, known = module.masks(test)
    assert known.all()
    for mask, row in zip(masks, test.metadata["row"], strict=True):
        assert mask.any() == (row >= 0)
        assert row < 0 or mask[row].any()


def test_target_domains_are_further_test_sets(cache: Path) -> None:
    module = ready(cache_dir=cache, domain="domain_C", target_domains="all")
    assert list(module.targets()) == ["domain_A", "domain_B", "domain_D"]
    for name, images in module.targets().items():
        assert {path.parents[2].name for path in images.paths} == {name}
        assert images.labels.tolist() == [name != "good" for name in images.classes]
        assert len(images) == 8
    for part in (module.ready.train, module.ready.val, module.ready.test):
        assert {path.parents[2].name for path in part.paths} == {"domain_C"}
    assert list(ready(cache_dir=cache, target_domains=["domain_D"]).targets()) == ["domain_D"]
    assert list(ready(cache_dir=cache, target_domains="domain_D").targets()) == ["domain_D"]
    assert ready(cache_dir=cache).targets() == {}


def test_stand_in_is_drawn_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ready(cache_dir=cache)
    before = sorted(path.name for path in cache.iterdir())

    def fail(*args: object, **options: object) -> None:
        raise AssertionError("drawn again")

    monkeypatch.setattr("tocsin.data.synthetic.hdmap.domain_maps", fail)
    ready(cache_dir=cache, seed=7)
    assert sorted(path.name for path in cache.iterdir()) == before
    for change in ({"data_seed": 1}, {"n_train": 11}, {"n_test": 5}):
        with pytest.raises(AssertionError, match="drawn again"):
            ready(cache_dir=cache, **change)
    assert sorted(path.name for path in cache.iterdir()) == before  # nothing half-made is left


def test_folder_in_the_cache_is_complete_or_not_there(tmp_path: Path) -> None:
    where = {"name": generator.__name__, "arguments": {"seed": 1}, "cache_dir": tmp_path}

    def torn(folder: Path) -> None:
        (folder / "first").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_folder(torn, **where)
    assert list(tmp_path.iterdir()) == []

    def overtaken(folder: Path) -> None:
        (folder / "slow").touch()
        path = tmp_path / folder.parent.name.partition(".")[0]
        path.mkdir()
        (path / "fast").touch()

    found = cached_folder(overtaken, **where)  # another process finishes first
    assert [path.name for path in found.iterdir()] == ["fast"]
    assert list(tmp_path.iterdir()) == [found]


def test_without_a_cache_nothing_is_kept() -> None:
    module = ready(cache_dir=None)
    (folder,) = {path.parents[3] for path in module.ready.test.paths}
    assert len(list(module.train_dataloader())) == 100
    del module
    assert not folder.exists()


def test_real_maps_are_read_from_their_folder(tmp_path: Path) -> None:
    for name in ("domain_A", "domain_B"):
        write_domain(domain_maps(name, n_train=6, n_test=4, seed=0), tmp_path, name)
    (tmp_path / "manifest.csv").unlink()  # which the real set has not
    module = ready(root=tmp_path, target_domains="all")
    assert module.summary()["test_classes"] == {"fault": 4, "good": 4}
    assert list(module.targets()) == ["domain_B"]
    test = module.ready.test
    assert test.metadata is not None
    assert test.metadata["condition"].tolist() == ["cold", "cold", "warm", "warm"] * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"domain": "domain_E"},
            "data.domain=domain_E: there is no such domain; there are: domain_A, domain_B",
        ),
        ({"target_domains": ["B"]}, "data.target_domains=B: there is no such domain"),
        ({"target_domains": ["domain_A"]}, "data.target_domains=domain_A: name each other domain once"),
        ({"target_domains": ["domain_B"] * 2}, "name each other domain once"),
        ({"n_train": 1}, "data=hdmap: n_train=1 is fewer than 2 maps"),
        ({"n_test": 0}, "data=hdmap: n_test=0 is fewer than 2 maps"),
        ({"root": "nowhere"}, "data.root=nowhere is not a folder"),
    ],
)
def test_bad_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        ready(**options)


def test_folder_without_domains_is_named(tmp_path: Path) -> None:
    (tmp_path / "1000_tiff_minmax").mkdir()
    with pytest.raises(ConfigError, match=r"there are: none \(in .*, the folder above the domains\)"):
        ready(root=tmp_path)
