"""Tocsin: train, threshold, compare and deploy detectors of what should not be there.

The package root imports nothing, so that `import tocsin` and `--help` answer at once.
"""

__version__ = "0.1.0"
