"""Backbone and feature pyramid of torchvision's detectors."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.models.detection.backbone_utils import LastLevelMaxPool
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelP6P7

from bcd.errors import UserError
from bcd.models.detection.detector import Detector
from bcd.models.layers import Backbone
from bcd.models.weights import InitialWeights

FINEST, LAST_STAGE = 2, 5  # levels of stage1 and stage4
COARSEST = {"dense": 7, "rcnn": 6}
LEVELS = {"dense": (3, 7), "rcnn": (2, 6)}


def pyramid_levels(levels: Sequence[int] | None, kind: str) -> range:
    """All levels from the finest to the coarsest of `levels`; None = those of torchvision's published models.

    Stages 1 to 4 of a backbone are levels 2 to 5. Above them a dense detector has p6 and p7, strided convolutions (Lin
    et al., ICCV 2017), and an R-CNN has p6, every second pixel of p5. Raises UserError for other levels.
    """
    finest, coarsest = levels or LEVELS[kind]
    if not FINEST <= finest <= LAST_STAGE or coarsest not in (LAST_STAGE, COARSEST[kind]):
        raise UserError(
            f"model.detection.levels is {[finest, coarsest]}; the finest level must be {FINEST} to {LAST_STAGE} and "
            f"the coarsest {LAST_STAGE} or {COARSEST[kind]} with this head"
        )
    return range(finest, coarsest + 1)


class PyramidNetwork(Detector):
    """A detector whose maps are those of a feature pyramid (Lin et al., CVPR 2017), level l having stride 2^l.

    `backbone` has the strides 4, 8, 16, 32; each of the `levels` gets `channels`. `kind` is a key of COARSEST. p6 of a
    dense detector is made of p5 in torchvision's first models, and `of_stage` of stage 4 in its second RetinaNet, as in
    the paper.
    With `norm` there is a batch norm behind each convolution, as in torchvision's `maskrcnn_resnet50_fpn_v2` (Li et
    al., "Benchmarking detection transfer learning with vision transformers", 2021): heads are initialised for maps of
    unit variance, and a backbone whose stages end without activation, such as EfficientNet, has maps ten times larger.
    """

    backbone: Backbone

    def __init__(
        self, backbone: Backbone, channels: int, levels: range, kind: str, *, norm: bool, of_stage: bool = False
    ):
        super().__init__()
        extra = None
        if levels[-1] > LAST_STAGE:
            extra = _strided(backbone.channels[-1], channels, of_stage) if kind == "dense" else LastLevelMaxPool()
        self.levels = levels
        self.backbone = backbone
        entering = backbone.channels[levels[0] - FINEST :]
        self.pyramid = FeaturePyramidNetwork(entering, channels, extra, nn.BatchNorm2d if norm else None)
        self.taps = {f"stage{i + 1}": f"backbone:{i}" for i in range(4)}
        self.taps |= {f"p{level}": f"pyramid:p{level}" for level in levels}
        if isinstance(extra, LastLevelMaxPool):
            self.taps["p6"] = "pyramid:pool"  # torchvision's name for it
        self.taps["neck"] = f"pyramid:p{levels[0]}"
        self.weights = InitialWeights()

    def features(self, image: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) to maps (N, channels, H / 2^l, W / 2^l), rounded up, keyed p<l>, finest first; float32."""
        stages = self.backbone(image)
        finest = self.levels[0]
        entering = OrderedDict((f"p{finest + i}", stage) for i, stage in enumerate(stages[finest - FINEST :]))
        maps = self.pyramid(entering).values()
        # Under autocast too: anchors take the dtype of the maps, and bfloat16 corners would be pixels off.
        return {f"p{level}": x.float() for level, x in zip(self.levels, maps, strict=True)}


def _strided(stage: int, channels: int, of_stage: bool) -> LastLevelP6P7:
    extra = LastLevelP6P7(stage if of_stage else channels, channels)
    extra.use_P5 = not of_stage  # which torchvision tells by the number of channels
    return extra
