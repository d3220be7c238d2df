"""Images by class: how they are split, balanced and drawn."""

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import pytest
import torch
from test_folder import draw

from tocsin.data.defects import Defects
from tocsin.data.sharing import shared_out
from tocsin.errors import ConfigError, DataError

SIZE = {"height": 8, "width": 12, "batch_size": 8}


class Process:
    """What a datamodule asks of the Trainer."""

    def __init__(self, epoch: int = 0) -> None:
        self.current_epoch = epoch


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """415 + 624 images in the shares of a published set, a twentieth of it: 21 ok, 31 defective, and 12 cracked."""
    root = tmp_path_factory.mktemp("parts")
    for name, count, value in (("ok_front", 21, 50), ("def_front", 31, 100), ("crack", 12, 200)):
        draw(root / name, count, value=value)
    return root


def ready(root: Path | None, *, trainer: Process | None = None, **options: Any) -> Defects:
    module = Defects(root=root, **{**SIZE, **options})
    module.trainer = trainer  # type: ignore[assignment]
    module.setup()
    return module


def drawn(module: Defects) -> list[tuple[int, int]]:
    """Positions and labels of an epoch, in order."""
    return [
        pair
        for b in module.train_dataloader()
        for pair in zip(b.position.tolist(), b.label.tolist(), strict=True)
    ]


def table(folder: Path, *rows: str, header: str = "path,label") -> Path:
    file = folder / "images.csv"
    file.write_text("\n".join([header, *rows]) + "\n")
    return file


# --- classes and splits -------------------------------------------------------------------------------------


def test_folders_are_classes(folders: Path) -> None:
    module = ready(folders)
    assert module.classes == ("crack", "def_front", "ok_front")
    assert module.ok_class == "ok_front"
    for images in module.parts.values():
        folder_names = [path.parent.name for path in images.paths]
        assert [module.classes[label] for label in module.labels(images)] == folder_names
        assert (images.labels == (np.array(folder_names) != "ok_front")).all()


@pytest.mark.parametrize(
    ("names", "asked", "found"),
    [
        (("Good", "bad"), None, "Good"),
        (("MT_Free", "MT_Crack"), None, "MT_Free"),
        (("inclusion", "patches"), None, None),
        (("inclusion", "patches"), "patches", "patches"),
        (("ok", "good"), "good", "good"),
    ],
)
def test_class_without_defects(
    tmp_path: Path, names: tuple[str, ...], asked: str | None, found: str | None
) -> None:
    for name in names:
        draw(tmp_path / name, 6)
    module = ready(tmp_path, ok_class=asked)
    assert module.ok_class == found
    assert (module.ready.test.labels is None) == (found is None)
    assert module.summary()["anomaly_rate"] == (None if found is None else 0.5)


def test_splits_are_stratified_disjoint_and_listed(folders: Path) -> None:
    module = ready(folders)
    manifest = module.manifest()
    assert manifest.columns.tolist() == ["path", "split", "class", "group"]
    assert manifest["path"].is_unique
    counts = manifest.groupby(["class", "split"]).size().unstack()
    assert counts.loc["def_front", ["train", "val", "test"]].tolist() == [21, 5, 5]
    assert counts.loc["ok_front", ["train", "val", "test"]].tolist() == [15, 3, 3]
    assert counts.loc["crack", ["train", "val", "test"]].tolist() == [8, 2, 2]
    same, other = ready(folders, seed=5).manifest(), ready(folders, split_seed=5).manifest()
    assert same.equals(manifest)
    assert not other.equals(manifest)


