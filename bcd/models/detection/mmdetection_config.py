"""What MMDetection's checkpoints say of their training: the text of a configuration, beside the tensors."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from bcd.config.zoo import MEAN, STD

HEADS = ("bbox_head.", "rpn_head.", "roi_head.", "mask_head.")
# What parses and evaluates text may raise, of any text.
UNREADABLE = (SyntaxError, ValueError, TypeError, MemoryError, RecursionError)
# Fields that no tensor's name or shape shows, as detectron2's published detectors have them. What a text leaves out has
# MMDetection's default, which is the same.
_ANCHORS: dict[str, object] = {"type": "AnchorGenerator", "ratios": [0.5, 1, 2], "center_offset": 0}
_BOXES: dict[str, object] = {"type": "DeltaXYWHBBoxCoder", "target_means": [0, 0, 0, 0]}
_REGIONS: dict[str, object] = {"type": "SingleRoIExtractor", "featmap_strides": [4, 8, 16, 32], "finest_scale": 56}
_POOLING: dict[str, object] = {"type": "RoIAlign", "sampling_ratio": 0, "sample_num": 0, "aligned": True}
_PARTS: dict[str, dict[str, object]] = {
    "backbone": {"strides": [1, 2, 2, 2], "dilations": [1, 1, 1, 1]},
    "neck": {"type": "FPN", "act_cfg": None},
    "neck.upsample_cfg": {"mode": "nearest"},
}
_DENSE = _PARTS | {
    "bbox_head.anchor_generator": _ANCHORS
    | {
        "octave_base_scale": 4,
        "scales_per_octave": 3,
        "scales": [4 * 2 ** (i / 3) for i in range(3)],
        "strides": [8, 16, 32, 64, 128],
    },
    "bbox_head.bbox_coder": _BOXES | {"target_stds": [1, 1, 1, 1]},
}
_RCNN = _PARTS | {
    "rpn_head.anchor_generator": _ANCHORS | {"scales": [8], "strides": [4, 8, 16, 32, 64]},
    "rpn_head.bbox_coder": _BOXES | {"target_stds": [1, 1, 1, 1]},
    "roi_head.bbox_head.bbox_coder": _BOXES | {"target_stds": [0.1, 0.1, 0.2, 0.2]},
    "roi_head.bbox_roi_extractor": _REGIONS,
    "roi_head.mask_roi_extractor": _REGIONS,
    "roi_head.bbox_roi_extractor.roi_layer": _POOLING,
    "roi_head.mask_roi_extractor.roi_layer": _POOLING,
}


def is_mmdetection(state: Mapping[str, Tensor]) -> bool:
    """Whether these are the tensors of a detector of MMDetection, of whatever architecture."""
    return any(key.startswith(HEADS) for key in state)


@dataclass(frozen=True)
class Trained:
    """How a detector of MMDetection was trained, as far as its file tells.

    caffe    its bottlenecks have their stride in the first 1x1 convolution (`style`)
    bgr      the channels of its images are blue, green and red
    mean     taken from each channel, in the order red, green, blue
    std      divided by after that, in the same order
    p7_relu  a ReLU stands between P6 and P7 of a RetinaNet
    """

    caffe: bool
    bgr: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    p7_relu: bool

    @property
    def mean_is_ours(self) -> bool:
        """Whether the mean is MEAN, so that a stem of its own is all that its images need."""
        return len(self.mean) == len(self.std) == len(MEAN) and np.allclose(self.mean, MEAN, atol=1e-3)

    @property
    def torchvision(self) -> bool:
        """Whether strides and images are those of torchvision's ResNets."""
        return not self.caffe and not self.bgr and self.mean_is_ours and np.allclose(self.std, STD, atol=1e-3)


def trained(settings: Mapping[str, object], *, caffe: bool) -> Trained:
    """The training of a file with these `settings`; what it does not say is MMDetection's default.

    caffe: what `style` is where nothing is said of the backbone. ResNets of that style come from Caffe2, and so their
    images are BGR and divided by nothing, where nothing else is said.
    """
    if any(path.startswith("model.backbone.") for path in settings):
        caffe = settings.get("model.backbone.style") == "caffe"
    bgr = caffe
    mean: tuple[float, ...] = MEAN[::-1] if caffe else MEAN
    std: tuple[float, ...] = (1.0, 1.0, 1.0) if caffe else STD
    for place, flag, default in (("model.data_preprocessor", "bgr_to_rgb", False), ("img_norm_cfg", "to_rgb", True)):
        if f"{place}.mean" in settings:
            bgr = not settings.get(f"{place}.{flag}", default)
            mean, std = _numbers(settings[f"{place}.mean"]), _numbers(settings.get(f"{place}.std"))
            break
    if bgr:
        mean, std = mean[::-1], std[::-1]
    return Trained(caffe, bgr, mean, std, settings.get("model.neck.relu_before_extra_convs") is True)


def unlike(settings: Mapping[str, object], *, dense: bool) -> str:
    """The first of the settings that differs from detectron2's published detectors, and what these have; '' if none."""
    for part, fields in (_DENSE if dense else _RCNN).items():
        for field, wanted in fields.items():
            path = f"model.{part}.{field}"
            if path in settings and not _same(settings[path], wanted):
                return f"{path} {settings[path]!r}, not {wanted!r}"
    return ""


def read_settings(text: str) -> dict[str, object]:
    """The constants in a configuration's text by their dotted paths, such as `model.backbone.style`; the last counts.

    Nothing is run: names and calculations are left out, and so are lists of mappings. mmcv wrote the texts of all the
    files that a configuration was made of, each behind a line with its path; a text that is no Python has no settings.
    """
    found: dict[str, object] = {}
    for part in re.split(r"^[^'\"()=#\n]*\.py$", text, flags=re.MULTILINE):
        with suppress(*UNREADABLE):
            for statement in ast.parse(part).body:
                if isinstance(statement, ast.Assign) and isinstance(name := statement.targets[0], ast.Name):
                    _collect(statement.value, name.id, found)
    return found


def _collect(node: ast.expr, path: str, found: dict[str, object]) -> None:
    """Add the constants below `node`; a mapping with `_delete_`, or any other value, replaces what was there."""
    fields = dict(_fields(node))
    if not fields or "_delete_" in fields:
        for old in [key for key in found if f"{key}.".startswith(f"{path}.")]:
            del found[old]
    for name, value in fields.items():
        _collect(value, f"{path}.{name}", found)
    if not fields:
        with suppress(*UNREADABLE):
            found[path] = ast.literal_eval(node)


def _fields(node: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    """Names and values of `dict(name=value)` or `{'name': value}`."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        yield from ((keyword.arg, keyword.value) for keyword in node.keywords if keyword.arg)
    elif isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                yield key.value, value


def _numbers(value: object) -> tuple[float, ...]:
    plain = isinstance(value, (list, tuple)) and all(isinstance(x, (int, float)) for x in value)
    return tuple(float(x) for x in value) if plain else ()  # type: ignore[attr-defined]


def _same(found: object, wanted: object) -> bool:
    if isinstance(wanted, str):  # since 2023 a type may have its module before it
        return isinstance(found, str) and found.rsplit(".", 1)[-1] == wanted
    if wanted is None or isinstance(wanted, bool):
        return found is wanted
    ours = _numbers(wanted if isinstance(wanted, list) else [wanted])
    theirs = _numbers(found if isinstance(found, (list, tuple)) else [found])
    return len(ours) == len(theirs) and np.allclose(ours, theirs, atol=1e-3)
