"""Imports all that patch jobs need. The process that they are forked from does it once, and they start at once."""

from contextlib import suppress

import tocsin.callbacks.iterations
import tocsin.data.coco_person
import tocsin.models.art_patch
import tocsin.models.yolo_patch
import tocsin.pipeline
import tocsin.service.patch_process
import tocsin.tasks.patch_attack  # noqa: F401
from tocsin.errors import ConfigError
from tocsin.models.attack_packages import require_ultralytics

with suppress(ConfigError):  # a job says that it is missing
    require_ultralytics()