def test_groups_of_a_table_stay_together(tmp_path: Path) -> None:
    draw(tmp_path / "any", 60)
    rows = [f"any/{n:03}.png,{'ok' if n % 10 < 5 else 'dent'},part{n // 3}" for n in range(60)]
    module = ready(table(tmp_path, *rows, header="path, label, group"))
    groups = [set(images.groups.tolist()) for images in module.parts.values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 20
    assert module.summary()["groups"] == 20
    assert set(module.manifest()["group"]) == {f"part{n}" for n in range(20)}


def test_pattern_groups_by_file_name(tmp_path: Path) -> None:
    draw(tmp_path / "a", 40)
    draw(tmp_path / "ok", 40)
    module = ready(tmp_path, group_by=r"(\d\d)\d")  # 000 to 009 are a group over both classes
    assert module.summary()["groups"] == 4
    with pytest.raises(DataError, match=r"data\.group_by=part finds nothing in 000"):
        ready(tmp_path, group_by="part")
    with pytest.raises(ConfigError, match=r"data\.group_by=\( is neither phash nor a regular expression"):
        ready(tmp_path, group_by="(")


def test_copies_stay_on_one_side(tmp_path: Path) -> None:
    """Without groups they leak; with them, a copy is where its original is."""
    rng = np.random.default_rng(0)
    for name in ("ok", "dent"):
        (tmp_path / name).mkdir()
        for number in range(12):
            part = cv2.GaussianBlur(rng.integers(0, 256, (64, 64), dtype=np.uint8), (0, 0), 1)
            for turn in range(2):
                assert cv2.imwrite(
                    str(tmp_path / name / f"{turn}_{number:02}.png"), np.rot90(part, turn).copy()
                )

    def leaks(module: Defects) -> int:
        table = module.manifest()
        table["part"] = table["class"] + table["path"].str[-6:]
        return int((table.groupby("part")["split"].nunique() > 1).sum())

    loose, kept = ready(tmp_path), ready(tmp_path, group_by="phash")
    assert leaks(loose) > 0
    assert leaks(kept) == 0
    assert kept.summary()["near_duplicates"] == 48
    assert kept.summary()["groups"] == 24
    assert loose.summary()["near_duplicates"] is None


# --- balance ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("balance", "weights", "priors"),
    [
        ("none", None, None),
        ("sampler", None, None),
        ("loss", [0.8325, 1.2518], None),
        ("effective_number", [0.8723, 1.1921], None),
        ("logit_adjust", None, [-0.5099, -0.9177]),
    ],
)
def test_weights_of_a_published_set(
    balance: str, weights: Any, priors: Any, caplog: pytest.LogCaptureFixture
) -> None:
    module = Defects(root=None, balance=balance, cache=False)
    module.classes = ("defective", "ok")
    names = np.array(["defective"] * 624 + ["ok"] * 415)
    module.splits = type("Splits", (), {"train": type("Set", (), {"classes": tuple(names)})})  # type: ignore[assignment]
    dims = module.dims()
    assert dims["n_classes"] == 2
    for found, expected in ((dims["class_weights"], weights), (dims["log_priors"], priors)):
        assert found == (None if expected is None else pytest.approx(expected, abs=2e-4))
    if weights is not None:
        assert np.average(dims["class_weights"], weights=[624, 415]) == pytest.approx(1)
    with caplog.at_level(logging.INFO):
        module._tell()
    (line,) = caplog.messages
    assert line.startswith(f"data.balance={balance}: defective 624 images")
    if balance == "loss":
        assert line == "data.balance=loss: defective 624 images, weight 0.833, ok 415 images, weight 1.252"


def test_two_balances_at_once_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"data\.balance=\[sampler,loss\].*two at once count a rare class twice"
    ):
        Defects(balance=["sampler", "loss"])
    with pytest.raises(
        ConfigError, match=r"data\.balance=weights is not one of none, sampler, loss, logit_adjust"
    ):
        Defects(balance="weights")


def test_sampler_draws_equal_shares_and_wastes_nothing(folders: Path) -> None:
    module = ready(folders, balance="sampler", steps_per_epoch=21, batch_size=6)  # two passes of 3 * 21
    for batch in module.train_dataloader():
        assert torch.bincount(batch.label).tolist() == [2, 2, 2]
    labels = np.array([label for _, label in drawn(module)]).reshape(-1, 3)
    assert (np.sort(labels, axis=1) == [0, 1, 2]).all()
    # In one fixed order, three processes would see one class each, and MixUp would pair a class with itself.
    assert len(np.unique(labels, axis=0)) == 6
    counts = Counter(position for position, label in drawn(module) if label == 1)
    assert set(counts.values()) == {2}  # every image of the largest class once a pass
    rare = Counter(position for position, label in drawn(module) if label == 0)
    assert max(rare.values()) - min(rare.values()) <= 2
    assert len(rare) == 8


