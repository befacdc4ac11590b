"""Segmentation models over timm backbones: `build` makes one from its parameters."""

from collections.abc import Sequence

from bcd.config.schema.models import SegmentationModel
from bcd.models.backbones import build_backbone
from bcd.models.complexity import count_parameters, flops
from bcd.models.frozen import freeze
from bcd.models.heads import HEADS, FCNHead, init_head
from bcd.models.openmmlab import load_openmmlab
from bcd.models.pretrained import load_pretrained
from bcd.models.segmentor import Segmentor
from bcd.models.torchvision_segmentation import torchvision_file

__all__ = ["Segmentor", "build", "count_parameters", "flops", "load_openmmlab"]


def build(model: SegmentationModel, classes: int, names: Sequence[str] = ()) -> Segmentor:
    """Build the segmentor that `model` describes; float32, on the CPU, in training mode.

    Random initial weights come from torch's global generator alone, so seed it first.
    `names` are those of the classes, by which a weights file that names its own is brought to their order and number.
    The result's `weights` says where the weights came from.
    Raises UserError naming the field for weights that cannot be had.

    Example:
        >>> model = SegmentationModel(backbone="resnet18d", head="psp", channels=128)
        >>> sorted(build(model, classes=19).taps)
        ['logits', 'neck', 'stage1', 'stage2', 'stage3', 'stage4']
    """
    backbone = build_backbone(
        model.backbone, output_stride=model.output_stride, widths=model.widths, depths=model.depths
    )
    channels = backbone.channels
    head = HEADS[model.head](channels, model.channels, classes, model.dropout)
    init_head(head)
    aux = None
    if model.aux_channels is not None:
        aux = FCNHead(channels, model.aux_channels, classes, model.dropout)
        init_head(aux)
    segmentor = Segmentor(backbone, head, aux)
    segmentor.weights = load_pretrained(segmentor, model.backbone, model.pretrained, names, torchvision_file)
    if model.freeze is not None:
        freeze(segmentor, getattr(backbone, "net", backbone), model.freeze)
    return segmentor
