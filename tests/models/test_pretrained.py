"""Where the weights of a network of timm come from, and what is said when they are not there."""

import logging
from pathlib import Path

import pytest
import torch

from tocsin.errors import ConfigError
from tocsin.models.pretrained import Normalise, timm_network

NAME = "tf_efficientnet_lite0"


def test_weights_of_a_file_are_those_of_the_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    saved = timm_network(NAME, weights=None, options={}).state_dict()
    torch.save(saved, tmp_path / "w.pth")
    loaded = timm_network(NAME, weights=str(tmp_path / "w.pth"), options={})
    fresh = timm_network(NAME, weights=None, options={})
    key = "conv_stem.weight"
    assert torch.equal(loaded.state_dict()[key], saved[key])
    assert not torch.equal(fresh.state_dict()[key], saved[key])


def test_random_weights_are_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        timm_network(NAME, weights="random", options={})
    assert "pretrained: false" in caplog.text


def test_missing_file_says_how_to_get_weights() -> None:
    with pytest.raises(
        ConfigError, match=r"weights=nowhere\.pth is neither hub, random nor a file; .*download"
    ):
        timm_network(NAME, weights="nowhere.pth", options={})


def test_weights_of_another_network_are_refused_in_one_line(tmp_path: Path) -> None:
    torch.save(timm_network(NAME, weights=None, options={}).state_dict(), tmp_path / "w.pth")
    with pytest.raises(ConfigError, match=r"w\.pth of resnet18 cannot be loaded: ") as caught:
        timm_network("resnet18", weights=str(tmp_path / "w.pth"), options={})
    assert "\n" not in str(caught.value)


def test_unknown_name_names_similar_ones() -> None:
    with pytest.raises(ConfigError, match=r"no model 'resnet1000'; similar: .*resnet"):
        timm_network("resnet1000", weights="random", options={})


def test_normalise_is_what_the_network_was_trained_with() -> None:
    normalise = Normalise.of(timm_network(NAME, weights=None, options={"features_only": True}))
    assert torch.allclose(normalise(torch.full((1, 3, 2, 2), 0.75)), torch.tensor(0.5))
