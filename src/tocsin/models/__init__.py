"""Detectors: plain `nn.Module`s, one file per method, no Lightning."""
