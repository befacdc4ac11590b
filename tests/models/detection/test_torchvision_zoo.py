"""Files of torchvision's published detectors, against torchvision itself, under weights that follow from its keys."""

import pytest
import torch
from support.weight_rule import weight
from torchvision.models import detection as published
from torchvision.models.detection._utils import overwrite_eps
from torchvision.ops import FrozenBatchNorm2d

from bcd.config.schema.models import DetectionModel
from bcd.errors import UserError
from bcd.models.detection import build_detector
from bcd.models.detection.detectron2_zoo import coco_classes
from bcd.models.detection.torchvision_zoo import BUILDERS, WITHOUT_EPSILON

SIZE = (96, 128)


def fields(head, file, **detection):
    return DetectionModel(
        backbone="resnet50", head=head, channels=256, output_stride=32, pretrained=str(file), detection=detection
    )


def key_derived(net):
    return {
        key: torch.from_numpy(weight(key, tensor.shape)).to(tensor.dtype)
        for key, tensor in net.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }


def theirs(kind):
    """torchvision's model as it is when it has loaded its published file."""
    net = BUILDERS[kind](weights=None, weights_backbone=None)
    if kind[1] is None:
        net = _frozen(net)
    state = key_derived(net)
    net.load_state_dict(state)
    if kind in WITHOUT_EPSILON:
        overwrite_eps(net, 0.0)
    return net.eval(), state


def _frozen(module):
    for name, child in module.named_children():
        if isinstance(child, torch.nn.BatchNorm2d):
            setattr(module, name, FrozenBatchNorm2d(child.num_features))
        else:
            _frozen(child)
    return module


@pytest.mark.parametrize(("head", "version"), BUILDERS)
def test_published_detectors_are_torchvisions(head, version, tmp_path):
    """The maps, what the heads say of COCO's 80 classes, which torchvision numbers to 90, and the proposals."""
    reference, state = theirs((head, version))
    torch.save(state, tmp_path / "w.pth")
    detector = build_detector(fields(head, tmp_path / "w.pth", version=version), 80, coco_classes()).eval()
    assert detector.weights.unfilled == () and detector.weights.lacking == ""
    assert "unexpected" not in detector.weights.note
    image = torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    names = published.FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    with torch.no_grad():
        maps, expected = detector.features(image), reference.backbone(image)
        for ours, wanted in zip(maps.values(), expected.values(), strict=True):
            assert (ours - wanted).abs().max() < 1e-4 * wanted.abs().max()
        kept = [names.index(name) for name in coco_classes()]
        if head in ("retinanet", "fcos"):
            ours, wanted = detector.head.head(list(maps.values())), reference.head(list(expected.values()))
            wanted["cls_logits"] = wanted["cls_logits"][..., kept]
        else:
            pooled = torch.randn(3, 256, 7, 7, generator=torch.Generator().manual_seed(1))
            scores, boxes = (
                heads.box_predictor(heads.box_head(pooled)) for heads in (detector.roi_heads, reference.roi_heads)
            )
            ours = dict(zip(("scores", "boxes"), scores, strict=True))
            wanted = {
                "scores": boxes[0][:, [0, *kept]],
                "boxes": boxes[1].unflatten(1, (91, 4))[:, [0, *kept]].flatten(1),
            }
            for found, net in ((ours, detector), (wanted, reference)):
                objectness, deltas = net.rpn.head(list(maps.values()))
                found["objectness"] = torch.cat([level.flatten() for level in objectness])
                found["deltas"] = torch.cat([level.flatten() for level in deltas])
        if head == "mask_rcnn":
            pooled = torch.randn(2, 256, 14, 14, generator=torch.Generator().manual_seed(2))
            ours["masks"], wanted["masks"] = (
                heads.mask_predictor(heads.mask_head(pooled)) for heads in (detector.roi_heads, reference.roi_heads)
            )
            wanted["masks"] = wanted["masks"][:, [0, *kept]]
    for name, value in wanted.items():
        assert (ours[name] - value).abs().max() < 1e-4 * value.abs().max(), name


def test_names_of_the_first_files_are_read(tmp_path):
    """Those that can be downloaded have the names that torchvision had in 2019."""
    net = BUILDERS["faster_rcnn", None](weights=None, weights_backbone=None)
    state = net.state_dict()
    old = {
        key.replace("blocks.0.0.", "blocks.0.").replace("rpn.head.conv.0.0.", "rpn.head.conv."): tensor
        for key, tensor in state.items()
    }
    assert "backbone.fpn.inner_blocks.0.weight" in old and "rpn.head.conv.weight" in old
    torch.save(old, tmp_path / "w.pth")
    assert build_detector(fields("faster_rcnn", tmp_path / "w.pth"), 80, coco_classes()).weights.unfilled == ()


def test_what_does_not_fit_is_refused_in_one_sentence(tmp_path):
    net = BUILDERS["faster_rcnn", None](weights=None, weights_backbone=None)
    torch.save(net.state_dict(), tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"w\.pth is of another detector than torchvision's mask_rcnn over resnet50"):
        build_detector(fields("mask_rcnn", tmp_path / "w.pth"), 80)
    with pytest.raises(
        UserError, match=r"anchor_scale: the published detector .* has anchors of its own, which differ"
    ):
        build_detector(fields("faster_rcnn", tmp_path / "w.pth", anchor_scale=4.0), 80)


@pytest.mark.parametrize(
    ("file", "named", "remedy"), [(2, None, "second .*; set it to 2"), (None, 2, "first .*; remove it")]
)
@pytest.mark.parametrize("head", ["retinanet", "faster_rcnn"])
def test_a_file_of_the_other_version_is_named(head, file, named, remedy, tmp_path):
    torch.save(BUILDERS[head, file](weights=None, weights_backbone=None).state_dict(), tmp_path / "w.pth")
    with pytest.raises(UserError, match=rf"detection\.version: weights file .*w\.pth is of torchvision's {remedy}"):
        build_detector(fields(head, tmp_path / "w.pth", version=named), 80)


def test_a_class_that_coco_lacks_is_noted(tmp_path):
    net = BUILDERS["fcos", None](weights=None, weights_backbone=None)
    torch.save(net.state_dict(), tmp_path / "w.pth")
    weights = build_detector(fields("fcos", tmp_path / "w.pth"), 2, ("car", "tree")).weights
    assert weights.lacking == "tree"
    assert set(weights.unfilled) == {f"head.head.classification_head.cls_logits.{part}" for part in ("weight", "bias")}
