"""Files of torchvision's published segmentors: DeepLabV3 over ResNets, in our names.

Its ResNets have our names; those of heads are told in `HEADS`. Files of its other segmentors fill a backbone alone.
"""

from __future__ import annotations

import re

from bcd.models.weights import WeightsFile

# torchvision's names (`DeepLabHead`, and `FCNHead` as the auxiliary one) -> ours; convolutions and norms alternate.
HEADS = (
    (r"classifier\.0\.convs\.([0-3])\.0\.(.*)", r"head.aspp.\1.conv.\2"),
    (r"classifier\.0\.convs\.([0-3])\.1\.(.*)", r"head.aspp.\1.bn.\2"),
    (r"classifier\.0\.convs\.4\.1\.(.*)", r"head.image_pool.1.conv.\1"),
    (r"classifier\.0\.convs\.4\.2\.(.*)", r"head.image_pool.1.bn.\1"),
    (r"classifier\.0\.project\.0\.(.*)", r"head.bottleneck.conv.\1"),
    (r"classifier\.0\.project\.1\.(.*)", r"head.bottleneck.bn.\1"),
    (r"classifier\.1\.(.*)", r"head.neck.conv.\1"),
    (r"classifier\.2\.(.*)", r"head.neck.bn.\1"),
    (r"classifier\.4\.(.*)", r"head.classifier.\1"),
    (r"aux_classifier\.0\.(.*)", r"aux.neck.conv.\1"),
    (r"aux_classifier\.1\.(.*)", r"aux.neck.bn.\1"),
    (r"aux_classifier\.4\.(.*)", r"aux.classifier.\1"),
)
PYRAMID = "classifier.0.convs.0.0.weight"  # which DeepLabV3 alone has
CLASSIFIER = "classifier.4.weight"


def torchvision_file(file: WeightsFile) -> WeightsFile:
    """A file of torchvision's `deeplabv3_resnet*` in our names, with the classes of VOC if it has as many.

    Other files come back as they are.
    """
    if PYRAMID not in file.state:
        return file
    classifier = file.state.get(CLASSIFIER)
    names = voc_categories()
    known = classifier is not None and len(classifier) == len(names)
    return WeightsFile({_our_name(key): x for key, x in file.state.items()}, names if known else file.classes)


def _our_name(key: str) -> str:
    for theirs, ours in HEADS:
        if match := re.fullmatch(theirs, key):
            return match.expand(ours)
    return key


def voc_categories() -> tuple[str, ...]:
    """VOC's background and 20 classes, as torchvision calls them."""
    from torchvision.models.segmentation import DeepLabV3_ResNet50_Weights  # which takes seconds to import

    return tuple(DeepLabV3_ResNet50_Weights.DEFAULT.meta["categories"])
