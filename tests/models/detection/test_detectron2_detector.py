"""detectron2's models behind our contract, against detectron2 itself; skipped where it is not installed."""

import json
import sys
from functools import partial
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

import pytest
import torch
from support import detector_contract as contract
from support.project import SHARED

from bcd.config.schema.models import DetectionModel
from bcd.distill.taps import Taps
from bcd.errors import UserError
from bcd.models.detection.detector import Targets
from bcd.models.detection.detectron2_detector import HEADS, build, config, torchvision_key

GOLDEN = SHARED / "golden" / "complexity.json"
CLASSES = contract.CLASSES
SIZES = [(90, 120), (96, 100)]

real = pytest.mark.skipif(find_spec("detectron2") is None, reason="detectron2 is not installed")


def small(head: str, **changes) -> DetectionModel:
    detection = {"engine": "detectron2", "anchor_scale": 2.0}
    detection |= {} if head == "faster_rcnn" else {"convs": 1}
    detection |= {} if head in ("retinanet", "fcos") else {"fc_channels": 16}
    fields = {"backbone": "light", "widths": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "channels": 16, "head": head}
    if changes.get("backbone", "light") != "light":
        fields |= {"widths": None, "depths": None}
    return DetectionModel(**fields | {"detection": detection | changes.pop("detection", {})} | changes)


def published(head: str, backbone: str) -> DetectionModel:
    return DetectionModel(backbone=backbone, head=head, channels=256, pretrained="weights.pth", detection={})


def seeded(model: DetectionModel, seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return build(model, CLASSES)


def batch() -> tuple[torch.Tensor, list[Targets]]:
    """Two images of unlike size, zero-padded to 96 x 128; the second without objects."""
    generator = torch.Generator().manual_seed(0)
    image = torch.zeros(2, 3, 96, 128)
    for one, (height, width) in zip(image, SIZES, strict=True):
        one[:, :height, :width] = torch.randn(3, height, width, generator=generator)
    boxes = torch.tensor([[10.0, 10, 50, 40], [30, 20, 90, 80]])
    masks = torch.zeros(2, 96, 128, dtype=torch.uint8)
    masks[0, 12:40, 10:50], masks[1, 20:80, 40:90] = 1, 1
    empty = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), masks[:0])
    return image, [Targets(boxes, torch.tensor([0, 2]), masks), empty]


def as_inputs(image: torch.Tensor, targets: list[Targets]) -> list[dict]:
    """The batch as what detectron2's own models take."""
    from detectron2.structures import BitMasks, Boxes, Instances

    inputs = []
    for one, (height, width), target in zip(image, SIZES, targets, strict=True):
        instances = Instances((height, width), gt_boxes=Boxes(target.boxes), gt_classes=target.classes)
        instances.gt_masks = BitMasks(target.masks[:, :height, :width])
        inputs.append({"image": one[:, :height, :width], "instances": instances, "height": 180, "width": 240})
    return inputs


def unnormalised(model: torch.nn.Module) -> torch.nn.Module:
    model.pixel_mean.zero_()
    model.pixel_std.fill_(1.0)
    return model


def test_its_absence_is_told_in_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "detectron2", None)
    with pytest.raises(UserError, match="not installed.*environment.yml.*torchvision"):
        build(small("retinanet"), CLASSES)


def test_a_setuptools_without_pkg_resources_is_told_in_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "detectron2", ModuleType("detectron2"))
    monkeypatch.setattr(sys.modules["detectron2"], "__spec__", ModuleSpec("detectron2", None))
    monkeypatch.setitem(sys.modules, "pkg_resources", None)
    with pytest.raises(UserError, match=r"needs pkg_resources.*run `pip install 'setuptools<81'`"):
        build(small("retinanet"), CLASSES)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("stem.conv1.weight", "conv1.weight"),
        ("stem.conv1.norm.running_var", "bn1.running_var"),
        ("res2.0.conv3.norm.bias", "layer1.0.bn3.bias"),
        ("res5.0.shortcut.weight", "layer4.0.downsample.0.weight"),
        ("res5.0.shortcut.norm.weight", "layer4.0.downsample.1.weight"),
        ("net.blocks.1.0.conv_pw.weight", "blocks.1.0.conv_pw.weight"),
    ],
)
def test_names_of_torchvision(ours, theirs):
    assert torchvision_key(f"model.backbone.bottom_up.{ours}") == theirs
    assert torchvision_key("model.head.cls_score.weight") == "model.head.cls_score.weight"


