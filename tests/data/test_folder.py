"""What every datamodule for images promises, and the layouts of folders that are understood."""

import io
import logging
from pathlib import Path

import cv2
import lightning.pytorch as L
import numpy as np
import pytest
import tifffile
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from tocsin.batch import ImageBatch
from tocsin.data.folder import ImageFolder
from tocsin.data.image_base import ImageDataModule
from tocsin.data.sharing import shared_out
from tocsin.errors import ConfigError, DataError

SIZE = {"height": 8, "width": 12}


def draw(
    folder: Path, count: int, *, value: int = 100, suffix: str = ".png", size: tuple[int, int] = (8, 12)
) -> None:
    """Images whose first pixel is their number."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels = np.full(size, value, np.uint8)
        pixels[0, 0] = number
        assert cv2.imwrite(str(folder / f"{number:03}{suffix}"), pixels)


def draw_mask(path: Path, row: int, size: tuple[int, int] = (8, 12)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros(size, np.uint8)
    mask[row] = 255
    assert cv2.imwrite(str(path), mask)


@pytest.fixture(scope="module")
def mvtec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 + 6 normal images, 8 scratches with masks for all but one, 5 dents without."""
    root = tmp_path_factory.mktemp("images") / "bolt"
    draw(root / "train/good", 20)
    draw(root / "test/good", 6)
    draw(root / "test/scratch", 8, value=200)
    draw(root / "test/dent", 5, value=50)
    for number in (0, 1, 2, 4, 5, 6, 7):  # 003 has none, so matching by order would shift all after it
        draw_mask(root / f"ground_truth/scratch/{number:03}_mask.png", row=number)
    return root


def ready(root: Path, **options: object) -> ImageFolder:
    module = ImageFolder(root=root, **{**SIZE, "batch_size": 4, **options})
    module.setup()
    return module


def positions(loader: DataLoader[ImageBatch]) -> list[int]:
    return torch.cat([batch.position for batch in loader]).tolist()


# --- splits -------------------------------------------------------------------------------------------------


def test_splits_share_no_image(mvtec: Path) -> None:
    splits = ready(mvtec, labelled_val_fraction=0.4).ready
    paths = [set(part.paths) for part in (splits.train, splits.val, splits.test)]
    assert sum(map(len, paths)) == len(set.union(*paths)) == 39


@pytest.mark.parametrize("name", ["train", "val"])
def test_no_anomalous_image_is_trained_or_validated_on(mvtec: Path, name: str) -> None:
    module = ready(mvtec, labelled_val_fraction=0.4)
    loader = module.train_dataloader() if name == "train" else module.val_dataloader()
    images = getattr(module.ready, name)
    for batch in loader:
        assert not batch.label.any()
        assert not images.labels[batch.position].any()
        assert (batch.image[:, :, 4, 4] == 100 / 255).all()  # the gray of normal images


def test_labelled_validation_takes_its_share_of_every_class_out_of_the_test(mvtec: Path) -> None:
    module = ready(mvtec, labelled_val_fraction=0.4)
    val, test = module.ready.val, module.ready.test
    assert [val.classes.count(name) for name in ("good", "scratch", "dent")] == [4 + 2, 3, 2]
    assert [test.classes.count(name) for name in ("good", "scratch", "dent")] == [4, 5, 3]
    assert positions(module.val_dataloader()) == np.flatnonzero(~val.labels).tolist()
    for part in (val, test):
        for label, class_, path in zip(part.labels, part.classes, part.paths, strict=True):
            assert (label, class_) == (path.parent.name != "good", path.parent.name)


def test_same_seed_same_split(mvtec: Path) -> None:
    one, same, other = (
        ready(mvtec, split_seed=seed, seed=run).ready for seed, run in ((1, 1), (1, 2), (2, 1))
    )
    assert one.train.paths == same.train.paths
    assert one.val.paths == same.val.paths
    assert one.val.paths != other.val.paths


def test_groups_stay_on_one_side(tmp_path: Path) -> None:
    draw(tmp_path / "train/good", 40)
    for path in (tmp_path / "train/good").iterdir():
        path.rename(path.with_name(f"part{int(path.stem) % 8}_{path.name}"))
    splits = ready(tmp_path, group_pattern=r"part(\d)_", val_fraction=0.25, normal_test_fraction=0.25).ready
    groups = [set(part.metadata["group"]) for part in (splits.train, splits.val, splits.test)]
    assert [len(part) for part in groups] == [4, 2, 2]  # of 8: 2 for the test, a quarter of 6 to validate
    assert set.union(*groups) == set("01234567")
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [20, 10, 10]
    with pytest.raises(DataError, match=r"data\.group_pattern=tile finds nothing in part\d_"):
        ready(tmp_path, group_pattern="tile")
    with pytest.raises(ConfigError, match=r"data\.group_pattern=\( is no regular expression"):
        ready(tmp_path, group_pattern="(")


