"""The stand-in sees drawn figures it has not met, and is trained once."""

import time
from pathlib import Path

import pytest
import torch
from torchvision.ops import box_iou

from tocsin.data.synthetic.figures import figures
from tocsin.models import standin
from tocsin.models.standin import standin_network
from tocsin.models.yolo_victim import load_victim

TINY = {"steps": 1, "n_images": 3, "size": 64}


def test_same_seed_gives_the_same_weights_and_leaves_the_generator_alone() -> None:
    before = torch.get_rng_state()
    first, second, other = (standin_network(seed=seed, **TINY).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_trained_once_for_each_set_of_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = []
    train = standin._train
    monkeypatch.setattr(
        standin, "_train", lambda network, **options: (trained.append(options), train(network, **options))
    )
    folder = tmp_path / "cache"
    first = standin_network(cache_dir=folder, **TINY)
    again = standin_network(cache_dir=folder, **TINY)
    assert len(trained) == 1
    assert torch.equal(first(torch.ones(1, 3, 64, 64))[0], again(torch.ones(1, 3, 64, 64))[0])
    standin_network(cache_dir=folder, **{**TINY, "n_images": 4})
    standin_network(cache_dir=folder, seed=1, **TINY)
    assert len(trained) == 3
    assert len(list(folder.glob("standin-*.pt"))) == 3
    assert not [path for path in folder.iterdir() if path.suffix == ".tmp"]


def test_boxes_of_a_batch_are_mirrored_with_their_images() -> None:
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    images[0, :, 2:4, 1:3] = 255
    images[1, :, 4:6, 5:8] = 255
    boxes = torch.tensor([[1.0, 2, 3, 4], [5, 4, 8, 6]]) / 8
    pixels, labels = standin._batch(images, boxes, torch.tensor([0, 1]), torch.tensor([0, 1] * 10))
    assert labels["batch_idx"].tolist() == list(range(20))
    assert len({float(x) for x in labels["bboxes"][::2, 0]}) == 2  # some mirrored, some not
    for image, (x, y, width, height) in zip(pixels, (labels["bboxes"] * 8).tolist(), strict=True):
        left, top = round(x - width / 2), round(y - height / 2)
        inside = image[:, top : top + round(height), left : left + round(width)]
        assert inside.min() == 1
        assert image.sum() == inside.sum()


@pytest.mark.slow
def test_standin_sees_figures_it_has_not_met(tmp_path: Path) -> None:
    begin = time.process_time()
    victim = load_victim("standin", cache_dir=tmp_path)
    assert time.process_time() - begin < 300
    drawn = figures(n_images=48, size=160, seed=999)
    found = victim.detect(torch.from_numpy(drawn.images).permute(0, 3, 1, 2).float() / 255)
    sure = found.scores >= 0.25
    same = torch.from_numpy(drawn.owner)[:, None] == found.owner[sure]
    hit = (box_iou(torch.from_numpy(drawn.boxes), found.boxes[sure]) >= 0.5) & same
    assert hit.any(dim=1).float().mean() > 0.7
    assert hit.any(dim=0).float().mean() > 0.7
