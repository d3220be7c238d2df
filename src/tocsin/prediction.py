"""Scores new data with a trained checkpoint: series from a file or row by row, images from a folder, patches too."""

from omegaconf import DictConfig

from tocsin.config import check, locate


def predict(cfg: DictConfig) -> None:
    """Score `cfg.input` and write `cfg.output`, as the kind of data of the checkpoint asks."""
    check(cfg)
    kind = locate(cfg.task._target_).accepts  # type: ignore[attr-defined]
    if kind == "image":
        from tocsin.image_prediction import predict_images

        predict_images(cfg)
    elif kind == "classification":
        from tocsin.class_prediction import predict_classes

        predict_classes(cfg)
    elif kind == "detection":
        from tocsin.patch_prediction import predict_patches

        predict_patches(cfg)
    else:
        from tocsin.series_prediction import predict_series

        predict_series(cfg)