def test_manifest_lists_every_image_once(mvtec: Path) -> None:
    table = ready(mvtec).manifest()
    assert table.columns.tolist() == ["path", "split", "label", "class", "mask"]
    assert table["split"].value_counts().to_dict() == {"test": 19, "train": 16, "val": 4}
    assert table["path"].is_unique
    assert table.groupby("class")["label"].agg(["min", "max"]).to_numpy().tolist() == [[1, 1], [0, 0], [1, 1]]
    masks = table.dropna(subset="mask")
    assert [Path(row.mask).stem for row in masks.itertuples()] == [
        f"{Path(p).stem}_mask" for p in masks["path"]
    ]


# --- loaders ------------------------------------------------------------------------------------------------


def test_an_epoch_is_so_many_batches_of_whole_passes(mvtec: Path) -> None:
    module = ready(mvtec, steps_per_epoch=10)
    loader = module.train_dataloader()
    assert len(loader) == 10
    epochs = []
    for number in range(2):
        loader.sampler.set_epoch(number)
        epochs += positions(loader)
    assert len(epochs) == 80  # 5 passes of 16 images: they go on across the epochs
    passes = np.reshape(epochs, (5, 16))
    assert (np.sort(passes, axis=1) == np.arange(16)).all()
    assert len(np.unique(passes, axis=0)) == 5


def test_single_pass_shows_every_image_once(mvtec: Path) -> None:
    module = ready(mvtec)
    module.single_pass()
    loader = module.train_dataloader()
    assert sorted(positions(loader)) == list(range(16))
    loader.sampler.set_epoch(1)
    assert sorted(positions(loader)) == list(range(16))


def test_processes_share_the_batches(mvtec: Path) -> None:
    module = ready(mvtec, steps_per_epoch=3)
    whole = module.train_dataloader()
    parts = [shared_out(whole, world=2, rank=rank) for rank in (0, 1)]
    whole.sampler.set_epoch(1)
    for batch, *own in zip(whole, *parts, strict=True):
        assert torch.cat([part.position for part in own]).tolist() == batch.position.tolist()


