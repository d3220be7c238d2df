"""What jobs are forked from has imported all they need, and has left the GPUs alone: else a fork cannot use them."""

import subprocess
import sys

import pytest

CHECK = """
import sys
import torch

def touched(*arguments):
    raise AssertionError("a GPU was looked at")

torch.cuda.is_available = torch.cuda.device_count = torch.cuda.init = touched
import tocsin.service.patch_preload
assert not torch.cuda.is_initialized()
for name in ("tocsin.pipeline", "tocsin.models.yolo_patch", "ultralytics.nn.tasks"):
    assert name in sys.modules, name
"""


@pytest.mark.slow
def test_imports_touch_no_gpu() -> None:
    subprocess.run([sys.executable, "-c", CHECK], check=True)
