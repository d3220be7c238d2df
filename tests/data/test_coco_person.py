"""People for patches: the same whatever they are stored in, splits, order of a resumed run, what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_coco import draw_image, small_coco, write_coco

from tocsin.data.catalog import import_coco
from tocsin.data.coco_person import CocoPerson
from tocsin.data.sharing import shared_out
from tocsin.data.synthetic.figures import figures
from tocsin.errors import ConfigError, DataError

SIZE = {"size": 96, "min_height": 16, "batch_size": 4, "score_batch_size": 7}


class Process:
    """What a datamodule asks of the Trainer."""

    def __init__(self, epoch: int = 0) -> None:
        self.current_epoch = epoch


def ready(root: Any = None, *, trainer: Process | None = None, **options: Any) -> CocoPerson:
    module = CocoPerson(root=root, **{**SIZE, **options})
    module.trainer = trainer  # type: ignore[assignment]
    module.setup()
    return module


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A COCO folder of 40 images: figures, dogs, a group in every fifth image, and six images without a person."""
    folder = tmp_path_factory.mktemp("street")
    rng = np.random.default_rng(0)
    content: dict[str, Any] = {"images": [], "annotations": [], "categories": small_coco()["categories"]}
    for index in range(40):
        height, width = rng.integers(60, 160, 2).tolist()
        name = f"{'ab'[index % 2]}/{index:02}.png"
        draw_image(folder / "images" / name, height, width, value=index * 6)
        content["images"].append({"id": index, "file_name": name, "height": height, "width": width})
        for number in range(int(rng.integers(1, 5))):
            x, y = rng.uniform(0, 0.5, 2) * (width, height)
            w, h = rng.uniform(0.3, 0.5, 2) * (width, height)
            content["annotations"].append(
                {
                    "id": len(content["annotations"]),
                    "image_id": index,
                    "category_id": 1 if index < 34 else 18,
                    "bbox": [x, y, w, h],
                    "iscrowd": int(index % 5 == 0 and number == 1),
                }
            )
    write_coco(folder, content, images=False)
    return folder


def write_yolo(source: Path, target: Path) -> Path:
    """The persons of a COCO folder that are no groups, as text files beside the same images."""
    content = json.loads((source / "instances.json").read_text())
    shutil.copytree(source / "images", target / "images")
    by_id = {image["id"]: image for image in content["images"]}
    for entry in content["annotations"]:
        if entry["category_id"] == 1 and not entry["iscrowd"]:
            image = by_id[entry["image_id"]]
            x, y, w, h = entry["bbox"]
            file = (target / "labels" / image["file_name"]).with_suffix(".txt")
            file.parent.mkdir(parents=True, exist_ok=True)
            width, height = image["width"], image["height"]
            with file.open("a") as lines:
                shares = ((x + w / 2) / width, (y + h / 2) / height, w / width, h / height)
                lines.write(" ".join(map(str, (0, *shares))) + "\n")
    return target


def shown(module: CocoPerson) -> list[int]:
    """Positions of an epoch, in order."""
    return [position for batch in module.train_dataloader() for position in batch.position.tolist()]


# --- where images come from ---------------------------------------------------------------------------------


