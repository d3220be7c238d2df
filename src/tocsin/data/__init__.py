"""Datamodules, splits, windows and synthetic generators."""
