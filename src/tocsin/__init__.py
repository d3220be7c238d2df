"""Tocsin: train, threshold, compare and deploy detectors of what should not be there.

The package root imports nothing heavy, so that `import tocsin` and `--help` answer at once.
"""

import os

# When imported, albumentations asks the network for newer versions of itself; here, nothing leaves the machine.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

__version__ = "0.1.0"
