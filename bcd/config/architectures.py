"""The names that a model's `backbone` and `head` may have, known without importing torch or timm.

A test compares them with what `bcd.models` builds.
"""

from bcd.config.timm_backbones import timm_backbones
from bcd.errors import nearest

LITES = tuple(f"tf_efficientnet_lite{size}" for size in range(5))
# Backbone -> the output strides that it offers. ResNets, MobileNetV2 and EfficientNet-Lite can be dilated; the others
# never are.
DILATED = (
    "light",
    *(f"resnet{depth}{variant}" for variant in ("", "b", "d") for depth in (18, 34, 50, 101)),
    "mobilenetv2_100",
    *LITES,
)
PYRAMIDS = (
    *(f"hrnet_{width}" for width in ("w18_small_v2", "w18", "w32", "w40", "w48")),
    *(f"mit_b{size}" for size in range(6)),
    *(f"swin_{size}_patch4_window7_224" for size in ("tiny", "small", "base", "large")),
    *(f"swin_{size}_patch4_window12_384" for size in ("base", "large")),
)
BACKBONES: dict[str, tuple[int, ...]] = dict.fromkeys(DILATED, (8, 16, 32)) | dict.fromkeys(PYRAMIDS, (32,))


def output_strides(backbone: str) -> tuple[int, ...]:
    """The output strides that a backbone offers: one of BACKBONES, or another name of timm's.

    Raises ValueError, in one sentence, for what is no backbone.
    """
    if backbone in BACKBONES:
        return BACKBONES[backbone]
    entry = timm_backbones().get(backbone)
    if entry is None and (name := backbone.partition(".")[0]) in timm_backbones():
        raise ValueError(f"'{backbone}' has a tag, which names weights; write {name}, and the weights as `pretrained`")
    if entry is None:
        raise ValueError(f"'{backbone}' is not known{nearest(backbone, (*BACKBONES, *timm_backbones()))}")
    if entry.refusal:
        raise ValueError(f"'{backbone}' of timm cannot be one, as {entry.refusal}; choose another")
    return (32,)


# Pixels of the shortest side that a mix transformer can reduce eight times in its first stage.
SMALLEST_MIT_SIDE = 29

SEGMENTATION_HEADS = ("light", "psp", "isa", "deeplabv3", "deeplabv3plus", "fcn", "uper", "segformer", "fpn", "lraspp")
# These pool the last stage to one cell, whose BatchNorm needs two images in training.
POOLING_HEADS = ("psp", "deeplabv3", "deeplabv3plus", "uper")
DETECTOR_HEADS = ("retinanet", "fcos", "faster_rcnn", "mask_rcnn")

# What `pretrained` may be beside the path of a file.
SOURCES = ("none", "timm", "index")
