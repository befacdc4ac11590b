"""torchvision's detectors behind our contract, and against torchvision's own models."""

from dataclasses import replace
from functools import partial

import pytest
import timm
import torch
from safetensors.torch import save_file
from support import detector_contract as contract
from torch import nn
from torchvision.models import resnet18
from torchvision.models.detection import FCOS, MaskRCNN, RetinaNet
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from bcd.config.schema.models import DetectionModel
from bcd.distill.taps import Taps
from bcd.errors import UserError
from bcd.models.detection import build_detector, torchvision_heads
from bcd.models.detection.detector import Detector

HEADS = ("retinanet", "fcos", "faster_rcnn", "mask_rcnn")
DENSE = HEADS[:2]
CHECKS = [getattr(contract, name) for name in dir(contract) if name.startswith("check_")]
QUICK = [check for check in CHECKS if check is not contract.check_learning]


def described(head: str, *, detection: dict | None = None, **changes) -> DetectionModel:
    """A small model; `detection` replaces its options."""
    options = {"levels": [2, 5], "anchor_scale": 1.0 if head == "fcos" else 2.0}
    options |= {} if head == "faster_rcnn" else {"convs": 1}
    options |= {} if head in DENSE else {"fc_channels": 64}
    fields = {"backbone": "light", "widths": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "channels": 16, "head": head}
    if changes.get("backbone", "light") != "light":
        fields |= {"widths": None, "depths": None}
    return DetectionModel(**fields | changes, detection=options if detection is None else detection)


def built(model: DetectionModel, seed: int = 0) -> Detector:
    torch.manual_seed(seed)
    return build_detector(model, contract.CLASSES)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("check", QUICK, ids=lambda check: check.__name__)
def test_the_contract(check, head):
    check(partial(built, described(head)))


@pytest.mark.parametrize("head", HEADS)
def test_it_learns(head):
    contract.check_learning(partial(built, described(head)), masks=head == "mask_rcnn")


@pytest.mark.parametrize("head", ["fcos", "mask_rcnn"])
def test_a_norm_gives_the_pyramid_unit_variance_whatever_the_backbone_gives(head):
    """With the weights of a backbone whose stages end without activation, heads start from maps far from it."""
    model = described(head, backbone="tf_efficientnet_lite0", pretrained="index", output_stride=32)
    image = 2 * torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0)) - 1
    normed = model.detection.model_copy(update={"pyramid_norm": "batch"})
    with torch.no_grad():
        plain, unit = (
            [level.std().item() for level in built(described_as).features(image).values()]
            for described_as in (model, model.model_copy(update={"detection": normed}))
        )
    assert unit == pytest.approx([1] * 4, rel=0.02)
    assert plain[0] > 5


@pytest.mark.parametrize("head", HEADS)
def test_the_contract_holds_with_a_norm(head):
    options = described(head).detection.model_dump(exclude_none=True) | {"pyramid_norm": "batch"}
    for check in (contract.check_taps, contract.check_regions):
        check(partial(built, described(head, detection=options)))


@pytest.mark.parametrize("head", ["retinanet", "faster_rcnn", "mask_rcnn"])
def test_the_contract_holds_in_the_second_version(head):
    options = described(head).detection.model_dump(exclude_none=True) | {"version": 2}
    for check in QUICK:
        check(partial(built, described(head, detection=options)))


def test_the_second_retinanet_makes_its_coarsest_levels_of_the_last_stage():
    """Also where the stage has as many channels as the pyramid, by which torchvision tells the two."""
    detector = built(described("retinanet", channels=32, detection={"version": 2}))
    image = torch.rand(1, 3, 64, 64)
    detector.eval()
    assert torch.equal(detector.features(image)["p6"], detector.pyramid.extra_blocks.p6(detector.backbone(image)[-1]))


@pytest.mark.parametrize("head", HEADS)
def test_one_class_is_enough(head):
    torch.manual_seed(0)
    student, teacher = (build_detector(described(head), classes=1) for _ in range(2))
    image, targets = contract.batch()
    targets = [replace(target, classes=torch.zeros_like(target.classes)) for target in targets]
    with torch.no_grad(), Taps(teacher.eval(), {"logits": "logits"}) as taps:
        regions = teacher.propose(image, contract.SIZES)
        assert taps.read()["logits"].shape[1] == 2  # the class and the background
        for found in teacher.detect(image, contract.SIZES, contract.ORIGINALS):
            assert (found.classes == 0).all()
    losses = student(image, contract.SIZES, targets, regions)
    contract.require_finite(losses)
    sum(losses.values()).backward()
    contract.require_gradients(student)


@pytest.mark.parametrize(("backbone", "head"), [("resnet18", "mask_rcnn"), ("mobilenetv2_100", "fcos")])
def test_timm_backbones(backbone, head):
    build = partial(built, described(head, backbone=backbone))
    for check in (contract.check_taps, contract.check_regions, contract.check_half_precision):
        check(build)


@pytest.mark.parametrize("head", HEADS)
def test_published_pyramids_have_every_tap(head):
    build = partial(built, described(head, detection={}))
    contract.check_taps(build)
    levels = {tap for tap in build().taps if tap.startswith("p")}
    assert levels == ({"p3", "p4", "p5", "p6", "p7"} if head in DENSE else {"p2", "p3", "p4", "p5", "p6"})


