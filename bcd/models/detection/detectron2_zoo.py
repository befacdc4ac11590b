"""Files of detectron2's model zoo (`.pkl`): weights of R-50 and R-101 FPN detectors, and of their ImageNet backbones.

They are for images in BGR from which a mean was taken, and which nothing divided. What is read here is for images as
the rest of the suite has them: RGB, normalised by MEAN and STD.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bcd.config.zoo import MEAN, STD
from bcd.errors import UserError
from bcd.models.arrays import read_arrays
from bcd.models.class_names import ClassRows
from bcd.models.detection.torchvision_zoo import coco_categories
from bcd.models.weights import WeightsFile

STEM = "backbone.bottom_up.stem.conv1.weight"
PYRAMID = "backbone.fpn_"  # which a file of a backbone has not
ROWS = (
    ClassRows(r"head\.cls_score\.(weight|bias)"),
    ClassRows(r"box_predictor\.cls_score\.(weight|bias)", "last"),
    ClassRows(r"box_predictor\.bbox_pred\.(weight|bias)", each=4),
    ClassRows(r"mask_head\.predictor\.(weight|bias)"),
)
# Buffers that a file may hold and that are no weights.
PIXELS = {"pixel_mean": tuple(reversed(MEAN)), "pixel_std": (1.0, 1.0, 1.0)}


def zoo_file(path: Path) -> WeightsFile:
    """The tensors of a zoo file in detectron2's names, for RGB images that are normalised by MEAN and STD; and COCO's
    classes.

    `anchor_generator.cell_anchors` and the like are among them where the file has them. Raises UserError where it is
    unreadable, or for images of another kind.
    """
    content = read_arrays(path)
    if content.get("__author__") == "torchvision":
        raise UserError(f"weights file {path} is of RGB images; name torchvision's own .pth, which it was made of")
    arrays = content.get("model", content.get("blobs", content))
    if not isinstance(arrays, dict):
        raise UserError(f"weights file {path} holds no mapping of names to arrays under 'model'; name another file")
    state = {
        detectron2_name(str(name)): torch.from_numpy(array)
        for name, array in arrays.items()
        if isinstance(array, np.ndarray)
    }
    for name, wanted in PIXELS.items():
        found = tuple(state.pop(name, torch.tensor(wanted)).flatten().tolist())
        if not np.allclose(found, wanted, atol=1e-3):
            raise UserError(
                f"weights file {path} has {name} {found}, which is not that of the BGR images of detectron2's R-50 and "
                "R-101; name a file of those"
            )
    return WeightsFile(for_rgb(_with_statistics(state), path), coco_classes())


def detectron2_name(name: str) -> str:
    """A name of Caffe2's ImageNet ResNets as detectron2 has it; its own stay as they are.

    As detectron2/checkpoint/c2_model_loading.py (`convert_basic_c2_names`) has them.
    """
    match = re.fullmatch(r"(?:res_)?conv1_(\w+)|res(\d)_(\d+)_branch(1|2[abc])_(\w+)", name)
    if not match:
        return name
    stem, stage, block, branch, rest = match.groups()
    tensors = {"w": "weight", "b": "bias", "bn_s": "norm.weight", "bn_b": "norm.bias"}
    if (last := tensors.get(stem or rest)) is None:
        return name
    layer = "stem.conv1"
    if stage:
        layer = f"res{stage}.{block}." + {"1": "shortcut", "2a": "conv1", "2b": "conv2", "2c": "conv3"}[branch]
    return f"backbone.bottom_up.{layer}.{last}"


def _with_statistics(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Frozen norms of the first files have only a scale and a shift: their mean is 0 and their variance 1."""
    for name in [name for name in state if name.endswith("norm.weight")]:
        layer = name.removesuffix("weight")
        if "bottom_up" in layer:
            state.setdefault(f"{layer}running_mean", torch.zeros_like(state[name]))
            state.setdefault(f"{layer}running_var", torch.ones_like(state[name]))
    return state


def for_rgb(
    state: dict[str, Tensor], file: str | Path, *, bgr: bool = True, std: Sequence[float] = (1.0, 1.0, 1.0)
) -> dict[str, Tensor]:
    """`state` with a stem for RGB images that are normalised by STD, in the place of one for images divided by `std`.

    w ((x - mean) / std) is (w STD / std) ((x - mean) / STD), and the channels are turned around.

    bgr: whether the stem was for BGR images.
    std: by channel, in the order red, green, blue.
    """
    if STEM not in state or state[STEM].ndim != 4 or state[STEM].shape[1] != len(STD):
        raise UserError(f"weights file {file} has no stem of a ResNet ({STEM}); name one of R-50 or R-101")
    stem = state[STEM].flip(1) if bgr else state[STEM]
    scale = (torch.tensor(STD, dtype=torch.float64) / torch.tensor(std, dtype=torch.float64)).view(1, -1, 1, 1)
    return state | {STEM: (stem.double() * scale).to(stem.dtype)}


def coco_classes() -> tuple[str, ...]:
    """COCO's 80 classes in the order of their ids, as detectron2 has them."""
    return tuple(name for name in coco_categories()[1:] if name != "N/A")


def without_anchors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` without what the anchors of old files are, which follow from the configuration."""
    return {key: x for key, x in state.items() if "anchor_generator." not in key}


def anchors(state: Mapping[str, Tensor]) -> list[Tensor]:
    """The anchors (A, 4) around the origin of each level that a state has, finest first; empty where it has none."""
    found = {
        int(m[1]): x for key, x in state.items() if (m := re.search(r"anchor_generator\.cell_anchors\.(\d+)$", key))
    }
    return [found[level] for level in sorted(found)]