class Recorder(L.LightningModule):
    """Notes what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[list[int]] = []

    def on_train_epoch_start(self) -> None:
        self.seen.append([])

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        self.seen[-1] += batch.position.tolist()
        return self.weight * batch.image.mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_resumed_run_sees_what_an_uninterrupted_one_does(mvtec: Path, tmp_path: Path) -> None:
    def fit(epochs: int, ckpt: Path | None = None) -> tuple[L.Trainer, Recorder]:
        recorder = Recorder()
        trainer = L.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
            default_root_dir=tmp_path,
        )
        trainer.fit(recorder, datamodule=ready(mvtec, steps_per_epoch=3), ckpt_path=ckpt, weights_only=True)
        return trainer, recorder

    _, whole = fit(3)
    first, _ = fit(1)
    first.save_checkpoint(tmp_path / "a.ckpt")
    _, rest = fit(3, tmp_path / "a.ckpt")
    assert whole.seen[0] != whole.seen[1] != whole.seen[2]
    assert rest.seen == whole.seen[1:]


def test_seed_of_the_run_shuffles(mvtec: Path) -> None:
    one, same, other = (positions(ready(mvtec, seed=seed).train_dataloader()) for seed in (1, 1, 2))
    assert one == same != other


def test_score_loader_goes_through_a_set_in_order(mvtec: Path) -> None:
    module = ready(mvtec, score_batch_size=4)
    batches = list(module.score_dataloader(module.ready.test))
    assert [len(batch.image) for batch in batches] == [4, 4, 4, 4, 3]
    assert torch.cat([batch.position for batch in batches]).tolist() == list(range(19))
    numbers = torch.cat([batch.image[:, 0, 0, 0] for batch in batches]) * 255
    assert numbers.round().int().tolist() == [int(path.stem) for path in module.ready.test.paths]
    assert torch.cat([batch.label for batch in batches]).tolist() == module.ready.test.labels.tolist()
    chosen = module.ready.test.subset([7, 2])
    (batch,) = module.score_dataloader(chosen)
    assert (batch.image[:, 0, 0, 0] * 255).round().tolist() == [int(path.stem) for path in chosen.paths]


# --- memory -------------------------------------------------------------------------------------------------


def draw_mixed(root: Path, colour: bool) -> None:
    """Images of 8 and 16 bits, floats and, if asked, colour, of several sizes."""
    folder = root / "train/good"
    draw(folder, 6)
    rng = np.random.default_rng(0)
    if colour:
        assert cv2.imwrite(str(folder / "colour.png"), rng.integers(0, 256, (20, 30, 3), dtype=np.uint8))
    assert cv2.imwrite(str(folder / "deep.png"), rng.integers(0, 65536, (9, 31), dtype=np.uint16))
    tifffile.imwrite(folder / "float.tiff", rng.random((11, 7)).astype(np.float32) * 4)


@pytest.mark.parametrize("mixed", ["", "depth", "colour"])
@pytest.mark.parametrize("resize", ["bilinear", "aspect_padding"])
def test_memory_changes_nothing(mvtec: Path, tmp_path: Path, mixed: str, resize: str) -> None:
    if mixed:
        draw_mixed(tmp_path, colour=mixed == "colour")
    root = tmp_path if mixed else mvtec
    options = {"resize": resize, "height": 7, "width": 10}
    kept, read = (list(ready(root, cache=cache, **options).train_dataloader()) for cache in (True, False))
    for one, other in zip(kept, read, strict=True):
        assert one.image.dtype == other.image.dtype == torch.float32
        assert one.image.shape == (4, 3, 7, 10)
        assert torch.equal(one.image, other.image)
        assert torch.equal(one.position, other.position)
        assert torch.equal(one.label, other.label)
    if mixed:
        assert max(batch.image.max() for batch in kept) > 2


def test_files_are_read_once(mvtec: Path, tmp_path: Path) -> None:
    for cache in (True, False):
        root = tmp_path / str(cache)
        draw(root / "train/good", 6)
        module = ready(root, cache=cache, steps_per_epoch=2)
        list(module.train_dataloader())
        for path in module.ready.train.paths:
            path.unlink()
        if cache:
            assert len(list(module.train_dataloader())) == 2
            assert module._memory.used == 4 * 8 * 12  # 4 training images of 8 bits and one channel
        else:
            with pytest.raises(DataError, match="cannot be read: No such file"):
                list(module.train_dataloader())


def test_what_does_not_fit_stays_on_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    draw(tmp_path / "train/good", 6, size=(400, 800))
    module = ready(tmp_path, height=400, width=800, cache_mb=1, steps_per_epoch=1)
    with caplog.at_level(logging.INFO):
        (batch,) = module.train_dataloader()
    assert batch.image.shape == (4, 3, 400, 800)
    assert module._memory.used == 0
    assert "4 images need 2 MB" in caplog.text
    assert "data.cache_mb=1" in caplog.text


def test_workers_make_the_same_batches(mvtec: Path) -> None:
    alone, helped = (list(ready(mvtec, num_workers=n, steps_per_epoch=2).train_dataloader()) for n in (0, 1))
    assert all(torch.equal(a.image, b.image) for a, b in zip(alone, helped, strict=True))


# --- masks and identity -------------------------------------------------------------------------------------


def test_masks_are_those_of_their_images(mvtec: Path) -> None:
    module = ready(mvtec)
    test = module.ready.test
    masks, known = module.masks(test)
    assert masks.shape == (19, 8, 12)
    for index, path in enumerate(test.paths):
        number = int(path.stem)
        if path.parent.name == "scratch" and number != 3:
            assert np.flatnonzero(masks[index].any(axis=1)).tolist() == [number]
            assert masks[index, number].all()
        else:
            assert not masks[index].any()
        assert known[index] == (path.parent.name == "good" or (path.parent.name == "scratch" and number != 3))


def test_mask_of_another_size_than_its_image(tmp_path: Path) -> None:
    draw(tmp_path / "train/good", 4)
    draw(tmp_path / "test/bent", 1)
    draw_mask(tmp_path / "ground_truth/bent/000_mask.png", 1, size=(8, 13))
    module = ready(tmp_path)
    with pytest.raises(DataError, match=r"000_mask\.png: the mask is 8 x 13, but its image is 8 x 12"):
        module.masks(module.ready.test)


def test_summary_counts(mvtec: Path) -> None:
    summary = ready(mvtec).summary()
    assert summary.pop("fingerprint")
    assert summary == {
        "source": f"{mvtec.parent.name}/bolt",
        "n_train": 16,
        "n_val": 4,
        "n_test": 19,
        "anomaly_rate": pytest.approx(13 / 19),
        "test_classes": {"dent": 5, "good": 6, "scratch": 8},
        "n_masks": 7,
    }


def test_fingerprint_is_that_of_the_contents(tmp_path: Path) -> None:
    for name in ("one", "two"):
        draw(tmp_path / name / "train/good", 6)
        draw(tmp_path / name / "test/bad", 2, value=3)
    one, two = tmp_path / "one", tmp_path / "two"
    original = ready(one).fingerprint()
    assert ready(two).fingerprint() == original
    assert ready(one, split_seed=1).fingerprint() != original
    image = two / "train/good/004.png"
    image.write_bytes(image.read_bytes().replace(b"IEND", b"IENE"))
    changed = ready(two).fingerprint()
    named = {"normal_dir": "train/good", "normal_test_fraction": 0}
    labelled = ready(one, abnormal_dir="test/bad", **named).fingerprint()
    assert ready(one, normal_test_dir="test/bad", **named).fingerprint() != labelled
    (one / "test/bad/001.png").rename(one / "test/bad/002.png")
    assert len({original, changed, ready(one).fingerprint()}) == 3


def test_state_is_plain_data_and_comes_back(mvtec: Path) -> None:
    state = ready(mvtec, resize="nearest").scoring_state()
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    module = ImageFolder(root=mvtec)
    module.restore(torch.load(buffer, weights_only=True))
    module.setup()
    assert module.dims() == {"height": 8, "width": 12}
    assert module.reader.resize == "nearest"
    assert next(iter(module.train_dataloader())).image.shape == (16, 3, 8, 12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "data.batch_size=0 is not a positive number"),
        ({"steps_per_epoch": 0}, "data.steps_per_epoch=0 is not a positive number"),
        ({"cache_mb": 0}, "data.cache_mb=0 is not a positive number"),
        ({"val_fraction": 0.0}, "data.val_fraction=0.0 is not between 0 and 1"),
        ({"val_fraction": 1.0}, "data.val_fraction=1.0 is not between 0 and 1"),
        ({"labelled_val_fraction": 1.0}, r"data.labelled_val_fraction=1.0 is not in \[0, 1\)"),
        ({"normal_test_fraction": -0.1}, r"data.normal_test_fraction=-0.1 is not in \[0, 1\)"),
        ({"height": 0}, "data.height=0 is not a positive number"),
        ({"resize": "crop"}, "data.resize='crop' is not one of"),
        ({"mask_dir": "masks"}, "data.mask_dir need data.normal_dir"),
    ],
)
def test_bad_options_are_named(mvtec: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises((DataError, ConfigError), match=message):
        ready(mvtec, **options)


# --- layouts ------------------------------------------------------------------------------------------------


def classes(module: ImageDataModule) -> dict[str, int]:
    return module.summary()["test_classes"]


def test_test_folders_may_be_missing(tmp_path: Path) -> None:
    draw(tmp_path / "train/good", 20)
    module = ready(tmp_path)
    assert [len(part) for part in (module.ready.train, module.ready.val, module.ready.test)] == [13, 3, 4]
    assert module.summary()["anomaly_rate"] == 0
    draw(tmp_path / "test/bent", 1)  # a folder with one image
    assert classes(ready(tmp_path)) == {"bent": 1, "good": 4}
    assert classes(ready(tmp_path, normal_test_fraction=0)) == {"bent": 1}


def test_folders_by_name_with_masks_beside_the_images(tmp_path: Path) -> None:
    draw(tmp_path / "Free", 10, suffix=".jpg")
    draw(tmp_path / "Hole", 3, suffix=".jpg")
    draw(tmp_path / "Crack", 2, suffix=".jpg")
    draw_mask(tmp_path / "Hole/000.png", 1)
    draw_mask(tmp_path / "Hole/002.png", 5)
    draw_mask(tmp_path / "Hole/image.png", 0)  # has the suffix of a mask, but no image that it belongs to
    module = ready(tmp_path, normal_dir="Free", abnormal_dir=["Hole", "Crack"], mask_suffix=".png")
    assert classes(module) == {"Crack": 2, "Free": 2, "Hole": 4}
    masks, known = module.masks(module.ready.test)
    assert known.tolist() == [True, True, True, False, True, False, False, False]
    assert np.argwhere(masks.any(axis=2)).tolist() == [[2, 1], [4, 5]]


def test_masks_in_a_folder_of_their_own(tmp_path: Path) -> None:
    draw(tmp_path / "ok", 6)
    draw(tmp_path / "ok_test", 2)
    draw(tmp_path / "bad", 2)
    draw_mask(tmp_path / "masks/001.png", 3)
    options = {"normal_dir": ["ok"], "abnormal_dir": "bad", "normal_test_dir": "ok_test"}
    module = ready(tmp_path, **options, mask_dir="masks")
    assert classes(module) == {"bad": 2, "ok_test": 2}
    assert len(module.ready.train) + len(module.ready.val) == 6
    masks, known = module.masks(module.ready.test)
    assert known.tolist() == [True, True, False, True]
    assert masks[3, 3].all()
    draw(tmp_path / "worse", 2)
    with pytest.raises(DataError, match=r"masks/001\.png: is the mask of images in several folders"):
        ready(tmp_path, **{**options, "abnormal_dir": ["bad", "worse"]}, mask_dir="masks")
    draw_mask(tmp_path / "masks/worse/000_mask.png", 3)
    module = ready(tmp_path, **{**options, "abnormal_dir": ["bad", "worse"]}, mask_dir="masks")
    assert module.summary()["n_masks"] == 2


def test_mask_that_fits_no_image(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    draw(tmp_path / "train/good", 4)
    draw(tmp_path / "test/bent", 2)
    draw_mask(tmp_path / "ground_truth/bent/0_mask.png", 1)
    with pytest.raises(
        DataError, match=r"ground_truth/bent: no file there is named after an image of .*test/bent"
    ):
        ready(tmp_path)
    draw_mask(tmp_path / "ground_truth/bent/000_mask.png", 1)
    with caplog.at_level(logging.INFO):
        ready(tmp_path)
    assert "no image belongs to 0_mask.png" in caplog.text
    assert "1 of 2 anomalous images have no mask" in caplog.text
    draw_mask(tmp_path / "ground_truth/bent/000.png", 1)
    with pytest.raises(DataError, match=r"000_mask\.png: 000\.png is a mask of the same image"):
        ready(tmp_path)


def test_layout_that_is_not_understood_lists_what_there_is(tmp_path: Path) -> None:
    draw(tmp_path / "Free", 3)
    draw(tmp_path / "Hole", 3)
    with pytest.raises(DataError, match=r"no folder train/good.* folders Free, Hole; set .*data\.normal_dir"):
        ready(tmp_path)
    with pytest.raises(
        DataError, match=r"data\.normal_dir names the folder 'free', .*mean 'Free'.*there: Free, Hole"
    ):
        ready(tmp_path, normal_dir="free")
    with pytest.raises(DataError, match=r"data\.abnormal_dir names the folder 'Dent'"):
        ready(tmp_path, normal_dir="Free", abnormal_dir="Dent")
    with pytest.raises(DataError, match=r"Free/000\.png: is among the images of two splits"):
        ready(tmp_path, normal_dir="Free", normal_test_dir="Free")
    (tmp_path / "Empty").mkdir()
    with pytest.raises(DataError, match=r"Empty: holds no image; supported: \.png"):
        ready(tmp_path, normal_dir="Empty")


@pytest.mark.parametrize("root", [None, "nowhere"])
def test_root_must_be_a_folder(tmp_path: Path, root: str | None) -> None:
    with pytest.raises((ConfigError, DataError), match=r"data\.root=(<folder|.*nowhere is not a folder)"):
        ready(None if root is None else tmp_path / root)  # type: ignore[arg-type]


def test_one_normal_image_is_too_few(tmp_path: Path) -> None:
    draw(tmp_path / "train/good", 1)
    draw(tmp_path / "test/good", 1)
    with pytest.raises(DataError, match="no more than 1 normal training image"):
        ready(tmp_path)
    draw(tmp_path / "train/good", 2)
    assert len(ready(tmp_path).ready.train) == 1


def test_corrupt_image_is_named(tmp_path: Path) -> None:
    draw(tmp_path / "train/good", 5)
    (tmp_path / "train/good/002.png").write_bytes(b"not an image")
    module = ready(tmp_path, val_fraction=0.01)
    with pytest.raises(DataError, match=r"002\.png: is damaged or no image"):
        [*module.train_dataloader(), *module.val_dataloader()]
