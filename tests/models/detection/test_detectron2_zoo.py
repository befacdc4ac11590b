"""Files of detectron2's model zoo, against detectron2 itself, under weights that follow from its keys.

What needs detectron2 is skipped where it is not installed; how the files are read is not.
"""

import pickle
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from support.weight_rule import weight

from bcd.config.load import parse_model
from bcd.config.schema.models import DetectionModel
from bcd.config.zoo import MEAN, STD
from bcd.errors import UserError
from bcd.models.detection import build_detector
from bcd.models.detection.detectron2_zoo import STEM, coco_classes, detectron2_name, zoo_file

real = pytest.mark.skipif(find_spec("detectron2") is None, reason="detectron2 is not installed")
CONFIGS = {
    ("retinanet", "resnet50"): "COCO-Detection/retinanet_R_50_FPN_3x.yaml",
    ("retinanet", "resnet101"): "COCO-Detection/retinanet_R_101_FPN_3x.yaml",
    ("faster_rcnn", "resnet50"): "COCO-Detection/faster_rcnn_R_50_FPN_3x.yaml",
    ("faster_rcnn", "resnet101"): "COCO-Detection/faster_rcnn_R_101_FPN_3x.yaml",
    ("mask_rcnn", "resnet50"): "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml",
    ("mask_rcnn", "resnet101"): "COCO-InstanceSegmentation/mask_rcnn_R_101_FPN_3x.yaml",
}
PIXELS = {
    "pixel_mean": np.array(MEAN[::-1], np.float32).reshape(3, 1, 1),
    "pixel_std": np.ones((3, 1, 1), np.float32),
}


def fields(head, backbone, file, **detection):
    detection = {"engine": "detectron2", "stride_in_1x1": True} | detection
    return {
        "backbone": backbone, "head": head, "channels": 256, "output_stride": 32, "pretrained": str(file),
        "detection": detection,
    }  # fmt: skip


def save(path, arrays, **beside):
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "Detectron2 Model Zoo"} | beside, 4))
    return path


def stem():
    return {STEM: weight(STEM, (64, 3, 7, 7)).astype(np.float32)}


def published(head, backbone):
    """detectron2's own model of the zoo's configuration, with weights of its keys, and these as the zoo has them."""
    from detectron2 import model_zoo
    from detectron2.modeling import build_model

    cfg = model_zoo.get_config(CONFIGS[head, backbone])
    cfg.MODEL.DEVICE = "cpu"
    net = build_model(cfg).eval()
    arrays = {key: weight(key, x.shape).astype(np.float32) for key, x in net.state_dict().items()}
    net.load_state_dict({key: torch.from_numpy(array) for key, array in arrays.items()})
    generator = net.anchor_generator if head == "retinanet" else net.proposal_generator.anchor_generator
    prefix = "" if head == "retinanet" else "proposal_generator."
    cells = {
        f"{prefix}anchor_generator.cell_anchors.{i}": cell.numpy() for i, cell in enumerate(generator.cell_anchors)
    }
    return net, arrays | cells | PIXELS


def close(ours, theirs):
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()


@real
@pytest.mark.parametrize(
    ("head", "backbone"), [pytest.param(*key, marks=[pytest.mark.slow] * (key[1] == "resnet101")) for key in CONFIGS]
)
@torch.no_grad()
def test_maps_and_heads_are_those_of_detectron2(head, backbone, tmp_path):
    """Its input is BGR in 0..255, ours RGB and normalised; the anchors and pixel statistics are in the file."""
    net, arrays = published(head, backbone)
    path = save(tmp_path / "model_final.pkl", arrays)
    detector = build_detector(DetectionModel(**fields(head, backbone, path)), 80, coco_classes()).eval()
    assert detector.weights.unfilled == () and "unexpected" not in detector.weights.note
    rgb = torch.randint(0, 256, (1, 3, 96, 128), generator=torch.Generator().manual_seed(0)).float()
    theirs = net.backbone(net.preprocess_image([{"image": rgb[0].flip(0)}]).tensor)
    ours = detector.features((rgb - torch.tensor(MEAN).view(-1, 1, 1)) / torch.tensor(STD).view(-1, 1, 1))
    for level, expected in theirs.items():
        close(ours[level], expected)
    levels = [theirs[level] for level in sorted(theirs)]
    if head == "retinanet":
        for one, other in zip(detector.model.head(levels), net.head(levels), strict=True):
            close(torch.cat([x.flatten() for x in one]), torch.cat([x.flatten() for x in other]))
        return
    for one, other in zip(
        detector.model.proposal_generator.rpn_head(levels), net.proposal_generator.rpn_head(levels), strict=True
    ):
        close(torch.cat([x.flatten() for x in one]), torch.cat([x.flatten() for x in other]))
    pooled = torch.randn(3, 256, 7, 7, generator=torch.Generator().manual_seed(1))
    heads = [model.roi_heads for model in (detector.model, net)]
    for one, other in zip(*(each.box_predictor(each.box_head(pooled)) for each in heads), strict=True):
        close(one, other)
    if head == "mask_rcnn":
        pooled = torch.randn(2, 256, 14, 14, generator=torch.Generator().manual_seed(2))
        close(*(each.mask_head.layers(pooled) for each in heads))


