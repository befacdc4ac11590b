"""Files of torchvision's published segmentors, against torchvision itself, under weights that follow from its keys."""

import pytest
import torch
from support.weight_rule import weight
from torchvision.models import segmentation as published

from bcd.config.schema.models import DetectionModel, SegmentationModel
from bcd.models import build
from bcd.models.torchvision_segmentation import voc_categories

SIZE = (65, 97)


def fields(backbone, file, **changes):
    model = {"backbone": backbone, "head": "deeplabv3", "channels": 256, "aux_channels": 256, "pretrained": str(file)}
    return SegmentationModel(**model | changes)


def theirs(name, **options):
    net = getattr(published, name)(weights=None, weights_backbone=None, **options)
    state = {
        key: torch.from_numpy(weight(key, tensor.shape)).to(tensor.dtype)
        for key, tensor in net.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    net.load_state_dict(state, strict=False)
    return net.eval(), state


@pytest.mark.parametrize("depth", [50, 101])
def test_published_segmentors_are_torchvisions(depth, tmp_path):
    """The four stages and the logits, of VOC's classes in another order, as two heads give them."""
    reference, state = theirs(f"deeplabv3_resnet{depth}", aux_loss=True)
    torch.save(state, tmp_path / "w.pth")
    kept = [7, 0, 15]
    assert [voc_categories()[i] for i in kept] == ["car", "__background__", "person"]
    names = ["car", "background", "person"]
    ours = build(fields(f"resnet{depth}b", tmp_path / "w.pth"), len(names), names).eval()
    assert ours.weights.unfilled == () and ours.weights.lacking == "" and "unexpected" not in ours.weights.note
    image = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = reference(image)
        stages = ours.backbone(image)
        maps = reference.backbone(image)
        for one, expected in zip(stages[2:], (maps["aux"], maps["out"]), strict=True):
            assert (one - expected).abs().max() < 1e-4 * expected.abs().max()
        found = {
            "out": ours(image)["logits"],
            "aux": torch.nn.functional.interpolate(ours.aux(stages), size=SIZE, mode="bilinear", align_corners=False),
        }
    for name, expected in wanted.items():
        assert (found[name] - expected[:, kept]).abs().max() < 1e-4 * expected.abs().max(), name


def test_another_segmentor_fills_the_backbone_alone(tmp_path):
    _, state = theirs("fcn_resnet50")
    torch.save(state, tmp_path / "w.pth")
    weights = build(fields("resnet50b", tmp_path / "w.pth", aux_channels=None), 21).weights
    assert weights.unfilled and all(name.startswith("head.") for name in weights.unfilled)


def test_the_7x7_stem_of_a_detector_has_one_name():
    with pytest.raises(ValueError, match="detectors have the 7x7 stem without a 'b'; write resnet50"):
        DetectionModel(backbone="resnet50b", head="fcos", channels=16, output_stride=32, detection={})