@real
@pytest.mark.skipif(not GOLDEN.is_file(), reason=f"golden data not found at {GOLDEN}")
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(("backbone", "name"), [("resnet50", "R_50_FPN_1x"), ("resnet101", "R_101_FPN_3x")])
def test_parameters_are_those_of_the_model_zoo(head, backbone, name):
    from detectron2.modeling import build_model

    expected = json.loads(GOLDEN.read_text())["detectron2"][HEADS[head].replace("R_50_FPN_1x", name)]
    net = build_model(config(published(head, backbone), 80))
    count = {"params": sum(p.numel() for p in net.parameters())}
    count["params_requires_grad"] = sum(p.numel() for p in net.parameters() if p.requires_grad)
    count["buffers"] = sum(b.numel() for b in net.buffers())
    count["per_child"] = {name: sum(p.numel() for p in child.parameters()) for name, child in net.named_children()}
    count["bottom_up"] = sum(p.numel() for p in net.backbone.bottom_up.parameters())
    assert count == expected


@real
@pytest.mark.parametrize("head", HEADS)
def test_configuration_is_the_published_one(head):
    """All that differs beside the backbone's builder is said in `config`; the builder makes the same pyramid."""
    from detectron2 import model_zoo
    from detectron2.modeling import build_model

    theirs = model_zoo.get_config(HEADS[head])
    ours = config(published(head, "resnet50"), 80)
    theirs.MODEL.DEVICE = "cpu"
    shapes = {key: value.shape for key, value in build_model(theirs).state_dict().items()}
    assert {key: value.shape for key, value in build_model(ours).state_dict().items()} == shapes
    if head == "retinanet":
        assert ours.MODEL.RETINANET == theirs.MODEL.RETINANET
        assert ours.MODEL.FPN == theirs.MODEL.FPN
    else:
        for part in ("RPN", "ROI_HEADS", "ROI_BOX_HEAD", "ROI_MASK_HEAD", "FPN"):
            assert ours.MODEL[part] == theirs.MODEL[part]
    sizes = (cfg.MODEL.ANCHOR_GENERATOR.SIZES for cfg in (ours, theirs))
    for mine, official in zip(*sizes, strict=True):
        assert mine == pytest.approx(list(official))


@real
@pytest.mark.parametrize("head", HEADS)
def test_losses_are_those_of_its_own_forward(head):
    detector = seeded(small(head), 0)
    image, targets = batch()
    torch.manual_seed(1)
    ours = detector(image, SIZES, targets)
    from detectron2.utils.events import EventStorage

    theirs = unnormalised(detector.model)
    theirs.__dict__.pop("loss_normalizer", None)
    torch.manual_seed(1)
    with EventStorage():
        expected = theirs(as_inputs(image, targets))
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(ours[name], value), name


@real
@pytest.mark.parametrize("head", HEADS)
def test_detections_are_those_of_its_own_inference(head):
    detector = seeded(small(head), 0).eval()
    if head == "retinanet":  # otherwise no score passes the threshold
        torch.nn.init.normal_(detector.model.head.cls_score.weight, std=0.3)
    image, targets = batch()
    with torch.no_grad():
        ours = detector.detect(image, SIZES, [(180, 240)] * 2)
        theirs = unnormalised(detector.model)(as_inputs(image, targets))
    for mine, expected in zip(ours, (output["instances"] for output in theirs), strict=True):
        assert len(mine.boxes) > 0
        assert torch.equal(mine.boxes, expected.pred_boxes.tensor)
        assert torch.equal(mine.scores, expected.scores)
        assert torch.equal(mine.classes, expected.pred_classes)
        assert (mine.masks is not None) == (head == "mask_rcnn")
        if mine.masks is not None:
            assert torch.equal(mine.masks.bool(), expected.pred_masks)