def theirs(head: str) -> nn.Module:
    """torchvision's own model over ResNet-18, with its defaults except for what we state to differ."""
    levels = {"returned_layers": [2, 3, 4], "extra_blocks": LastLevelP6P7(256, 256)} if head in DENSE else {}
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, norm_layer=nn.BatchNorm2d, **levels)
    # `_skip_resize`, as choosing a size would draw random numbers.
    as_is = {"min_size": 128, "max_size": 160, "image_mean": [0.0] * 3, "image_std": [1.0] * 3, "_skip_resize": True}
    if head in DENSE:
        kind = RetinaNet if head == "retinanet" else FCOS
        # At random weights no score is above the threshold.
        keep = torchvision_heads.DETECTIONS | {"score_thresh": 0.0}
        return kind(backbone, contract.CLASSES, **as_is, **keep)
    return MaskRCNN(backbone, contract.CLASSES + 1, **as_is)


def their_key(key: str) -> str:
    """torchvision's name of a tensor of ours."""
    owner, _, rest = key.partition(".")
    return {"backbone": "backbone.body.", "pyramid": "backbone.fpn.", "head": ""}.get(owner, owner + ".") + rest


@pytest.mark.parametrize("head", ["retinanet", "fcos", "mask_rcnn"])
def test_the_defaults_are_torchvisions(head, monkeypatch):
    """Same tensors, losses and detections as its own models; images of 128 x 160, so that nothing is resized."""
    monkeypatch.setattr(torchvision_heads, "FULL_SIDE", 1)
    torch.manual_seed(0)
    reference = theirs(head)
    ours = built(described(head, backbone="resnet18", channels=256, detection={}))
    state = reference.state_dict()
    assert {their_key(key) for key in ours.state_dict()} == state.keys()
    ours.load_state_dict({key: state[their_key(key)] for key in ours.state_dict()})
    image, targets = contract.batch((32, 32))
    first = 0 if head in DENSE else 1
    objects = [{"boxes": t.boxes, "labels": t.classes + first, "masks": t.masks} for t in targets]
    sizes = [(128, 160)] * 2
    torch.manual_seed(1)
    expected = reference(list(image), objects)
    torch.manual_seed(1)
    losses = ours(image, sizes, targets)
    assert losses.keys() == expected.keys()
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected[name])
    if head in DENSE:
        ours.head.score_thresh = 0.0
    else:
        ours.roi_heads.detections_per_img = reference.roi_heads.detections_per_img = 20
    with torch.no_grad():
        found = ours.eval().detect(image[:1], sizes[:1], sizes[:1])[0]
        (wanted,) = reference.eval()([image[0]])
    torch.testing.assert_close(found.boxes, wanted["boxes"])
    torch.testing.assert_close(found.scores, wanted["scores"])
    assert len(found.boxes) and torch.equal(found.classes, wanted["labels"] - first)
    if head == "mask_rcnn":
        assert torch.equal(found.masks, (wanted["masks"][:, 0] > 0.5).byte())


def test_small_images_have_fewer_proposals_and_boxes():
    detector = built(described("faster_rcnn"))
    seen = []
    for size in ((800, 1333), (512, 512), (256, 256), (96, 96)):
        torchvision_heads.fit_numbers(detector.rpn, detector.roi_heads, *size)
        seen.append((detector.rpn.post_nms_top_n(), detector.roi_heads.fg_bg_sampler.batch_size_per_image))
    assert seen == [(2000, 512), (2000, 512), (500, 128), (125, 32)]


def test_a_student_with_other_anchors_is_refused():
    image, targets = contract.batch()
    with torch.no_grad():
        dense, rcnn = (built(described(h)).eval().propose(image, contract.SIZES) for h in ("retinanet", "mask_rcnn"))
    coarse = built(described("retinanet", detection={"levels": [4, 5]}))
    with pytest.raises(UserError, match=r"anchors in an image.*detection\.levels"):
        coarse(image, contract.SIZES, targets, dense)
    with pytest.raises(UserError, match="teacher is an R-CNN.*dense teacher"):
        coarse(image, contract.SIZES, targets, rcnn)


@pytest.mark.parametrize(
    ("head", "detection", "message"),
    [
        ("fcos", {"levels": [2, 6]}, r"levels is \[2, 6\].*coarsest 5 or 7"),
        ("mask_rcnn", {"levels": [3, 7]}, r"levels is \[3, 7\].*coarsest 5 or 6"),
        ("fcos", {"levels": [2, 5], "anchor_scale": 0.25}, r"anchor_scale is 0\.25; choose 0\.5 or more"),
    ],
)
def test_mistakes_are_named_with_their_remedy(head, detection, message):
    with pytest.raises(UserError, match=message):
        built(described(head, detection=detection))


def test_imagenet_weights_of_timm_and_torchvision_load_into_the_backbone(tmp_path):
    torch.manual_seed(3)
    for name, source in (("timm", timm.create_model("resnet18")), ("torchvision", resnet18())):
        path = tmp_path / f"{name}.safetensors"
        save_file(source.state_dict(), path)
        model = built(described("retinanet", backbone="resnet18", pretrained=str(path)))
        assert torch.equal(model.backbone.layer4[1].conv2.weight, source.layer4[1].conv2.weight)
        assert model.weights.note.startswith(f"file:{name}.safetensors sha256:")