@real
def test_classes_are_taken_by_name_and_what_does_not_fit_is_refused(tmp_path):
    net, arrays = published("faster_rcnn", "resnet50")
    path = save(tmp_path / "model_final.pkl", arrays)

    def built(head="faster_rcnn", backbone="resnet50", names=("dog", "person"), **detection):
        model = DetectionModel(**fields(head, backbone, path, **detection))
        return build_detector(model, len(names), names)

    predictor = built().model.roi_heads.box_predictor
    theirs = net.roi_heads.box_predictor
    rows = [coco_classes().index("dog"), 0]
    assert torch.equal(predictor.cls_score.weight, theirs.cls_score.weight[[*rows, 80]])
    boxes = theirs.bbox_pred.weight.unflatten(0, (80, 4))
    assert torch.equal(predictor.bbox_pred.weight.unflatten(0, (2, 4)), boxes[rows])
    weights = built(names=("dog", "tree")).weights
    assert weights.lacking == "tree" and all("box_predictor" in name for name in weights.unfilled)
    with pytest.raises(UserError, match=r"of another architecture than mask_rcnn over resnet50, as it lacks .*mask"):
        built("mask_rcnn")
    with pytest.raises(UserError, match=r"of another architecture than faster_rcnn over resnet101, as it lacks "):
        built(backbone="resnet101")
    with pytest.raises(UserError, match=r"detection\.anchor_scale: the published detector .* anchors of its own"):
        built(anchor_scale=4.0)
    key = "proposal_generator.anchor_generator.cell_anchors.0"
    save(path, arrays | {key: 2 * arrays[key]})
    with pytest.raises(UserError, match="was trained on other anchors"):
        built()


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("conv1_w", STEM),
        ("res_conv1_bn_s", "backbone.bottom_up.stem.conv1.norm.weight"),
        ("res2_0_branch1_w", "backbone.bottom_up.res2.0.shortcut.weight"),
        ("res4_22_branch2c_bn_b", "backbone.bottom_up.res4.22.conv3.norm.bias"),
        ("fc1000_w", "fc1000_w"),
        ("roi_heads.box_head.fc1.weight", "roi_heads.box_head.fc1.weight"),
    ],
)
def test_names_of_caffe2(theirs, ours):
    assert detectron2_name(theirs) == ours


def test_the_stem_sees_our_images_as_its_own(tmp_path):
    """w (BGR - mean) is w' ((RGB - mean) / std)."""
    state = zoo_file(save(tmp_path / "m.pkl", stem() | PIXELS)).state
    assert state.keys() == {STEM}
    rgb = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 255
    mean, std = torch.tensor(MEAN).view(-1, 1, 1), torch.tensor(STD).view(-1, 1, 1)
    expected = torch.conv2d((rgb - mean).flip(1), torch.from_numpy(stem()[STEM]).double(), stride=2, padding=3)
    found = torch.conv2d((rgb - mean) / std, state[STEM].double(), stride=2, padding=3)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-3)


def test_norms_without_statistics_have_mean_0_and_variance_1(tmp_path):
    arrays = stem() | {"res2_0_branch2a_bn_s": np.full(64, 2, np.float32)}
    state = zoo_file(save(tmp_path / "m.pkl", arrays)).state
    layer = "backbone.bottom_up.res2.0.conv1.norm."
    assert state[f"{layer}running_mean"].eq(0).all() and state[f"{layer}running_var"].eq(1).all()


@pytest.mark.parametrize(
    ("arrays", "beside", "message"),
    [
        (stem() | PIXELS | {"pixel_std": 57 * PIXELS["pixel_std"]}, {}, "has pixel_std .*not that of the BGR images"),
        (stem(), {"__author__": "torchvision"}, "is of RGB images; name torchvision's own .pth"),
        ({"a": np.zeros(3)}, {}, "has no stem of a ResNet"),
        ([1, 2], {}, "holds no mapping of names to arrays under 'model'"),
    ],
)
def test_files_of_another_kind_are_refused(arrays, beside, message, tmp_path):
    with pytest.raises(UserError, match=message):
        zoo_file(save(tmp_path / "m.pkl", arrays, **beside))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"detection": {"engine": "torchvision"}}, "set engine: detectron2"),
        ({"detection": {"engine": "detectron2"}}, r"detection\.stride_in_1x1: .* set it to true"),
        ({"backbone": "mobilenetv2_100"}, "only resnet50 and resnet101 of detectron2 have it"),
        ({"head": "psp", "detection": None}, "is a file of detectron2's detectors; name another file"),
    ],
)
def test_what_cannot_work_is_refused_when_params_are_read(changes, message):
    values = fields("faster_rcnn", "resnet50", "w.pkl") | changes
    with pytest.raises(UserError, match=message):
        parse_model({key: value for key, value in values.items() if value is not None}, "params/models.yaml: m")