@pytest.mark.parametrize("balance", ["none", "sampler"])
def test_processes_share_the_draws_and_see_all_classes(folders: Path, balance: str) -> None:
    loader = ready(folders, balance=balance, steps_per_epoch=4, batch_size=12).train_dataloader()
    both = [list(shared_out(loader, world=2, rank=rank)) for rank in (0, 1)]
    for batch, *parts in zip(loader, *both, strict=True):
        assert [len(part.image) for part in parts] == [6, 6]
        assert torch.equal(torch.cat([part.image for part in parts]), batch.image)  # augmented alike
    for batches in both:
        assert set(torch.cat([part.label for part in batches]).tolist()) == {0, 1, 2}


# --- loaders ------------------------------------------------------------------------------------------------


def test_batches_are_full_and_what_is_left_comes_next(folders: Path) -> None:
    module = ready(folders)  # 44 images: 5 batches of 8
    epochs = []
    for epoch in range(11):
        module.trainer = Process(epoch=epoch)  # type: ignore[assignment]
        epochs.append(drawn(module))
        assert len(epochs[-1]) == 40
    positions = [position for pairs in epochs for position, _ in pairs]
    assert set(Counter(positions).values()) == {10}  # 440 draws of 44 images
    assert len(drawn(ready(folders, batch_size=64))) == 44


def test_augmentation_does_not_depend_on_workers_or_resuming(folders: Path) -> None:
    def batches(**options: Any) -> list[Any]:
        augment = [A.HorizontalFlip(p=0.5), A.GaussNoise(std_range=(0.02, 0.08), p=0.9)]
        return list(ready(folders, augment=augment, **options).train_dataloader())

    reference = batches(trainer=Process(epoch=1))
    for other in (
        batches(trainer=Process(epoch=1), num_workers=2),
        batches(trainer=Process(epoch=1), cache=False),
    ):
        assert all(torch.equal(a.image, b.image) for a, b in zip(reference, other, strict=True))
    first = batches(trainer=Process(epoch=0))
    assert not torch.equal(first[0].image, reference[0].image)
    seen: dict[int, torch.Tensor] = {}
    for batch in [*first, *reference]:
        for position, image in zip(batch.position.tolist(), batch.image, strict=True):
            assert position not in seen or not torch.equal(seen[position], image)  # anew each time
            seen[position] = image


def test_validation_and_probe_are_as_they_are_in_natural_shares(folders: Path) -> None:
    module = ready(folders, balance="sampler", augment=[A.InvertImg(p=1)])
    val, probe = module.val_dataloader()
    values = torch.tensor([200, 100, 50]) / 255
    for loader, images in ((val, module.ready.val), (probe, module.ready.train)):
        for batch in loader:
            assert torch.equal(batch.image[:, 0, 4, 4], values[batch.label])
            assert batch.label.tolist() == module.labels(images)[batch.position].tolist()
    labels, probed = (torch.cat([batch.label for batch in loader]) for loader in (val, probe))
    assert torch.bincount(labels).tolist() == [2, 5, 3]
    assert torch.bincount(probed).tolist() == [2, 5, 3]
    train = next(iter(module.train_dataloader()))
    assert torch.allclose(train.image[:, 0, 4, 4], 1 - values[train.label])


def test_contact_sheet(folders: Path) -> None:
    module = ready(folders, augment=[A.InvertImg(p=1)])
    originals, views = module.augmented_pictures(6, 2)
    assert originals.shape == (6, 8, 12, 3)
    assert views.shape == (6, 2, 8, 12, 3)
    assert np.allclose(views, 1 - originals[:, None])
    assert originals.dtype == views.dtype == np.float32
