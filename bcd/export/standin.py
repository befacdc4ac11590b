"""An exported file as the module that `Task.evaluate` asks for, so that no metric is written twice.

Such a module has no parameters, takes images on the CPU, and cannot be trained.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from bcd.export.decode import decode
from bcd.export.runtime import Opened
from bcd.models.detection.detector import Detections, Sizes


class ExportedSegmentor(nn.Module):
    """Maps images float32 (N, 3, H, W) to a dict with `logits`, float32 (N, classes, H, W)."""

    def __init__(self, opened: Opened):
        super().__init__()
        self.opened = opened

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {name: torch.from_numpy(output) for name, output in _outputs(self.opened, image).items()}


class ExportedDetector(nn.Module):
    """Detects as `bcd.models.detection.detector.Detector` does; its `neck` are the class scores of its graph."""

    def __init__(self, opened: Opened):
        super().__init__()
        self.opened, self.scores, self.taps = opened, nn.Identity(), {"neck": "scores"}

    def detect(self, image: Tensor, sizes: Sizes, originals: Sizes) -> list[Detections]:
        """See `Detector.detect`."""
        outputs = _outputs(self.opened, image)
        self.scores(torch.from_numpy(outputs["class_logits"]))
        padded = (image.shape[2], image.shape[3])
        return [
            detections({name: output[i : i + 1] for name, output in outputs.items()}, self.opened, padded, *each)
            for i, each in enumerate(zip(sizes, originals, strict=True))
        ]


def stand_in(opened: Opened) -> ExportedSegmentor | ExportedDetector:
    """A file as a module in evaluation mode."""
    return (ExportedSegmentor if opened.metadata.task == "semantic" else ExportedDetector)(opened).eval()


def detections(
    outputs: dict[str, np.ndarray],
    opened: Opened,
    padded: tuple[int, int],
    size: tuple[int, int],
    original: tuple[int, int],
) -> Detections:
    """The objects in one image, in the pixels that it had before it was resized.

    outputs: of the file, for this image alone. padded, size, original: heights and widths of the input, of the image in
    it, and of the image before.
    """
    decoding = opened.metadata.decoding
    assert decoding is not None  # every detector has it
    found = decode(outputs, decoding, size, padded)
    boxes, scores, classes = (torch.from_numpy(found[name]) for name in ("boxes", "scores", "classes"))
    factors = torch.tensor([original[1] / size[1], original[0] / size[0]] * 2, dtype=torch.float32)
    return Detections(boxes * factors, scores, classes)


def _outputs(opened: Opened, image: Tensor) -> dict[str, np.ndarray]:
    return opened.run(np.ascontiguousarray(image.numpy()))
