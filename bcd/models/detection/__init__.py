"""Detectors: `build_detector` makes one of either engine from its parameters."""

from __future__ import annotations

from collections.abc import Sequence

from bcd.config.schema.models import DetectionModel
from bcd.models.detection.detector import Detector


def build_detector(model: DetectionModel, classes: int, names: Sequence[str] = ()) -> Detector:
    """Build the detector that `model` describes; float32, on the CPU, in training mode.

    Random initial weights come from torch's global generator alone, so seed it first.
    `names` are those of the classes, by which a weights file that names its own is brought to their order and number.
    Raises UserError naming the field for what the engine does not offer, and for an engine that is not installed.

    Example:
        >>> model = DetectionModel(backbone="resnet18", head="retinanet", channels=256, detection={})
        >>> [tap for tap in build_detector(model, classes=80).taps if tap.startswith("p")]
        ['p3', 'p4', 'p5', 'p6', 'p7']
    """
    if model.detection.engine == "detectron2":
        from bcd.models.detection.detectron2_detector import build as build_with_detectron2

        return build_with_detectron2(model, classes, names)
    from bcd.models.detection.torchvision_detector import build

    return build(model, classes, names)