@real
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(
    "check", [name for name in vars(contract) if name.startswith("check_") and name != "check_learning"]
)
def test_contract(check, head):
    getattr(contract, check)(partial(seeded, small(head)))


@real
@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
def test_learning(head):
    contract.check_learning(partial(seeded, small(head)), masks=head == "mask_rcnn")


@real
def test_running_mean_of_its_loss_survives_a_resume():
    image, targets = batch()

    def steps(detector, count):
        return [detector(image, SIZES, targets)["loss_cls"].item() for _ in range(count)]

    straight = seeded(small("retinanet"), 0)
    expected = steps(straight, 4)[2:]
    stopped = seeded(small("retinanet"), 0)
    steps(stopped, 2)
    resumed = build(small("retinanet"), CLASSES)
    resumed.load_state_dict(stopped.state_dict())
    assert steps(resumed, 2) == expected
    assert resumed.normaliser == straight.normaliser != 100


@real
@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "mobilenetv2_100"])
def test_weights_of_a_file_give_the_same_features(backbone, tmp_path):
    import timm

    torch.manual_seed(0)
    source = timm.create_model(backbone, features_only=True, out_indices=(1, 2, 3, 4)).eval()
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    model = small("retinanet", backbone=backbone, pretrained=str(tmp_path / "weights.pth"))
    detector = build(model, CLASSES)
    assert detector.weights.note.startswith("file:weights.pth sha256:")
    image, _ = batch()
    detector.train()  # frozen statistics must not move
    with torch.no_grad():
        stages = detector.model.backbone.bottom_up(image)
        for mine, expected in zip(stages.values(), source(image), strict=True):
            torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-4)
    frozen = [name for name, p in detector.named_parameters() if not p.requires_grad]
    assert bool(frozen) == backbone.startswith("resnet")


@real
def test_weights_that_lack_the_backbone_are_refused(tmp_path):
    torch.save({"head.weight": torch.zeros(1)}, tmp_path / "weights.pth")
    with pytest.raises(UserError, match="weights.pth lack .* of backbone 'resnet18'"):
        build(small("retinanet", backbone="resnet18", pretrained=str(tmp_path / "weights.pth")), CLASSES)


@real
def test_own_weights_are_read_again(tmp_path):
    first = seeded(small("faster_rcnn"), 0)
    torch.save(first.state_dict(), tmp_path / "weights.pth")
    again = build(small("faster_rcnn", pretrained=str(tmp_path / "weights.pth")), CLASSES)
    assert "missing" not in again.weights.note
    state = again.state_dict()
    assert all(torch.equal(first.state_dict()[key], value) for key, value in state.items())


@real
@pytest.mark.parametrize(
    ("model", "message"),
    [
        (small("fcos"), "model.head 'fcos'"),
        (small("retinanet", backbone="resnet34"), "model.backbone 'resnet34'"),
        (small("retinanet", detection={"levels": [3, 6]}), "model.detection.levels"),
        (small("faster_rcnn", detection={"levels": [2, 7]}), "model.detection.levels"),
    ],
)
def test_what_it_cannot_follow_is_refused(model, message):
    with pytest.raises(UserError, match=message):
        build(model, CLASSES)


@real
@pytest.mark.parametrize("head", HEADS)
def test_levels_may_end_at_the_backbone(head):
    detector = build(small(head, detection={"levels": [3, 5]}), CLASSES)
    assert [tap for tap in detector.taps if tap[0] == "p"] == ["p3", "p4", "p5"]
    image, targets = batch()
    losses = detector(image, SIZES, targets)
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in detector.parameters())


@real
@pytest.mark.parametrize("head", HEADS)
def test_bfloat16_regions_are_float32(head):
    detector = seeded(small(head), 0).eval()
    image, targets = batch()
    with Taps(detector, {"logits": detector.taps["logits"]}) as taps, torch.autocast("cpu", torch.bfloat16):
        regions = detector.propose(image, SIZES)
        assert taps.read()["logits"].dtype == torch.float32
        losses = detector.train()(image, SIZES, targets, regions)
    assert all(boxes.dtype == torch.float32 for boxes in regions.boxes)
    assert all(loss.isfinite() for loss in losses.values())