def test_the_same_from_a_folder_a_file_and_a_database(root: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    import_coco(root / "instances.json", root / "images", url, name="street")
    modules = [
        ready(root),
        ready(root / "instances.json"),
        ready(root / "instances.json", images=root / "images"),
        ready(url),
        ready(url, dataset="street", images=root / "images"),
    ]
    expected = modules[0].summary()
    assert expected["n_boxes"] > 40
    for module in modules[1:]:
        assert {**module.summary(), "source": None} == {**expected, "source": None}
    assert [module.source for module in modules] == [root.name, root.name, root.name, "a", "street"]


def test_the_same_from_text_files(root: Path, tmp_path: Path) -> None:
    coco, yolo = ready(root), ready(write_yolo(root, tmp_path / "yolo"))
    for name, images in coco.parts.items():
        assert [path.name for path in yolo.parts[name].paths] == [path.name for path in images.paths]
        expected, found = coco.squares(images), yolo.squares(yolo.parts[name])
        single = ~expected.crowd  # text files know no groups
        assert found.boxes == pytest.approx(expected.boxes[single], abs=1e-4)
        assert (found.target == expected.target[single]).all()


def test_figures_are_drawn_and_cached(tmp_path: Path) -> None:
    options = {"n_images": 9, "data_seed": 5, "min_height": 1}
    module = ready(cache_dir=tmp_path, **options)
    (folder,) = tmp_path.iterdir()
    assert folder.name.startswith("figures-")
    before = (folder / "instances.json").stat().st_mtime_ns
    again, fresh, other = (
        ready(cache_dir=tmp_path, **options),
        ready(**options),
        ready(**{**options, "data_seed": 6}),
    )
    assert (folder / "instances.json").stat().st_mtime_ns == before
    assert module.summary() == again.summary() == fresh.summary()
    assert module.summary()["source"] == "figures"
    assert other.summary()["fingerprint"] != module.summary()["fingerprint"]
    drawn = figures(n_images=9, size=96, seed=5)
    test = module.ready.test
    (batch,) = module.test_dataloader()
    for place, path in enumerate(test.paths):
        index = int(path.stem)
        expected = torch.from_numpy(drawn.images[index]).permute(2, 0, 1).float() / 255
        assert torch.equal(batch.image[place], expected)
        own = {tuple(box) for box in drawn.boxes[drawn.owner == index].tolist()}
        assert {tuple(box) for box in batch.boxes[batch.owner == place].tolist()} == own


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_images": 0}, ConfigError, "data=coco_person: n_images=0 is not a positive number"),
        ({"size": 32}, ConfigError, "data=coco_person: size=32 is too small for figures"),
        ({"n_images": 9, "category": "dog"}, ConfigError, "data.category=dog is not there; it has 1 person"),
        (
            {"dataset": "street"},
            ConfigError,
            "data.dataset=street needs data.root; without it figures are drawn",
        ),
        ({"images": "pictures"}, ConfigError, "data.images=pictures needs data.root"),
        (
            {"n_images": 9, "min_height": 500},
            DataError,
            "figures: 0 of 9 images show a target .person, 500 pixels",
        ),
    ],
)
def test_figures_that_cannot_be_drawn(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ready(**options)


def test_root_that_cannot_be_read(root: Path, tmp_path: Path) -> None:
    for wrong in (tmp_path / "no", tmp_path):
        with pytest.raises(
            DataError, match=r"data\.root=.* is none of: a folder with instances\.json and images/"
        ):
            ready(wrong)
    with pytest.raises(
        ConfigError, match=r"data.dataset=street is a name in a catalogue, but data.root=.* is no data"
    ):
        ready(root, dataset="street")
    yolo = write_yolo(root, tmp_path / "yolo")
    with pytest.raises(
        ConfigError, match=r"data.images=pictures goes with COCO files and catalogues, but .* labels/"
    ):
        ready(yolo, images="pictures")


def test_image_of_another_size_than_annotated(tmp_path: Path) -> None:
    file = write_coco(tmp_path, small_coco())
    draw_image(tmp_path / "images" / "b.png", 60, 40)
    with pytest.raises(DataError, match=r"b\.png: is 40 x 60 pixels, but its boxes were drawn on 60 x 40"):
        ready(file)


def test_broken_boxes_can_be_left_out(root: Path, tmp_path: Path) -> None:
    content = json.loads((root / "instances.json").read_text())
    content["annotations"][0]["bbox"][2] = 0
    file = tmp_path / "broken.json"
    file.write_text(json.dumps(content))
    with pytest.raises(
        DataError, match=r"annotation 0 of a/00\.png: the box is 0 x .*data\.skip_broken=true"
    ):
        ready(file, images=root / "images")
    module = ready(file, images=root / "images", skip_broken=True)
    assert module.manifest()["boxes"].sum() == ready(root).manifest()["boxes"].sum() - 1


# --- splits -------------------------------------------------------------------------------------------------


def test_splits_are_disjoint_and_complete(root: Path) -> None:
    table = ready(root).manifest()
    assert table["path"].is_unique
    assert len(table) == 40
    counts = table["split"].value_counts()
    assert counts["test"] == pytest.approx(40 / 3, abs=1.5)
    assert counts["val"] == pytest.approx(0.15 * 40 * 2 / 3, abs=1.5)
    trained = table[table["split"] == "train"]
    assert (trained["targets"] > 0).all()
    assert (table[table["split"] == "unused"]["targets"] == 0).all()
    assert (table[table["split"] == "test"]["targets"] == 0).any()  # a detector must find nothing there


def test_seed_of_the_splits_is_its_own(root: Path) -> None:
    one, other_seed, other_split = ready(root), ready(root, seed=7), ready(root, split_seed=7)
    assert one.summary()["fingerprint"] == other_seed.summary()["fingerprint"]
    assert one.ready.test.paths != other_split.ready.test.paths


def test_fewer_images(root: Path) -> None:
    table = ready(root, max_images=20).manifest()
    assert len(table) == 20
    assert set(table["path"]) < set(ready(root).manifest()["path"])


def test_summary_counts(root: Path) -> None:
    module = ready(root)
    summary, table = module.summary(), module.manifest()
    used = table[table["split"] != "unused"]
    for name in ("train", "val", "test"):
        assert summary[f"n_{name}"] == (table["split"] == name).sum()
    assert (summary["n_boxes"], summary["n_targets"]) == (used["boxes"].sum(), used["targets"].sum())
    assert 0 < summary["n_targets"] < summary["n_boxes"]
    json.dumps(summary)


def test_fingerprint_sees_boxes_and_pixels_but_not_the_place(root: Path, tmp_path: Path) -> None:
    before = ready(root).fingerprint()
    moved = tmp_path / "moved"
    shutil.copytree(root, moved)
    assert ready(moved).fingerprint() == before
    content = json.loads((moved / "instances.json").read_text())
    content["annotations"][5]["bbox"][2] *= 0.9
    (moved / "instances.json").write_text(json.dumps(content))
    assert ready(moved).fingerprint() != before
    shutil.copy(root / "instances.json", moved / "instances.json")
    assert ready(moved).fingerprint() == before
    pixels = (moved / "images" / "a" / "02.png").read_bytes()
    (moved / "images" / "a" / "02.png").write_bytes(pixels + b"0")
    assert ready(moved).fingerprint() != before


# --- batches ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cache", [True, False])
def test_scoring_shows_all_in_order(root: Path, cache: bool) -> None:
    module = ready(root, cache=cache)
    for loader, images in (
        (module.val_dataloader(), module.ready.val),
        (module.test_dataloader(), module.ready.test),
    ):
        batches = list(loader)
        assert torch.cat([batch.position for batch in batches]).tolist() == list(range(len(images)))
        boxes = torch.cat([batch.boxes for batch in batches]).numpy()
        assert (boxes == module.squares(images).boxes).all()
        pictures = module.pictures(images, [1, 0])
        assert pictures.dtype == np.float32
        assert (pictures == batches[0].image[[1, 0]].permute(0, 2, 3, 1).numpy()).all()


def test_boxes_lie_on_the_image_and_not_on_the_padding(root: Path) -> None:
    module = ready(root)
    for batch in module.test_dataloader():
        gray = torch.isclose(batch.image[:, 0], torch.tensor(114 / 255), atol=1e-6)
        for box, owner in zip(batch.boxes.round().int().tolist(), batch.owner.tolist(), strict=True):
            left, top, right, bottom = box
            assert not gray[owner, top + 1 : bottom - 1, left + 1 : right - 1].any()


def test_an_epoch_shows_full_batches_and_a_pass_is_completed_by_the_next(root: Path) -> None:
    epochs = [shown(ready(root, trainer=Process(epoch=epoch))) for epoch in range(6)]
    n_train = len(ready(root).ready.train)
    assert {len(epoch) for epoch in epochs} == {n_train // 4 * 4}
    shown_first = [position for epoch in epochs for position in epoch][:n_train]
    assert sorted(shown_first) == list(range(n_train))
    assert epochs[0] != epochs[1]


def test_resumed_run_sees_what_an_uninterrupted_one_does(root: Path) -> None:
    module = ready(root, steps_per_epoch=3)
    loader = module.train_dataloader()
    run = []
    for epoch in range(4):
        loader.sampler.set_epoch(epoch)  # as the Trainer does
        run.append([position for batch in loader for position in batch.position.tolist()])
    assert [len(epoch) for epoch in run] == [12] * 4
    for epoch in range(4):
        assert shown(ready(root, steps_per_epoch=3, trainer=Process(epoch=epoch))) == run[epoch]
    assert shown(ready(root, steps_per_epoch=3, seed=1)) != run[0]


def test_processes_share_an_epoch(root: Path) -> None:
    whole = ready(root, steps_per_epoch=2, batch_size=4).train_dataloader()
    pair = [shared_out(whole, world=2, rank=rank) for rank in (0, 1)]
    for batch, *parts in zip(whole, *pair, strict=True):
        assert [p for part in parts for p in part.position.tolist()] == batch.position.tolist()


def test_single_pass(root: Path) -> None:
    module = ready(root, steps_per_epoch=50)
    module.single_pass()
    assert len(shown(module)) == len(module.ready.train) // 4 * 4


# --- options ------------------------------------------------------------------------------------------------


def test_restored_like_the_trained_run(root: Path) -> None:
    trained = ready(root, size=64, min_height=20, max_boxes=2)
    state = json.loads(json.dumps(trained.scoring_state()))
    fresh = CocoPerson(root=root, **SIZE)
    fresh.restore(state)
    fresh.setup()
    assert fresh.dims() == trained.dims() == {"image_size": 64}
    assert fresh.summary() == trained.summary()
    assert next(iter(fresh.test_dataloader())).image.shape[-1] == 64


@pytest.mark.parametrize(
    ("option", "value", "error", "message"),
    [
        ("size", 100, ConfigError, "data.size=100 is not a multiple of 32"),
        ("max_boxes", 0, DataError, "data.max_boxes=0 is not a positive number"),
        ("max_images", 0, DataError, "data.max_images=0 is not a positive number"),
        ("batch_size", 0, DataError, "data.batch_size=0 is not a positive number"),
        ("test_fraction", 0, ConfigError, "data.test_fraction=0 is not between 0 and 1"),
        ("val_fraction", 1.0, ConfigError, "data.val_fraction=1.0 is not between 0 and 1"),
        ("min_height", -1, ConfigError, "data.min_height=-1 is below 0"),
    ],
)
def test_option_out_of_range(option: str, value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        CocoPerson(**{option: value})


def test_splits_before_setup() -> None:
    with pytest.raises(RuntimeError, match="call setup"):
        _ = CocoPerson().ready
