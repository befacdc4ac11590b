"""`freeze`: the first layers of a backbone stay as they were loaded."""

import pytest
import torch

from bcd.config.schema.models import DetectionModel, SegmentationModel
from bcd.errors import UserError
from bcd.models import build
from bcd.models.detection import torchvision_detector
from bcd.models.detection.detector import Targets

LITE = {"backbone": "tf_efficientnet_lite0", "output_stride": 32, "pretrained": "index", "channels": 16}


def states(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def changed(model, before):
    return {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}


def step(model, loss):
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    loss.backward()
    optimizer.step()


def test_all_up_to_the_module_stays_and_all_behind_it_learns():
    torch.manual_seed(0)
    model = build(SegmentationModel(**LITE, head="fpn", freeze="blocks.2"), 3)
    model.eval().train()
    before = states(model)
    step(model, model(torch.randn(2, 3, 64, 64))["logits"].square().sum())
    fixed = ("backbone.conv_stem.", "backbone.bn1.", *(f"backbone.blocks.{stage}." for stage in range(3)))
    assert changed(model, before) == {key for key in before if not key.startswith(fixed)}
    assert any(key.startswith(fixed) and key.endswith("running_mean") for key in before)


def test_frozen_layers_are_the_same_in_training_and_in_evaluation():
    model = build(SegmentationModel(**LITE, head="fpn", freeze="blocks.2"), 3)
    image = torch.randn(1, 3, 64, 64)
    in_training = model.train().backbone(image)
    in_evaluation = model.eval().backbone(image)
    same = [torch.equal(a, b) for a, b in zip(in_training, in_evaluation, strict=True)]
    assert same == [True, True, False, False]
    assert [stage.requires_grad for stage in in_training] == [False, False, True, True]
    assert model.train().training and not model.backbone.blocks[2].training and model.backbone.blocks[3].training


def test_part_of_a_stage_freezes_what_is_before_it_only():
    model = build(SegmentationModel(**LITE, head="lraspp", freeze="blocks.1.0"), 3)
    trained = [name for name, parameter in model.backbone.named_parameters() if parameter.requires_grad]
    assert trained[0] == "blocks.1.1.conv_pw.weight" and len(trained) == len({*trained})
    assert model.backbone.blocks.training and not model.backbone.blocks[1][0].training


@pytest.mark.parametrize("head", ["fcos", "mask_rcnn"])
def test_detectors_freeze_alike(head):
    torch.manual_seed(0)
    fields = LITE | {"head": head, "detection": {"fc_channels": 8} if head == "mask_rcnn" else {}}
    model = torchvision_detector.build(DetectionModel(**fields, freeze="blocks.1"), 2)
    model.train()
    before = states(model)
    masks = torch.zeros(1, 64, 64, dtype=torch.uint8)
    masks[:, 8:40, 8:40] = 1
    targets = [Targets(torch.tensor([[8.0, 8.0, 40.0, 40.0]]), torch.tensor([1]), masks)] * 2
    losses = model(torch.randn(2, 3, 64, 64), [(64, 64)] * 2, targets)
    step(model, sum(losses.values()))
    moved = changed(model, before)
    assert not [
        key for key in moved if key.startswith(("backbone.conv_stem", "backbone.blocks.0", "backbone.blocks.1."))
    ]
    assert any(key.startswith("backbone.blocks.2.") for key in moved)


def test_an_unknown_module_and_random_weights_are_refused():
    with pytest.raises(
        UserError, match=r"model\.freeze: the backbone has no module 'block\.2'; did you mean 'blocks\.2'"
    ):
        build(SegmentationModel(**LITE, head="fpn", freeze="block.2"), 3)
    with pytest.raises(ValueError, match="freeze: random weights would stay as they are"):
        SegmentationModel(**LITE | {"pretrained": "none"}, head="fpn", freeze="blocks.2")
