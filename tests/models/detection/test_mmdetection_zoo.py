"""Files of MMDetection as detectors of the engine detectron2, against MMDetection itself.

Weights follow from MMDetection's keys. What needs both libraries is skipped where one of them is not installed; names,
order and what a file says of its training are not.
"""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from support.weight_rule import weight
from torchvision.ops import box_iou

from bcd.config.load import parse_model
from bcd.config.schema.models import DetectionModel
from bcd.config.zoo import MEAN, STD
from bcd.errors import UserError
from bcd.models.detection import build_detector
from bcd.models.detection.detectron2_zoo import STEM, coco_classes
from bcd.models.detection.mmdetection_config import read_settings, trained, unlike
from bcd.models.detection.mmdetection_zoo import detectron2_name, mmdetection_file
from bcd.models.weights import WeightsFile, read_weights

real = pytest.mark.skipif(
    find_spec("mmdet") is None or find_spec("detectron2") is None, reason="MMDetection or detectron2 is not installed"
)
CONFIGS = {
    ("retinanet", "pytorch"): "retinanet/retinanet_{}_fpn_1x_coco.py",
    ("retinanet", "caffe"): "retinanet/retinanet_{}-caffe_fpn_1x_coco.py",
    ("faster_rcnn", "pytorch"): "faster_rcnn/faster-rcnn_{}_fpn_1x_coco.py",
    ("faster_rcnn", "caffe"): "faster_rcnn/faster-rcnn_{}-caffe_fpn_1x_coco.py",
    ("mask_rcnn", "pytorch"): "mask_rcnn/mask-rcnn_{}_fpn_1x_coco.py",
    ("mask_rcnn", "caffe"): "mask_rcnn/mask-rcnn_{}-caffe_fpn_1x_coco.py",
}
SIZE = (96, 128)
CAFFE_STEM = 1 / 57  # about what a stem is smaller by where nothing divides the images


def fields(head, file, *, style="pytorch", backbone="resnet50", **changes):
    detection = {"engine": "detectron2"}
    detection |= {"stride_in_1x1": True} if style == "caffe" else {}
    detection |= {"p7_without_relu": True} if head == "retinanet" else {}
    return {
        "backbone": backbone, "head": head, "channels": 256, "output_stride": 32, "pretrained": str(file),
        "detection": detection,
    } | changes  # fmt: skip


def close(ours, theirs, tolerance=1e-4):
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


def images():
    """RGB (1, 3, H, W) in 0..255, and as our datasets normalise it."""
    rgb = torch.randint(0, 256, (1, 3, *SIZE), generator=torch.Generator().manual_seed(0)).float()
    return rgb, (rgb - torch.tensor(MEAN).view(-1, 1, 1)) / torch.tensor(STD).view(-1, 1, 1)


# --- What needs no library


def block(layer, index, convs=3):
    prefix = f"backbone.layer{layer}.{index}."
    norms = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    names = [f"{prefix}conv{i}.weight" for i in range(1, convs + 1)]
    names += [f"{prefix}bn{i}.{norm}" for i in range(1, convs + 1) for norm in norms]
    if index == 0:
        names += [f"{prefix}downsample.0.weight", *(f"{prefix}downsample.1.{norm}" for norm in norms)]
    return names


def keys(head):
    """Those of MMDetection's R-50 FPN detectors."""
    names = ["backbone.conv1.weight", "backbone.bn1.weight", "backbone.bn1.bias"]
    names += ["backbone.bn1.running_mean", "backbone.bn1.running_var"]
    for layer, depth in enumerate((3, 4, 6, 3), 1):
        names += [name for index in range(depth) for name in block(layer, index)]
    laterals, outputs = (3, 5) if head == "retinanet" else (4, 4)
    layers = [f"neck.lateral_convs.{i}.conv" for i in range(laterals)]
    layers += [f"neck.fpn_convs.{i}.conv" for i in range(outputs)]
    if head == "retinanet":
        layers += [f"bbox_head.{tower}_convs.{i}.conv" for tower in ("cls", "reg") for i in range(4)]
        layers += ["bbox_head.retina_cls", "bbox_head.retina_reg"]
    else:
        layers += [f"rpn_head.rpn_{layer}" for layer in ("conv", "cls", "reg")]
        layers += [f"roi_head.bbox_head.{layer}" for layer in ("fc_cls", "fc_reg", "shared_fcs.0", "shared_fcs.1")]
    if head == "mask_rcnn":
        layers += [f"roi_head.mask_head.{layer}" for layer in ("upsample", "conv_logits")]
        layers += [f"roi_head.mask_head.convs.{i}.conv" for i in range(4)]
    return names + [f"{layer}.{part}" for layer in layers for part in ("weight", "bias")]


def small(head, *without, **tensors):
    """A state dict of these keys, whose stem alone has a shape of its own."""
    state = {key: torch.zeros(1) for key in keys(head) if key not in without}
    return state | {"backbone.conv1.weight": torch.ones(1, 3, 1, 1)} | tensors


def text(style="pytorch", since=3, neck="", further=""):
    """A configuration's text, as it is since 2023 (3.x) or was before."""
    rgb = style == "pytorch"
    mean, std = (MEAN, STD) if rgb else (MEAN[::-1], (1.0, 1.0, 1.0))
    pixels = f"mean={list(mean)}, std={list(std)}, {'bgr_to_rgb' if since == 3 else 'to_rgb'}={rgb}"
    inside = f"data_preprocessor=dict({pixels})," if since == 3 else ""
    parts = f"backbone=dict(type='ResNet', style='{style}'), neck=dict(type='FPN', {neck}){further}"
    return f"model = dict({inside}{parts})\n" + (f"img_norm_cfg = dict({pixels})\n" if since == 2 else "")


@pytest.mark.parametrize("head", ["retinanet", "faster_rcnn", "mask_rcnn"])
def test_each_key_has_a_name_of_its_own(head):
    state = small(head)
    found = mmdetection_file(DetectionModel(**fields(head, "w.pth")), WeightsFile(state)).state
    assert len(found) == len([key for key in state if not key.endswith("num_batches_tracked")])
    levels = range(3, 8) if head == "retinanet" else range(2, 6)
    pyramid = {name.split(".")[1] for name in found if name.startswith("backbone.fpn_output")}
    assert pyramid == {f"fpn_output{level}" for level in levels if level < 6}
    assert ("backbone.top_block.p7.weight" in found) == (head == "retinanet")


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("backbone.conv1.weight", STEM),
        ("backbone.bn1.running_var", "backbone.bottom_up.stem.conv1.norm.running_var"),
        ("backbone.layer3.5.bn2.bias", "backbone.bottom_up.res4.5.conv2.norm.bias"),
        ("backbone.layer1.0.downsample.1.weight", "backbone.bottom_up.res2.0.shortcut.norm.weight"),
        ("neck.lateral_convs.0.conv.weight", "backbone.fpn_lateral3.weight"),
        ("neck.fpn_convs.3.conv.bias", "backbone.top_block.p6.bias"),
        ("bbox_head.reg_convs.2.conv.weight", "head.bbox_subnet.4.weight"),
        ("roi_head.bbox_head.shared_fcs.1.bias", "roi_heads.box_head.fc2.bias"),
        ("roi_head.mask_head.convs.0.conv.weight", "roi_heads.mask_head.mask_fcn1.weight"),
        ("bbox_head.fc_cls.weight", ""),  # of MMDetection 1.x, whose background is the first row
    ],
)
def test_names(theirs, ours):
    assert detectron2_name(theirs, 3) == ours


def test_anchors_of_a_location_change_their_order():
    """Ratio by ratio in mmdet's anchor_generator.py (`scale_major`), size by size in detectron2's."""
    ratios, scales, classes = (0.5, 1, 2), (4, 5, 6), 2
    theirs = [[ratio, scale, k] for ratio in ratios for scale in scales for k in range(classes)]
    ours = [[ratio, scale, k] for scale in scales for ratio in ratios for k in range(classes)]
    state = small("retinanet", **{"bbox_head.retina_cls.weight": torch.tensor(theirs)})
    found = mmdetection_file(DetectionModel(**fields("retinanet", "w.pth")), WeightsFile(state)).state
    assert found["head.cls_score.weight"].tolist() == ours


@pytest.mark.parametrize("since", [2, 3])
@pytest.mark.parametrize("style", ["pytorch", "caffe", ""])
def test_the_stem_is_for_our_images(style, since):
    """Without a text, `stride_in_1x1` says which images they were."""
    caffe = since == 2 if not style else style == "caffe"
    file = WeightsFile(small("mask_rcnn"), config=text(style, since) if style else "")
    model = DetectionModel(**fields("mask_rcnn", "w.pth", style="caffe" if caffe else "pytorch"))
    rgb, normalised = images()
    theirs = (rgb - torch.tensor(MEAN).view(-1, 1, 1)).flip(1) if caffe else normalised
    weights = torch.randn(4, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    file.state["backbone.conv1.weight"] = weights
    found = mmdetection_file(model, file).state[STEM]
    close(torch.conv2d(normalised, found, stride=2), torch.conv2d(theirs, weights, stride=2), 1e-5)


@pytest.mark.parametrize(
    ("head", "style", "config", "message"),
    [
        ("faster_rcnn", "pytorch", text("caffe"), "stride_in_1x1: .* is of a ResNet of style caffe; set it"),
        ("faster_rcnn", "caffe", text("pytorch", 2), "stride_in_1x1: .* is of a ResNet of style pytorch; remove it"),
        ("retinanet", "pytorch", text(neck="relu_before_extra_convs=True"), "p7_without_relu: .* has a ReLU"),
        ("faster_rcnn", "caffe", text("caffe").replace("103.53", "102.9801"), r"of mean \[123.675, 116.28, 102.9801\]"),
        (
            "faster_rcnn", "pytorch", text(further=", rpn_head=dict(anchor_generator=dict(scales=[4]))"),
            r"trained with model.rpn_head.anchor_generator.scales \[4\], not \[8\]",
        ),
        (
            "retinanet", "pytorch",
            text(further=", bbox_head=dict(anchor_generator=dict(type='mmdet.models.LegacyAnchorGenerator'))"),
            "anchor_generator.type 'mmdet.models.LegacyAnchorGenerator', not 'AnchorGenerator'",
        ),
        ("faster_rcnn", "pytorch", text().replace("'FPN'", "'PAFPN'"), "model.neck.type 'PAFPN', not 'FPN'"),
    ],
)  # fmt: skip
def test_another_training_is_refused(head, style, config, message):
    model = DetectionModel(**fields(head, "w.pth", style=style))
    with pytest.raises(UserError, match=message):
        mmdetection_file(model, WeightsFile(small(head), config=config))


@pytest.mark.parametrize(
    "key",
    [
        "bbox_head.conv_centerness.weight",  # FCOS
        "bbox_head.cls_convs.0.gn.weight",  # group norm
        "roi_head.bbox_head.0.fc_cls.weight",  # Cascade R-CNN
        "backbone.layer2.0.conv2.conv_offset.weight",  # deformable convolutions
        "backbone.features.0.weight",  # SSD
        "backbone.layer1.0.downsample.2.weight",  # V1d
        "bbox_head.fc_cls.weight",  # MMDetection 1.x
        "neck.lateral_convs.0.bn.weight",  # norms of the pyramid
    ],
)
def test_another_architecture_is_refused(key):
    model = DetectionModel(**fields("faster_rcnn", "w.pth"))
    with pytest.raises(UserError, match=f"w.pth is of another detector than .*, as it has {re.escape(key)}; name a"):
        mmdetection_file(model, WeightsFile(small("faster_rcnn") | {key: torch.zeros(1)}))


def test_settings_are_read_without_running_them(tmp_path):
    """In the form of MMDetection 2.0: the files one after the other, the last of which changes those before."""
    joined = """/home/somebody/my configs/base.py
norm_cfg = dict(type='BN')
model = dict(backbone=dict(style='pytorch', norm_cfg=norm_cfg), neck={'type': 'FPN', 'outs': -5},
             head=dict(anchors=dict(scales=[4], ratios=[1.0])))
/home/somebody/my configs/mine.py
_base_ = ['base.py',
          'other.py']
model = dict(backbone=dict(style='caffe'), head=dict(_delete_=True, type=open('NEVER', 'w')))
""".replace("NEVER", str(tmp_path / "never"))
    found = read_settings(joined)
    assert found["model.backbone.style"] == "caffe" and found["model.neck.outs"] == -5
    assert not [path for path in found if path.startswith("model.head.anchors") or path == "model.head.type"]
    assert read_settings("no Python (") == read_settings("") == read_settings("a = " + "-" * 10**5 + "1") == {}
    assert not (tmp_path / "never").exists()


def test_published_settings_are_detectron2s():
    assert unlike(read_settings(text(neck="num_outs=5")), dense=True) == ""
    assert trained({}, caffe=False).torchvision and not trained({}, caffe=True).torchvision


@pytest.mark.parametrize("meta", [{"cfg": "a = 1"}, {"config": "a = 1", "CLASSES": ("dog",)}])
def test_the_text_beside_the_tensors_is_read(meta, tmp_path):
    torch.save({"meta": meta, "state_dict": {"w": torch.zeros(1)}}, tmp_path / "w.pth")
    file = read_weights(tmp_path / "w.pth")
    assert file.config == "a = 1" and file.classes == meta.get("CLASSES", ())


def test_the_engine_torchvision_takes_the_backbone_alone(tmp_path):
    model = fields("faster_rcnn", tmp_path / "w.pth", detection={})
    source = build_detector(DetectionModel(**model | {"pretrained": "none"}), 80)
    state = small("faster_rcnn") | {key: x for key, x in source.state_dict().items() if key.startswith("backbone.")}
    torch.save({"meta": {"cfg": text()}, "state_dict": state}, tmp_path / "w.pth")
    weights = build_detector(DetectionModel(**model), 80).weights
    assert weights.engine == "detectron2" and "unexpected (neck.lateral_convs.0.conv.weight" in weights.note
    assert weights.unfilled and not any(name.startswith("backbone.") for name in weights.unfilled)
    torch.save({"meta": {"cfg": text("caffe")}, "state_dict": state}, tmp_path / "w.pth")
    with pytest.raises(
        UserError, match=r"MMDetection with other strides or images .*; set detection.engine: detectron2"
    ):
        build_detector(DetectionModel(**model), 80)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": "faster_rcnn"}, "p7_without_relu: only detectron2's retinanet has it"),
        ({"detection": {"p7_without_relu": True}}, "p7_without_relu: only detectron2's retinanet has it"),
        (
            {
                "pretrained": "w.pkl",
                "detection": {"engine": "detectron2", "stride_in_1x1": True, "p7_without_relu": True},
            },
            r"p7_without_relu: 'w\.pkl' has a ReLU between P6 and P7",
        ),
    ],
)
def test_what_cannot_work_is_refused_when_params_are_read(changes, message):
    with pytest.raises(UserError, match=message):
        parse_model(fields("retinanet", "w.pth") | changes, "params/models.yaml: m")


def test_the_dataset_must_be_normalised_as_the_weights_are_read():
    hub = f"hub:somebody/teacher@{'a' * 40}/w.pkl#sha256={'b' * 64}"
    caffe, pickled = fields("faster_rcnn", "w.pth", style="caffe"), fields("faster_rcnn", hub, style="caffe")
    zoo = [DetectionModel(**values).of_zoo for values in (caffe, pickled, fields("retinanet", "w.pth"))]
    other = [DetectionModel(**caffe | {"pretrained": name}).of_zoo for name in ("none", "own.safetensors")]
    assert all(zoo) and not any(other)
    with pytest.raises(UserError, match="set engine: detectron2"):
        parse_model(pickled | {"detection": {}}, "params/models.yaml: m")


# --- MMDetection itself


def published(head, style, backbone):
    """MMDetection's own model, with weights of its keys, and what its checkpoint would be.

    Deltas are small enough for boxes to have an area, and scores for no two to be 1.
    """
    import mmdet
    from mmdet.datasets import CocoDataset
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    init_default_scope("mmdet")
    configs = Path(mmdet.__file__).parent / ".mim" / "configs"
    cfg = Config.fromfile(configs / CONFIGS[head, style].format(backbone.replace("resnet", "r")))
    cfg.model.backbone.init_cfg = None
    net = MODELS.build(cfg.model).eval()
    for key, tensor in net.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            scale = 0.2 if re.search(r"rpn_(cls|reg)|retina_reg|fc_reg", key) else 1.0
            scale *= CAFFE_STEM if style == "caffe" and key == "backbone.conv1.weight" else 1.0
            tensor.copy_(torch.from_numpy(scale * weight(key, tensor.shape)))
    meta = {"cfg": cfg.pretty_text, "dataset_meta": CocoDataset.METAINFO}
    return net, {"meta": meta, "state_dict": net.state_dict()}


def anchor_order(ours, theirs):
    """For each of our anchors of a location the number of theirs that is the same."""
    distance = torch.cdist(ours, theirs)
    assert distance.amin(1).max() < 1e-3
    return distance.argmin(1)


@real
@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["resnet50", "resnet101"])
@pytest.mark.parametrize(("head", "style"), CONFIGS)
@torch.no_grad()
def test_maps_heads_and_detections_are_those_of_mmdetection(head, style, backbone, tmp_path):
    from mmdet.structures import DetDataSample

    net, checkpoint = published(head, style, backbone)
    torch.save(checkpoint, tmp_path / "w.pth")
    model = DetectionModel(**fields(head, tmp_path / "w.pth", style=style, backbone=backbone))
    detector = build_detector(model, 80, coco_classes()).eval()
    assert detector.weights.unfilled == () and "unexpected" not in detector.weights.note
    rgb, normalised = images()
    facts = {"img_shape": SIZE, "ori_shape": SIZE, "pad_shape": SIZE, "batch_input_shape": SIZE, "scale_factor": (1, 1)}
    batch = net.data_preprocessor(
        {"inputs": [rgb[0].flip(0).to(torch.uint8)], "data_samples": [DetDataSample(metainfo=facts)]}
    )
    theirs, ours = net.extract_feat(batch["inputs"]), detector.features(normalised)
    for mine, expected in zip(ours.values(), theirs, strict=True):
        close(mine, expected)
    if head == "retinanet":
        dense_heads_are_the_same(detector.model, net, theirs)
        net.bbox_head.bbox_coder.clip_border = False  # detectron2 clips the boxes of this detector when all is done
    else:
        region_heads_are_the_same(detector.model, net, theirs)
    found = detector.detect(normalised, [SIZE], [SIZE])[0]
    expected = net.predict(batch["inputs"], batch["data_samples"], rescale=True)[0].pred_instances
    detections_are_the_same(found, expected)


def dense_heads_are_the_same(ours, theirs, maps):
    anchors = theirs.bbox_head.prior_generator
    for cell, base in zip(ours.anchor_generator.cell_anchors, anchors.base_anchors, strict=True):
        order = anchor_order(cell, base)
    assert order.tolist() != sorted(order.tolist())
    for mine, expected in zip(ours.head(list(maps)), theirs.bbox_head(maps), strict=True):
        for one, other in zip(mine, expected, strict=True):
            close(one, other.unflatten(1, (len(order), -1))[:, order].flatten(1, 2))


def region_heads_are_the_same(ours, theirs, maps):
    from detectron2.structures import Boxes

    generator = ours.proposal_generator.anchor_generator
    for cell, base in zip(generator.cell_anchors, theirs.rpn_head.prior_generator.base_anchors, strict=True):
        torch.testing.assert_close(cell, base)
    for mine, expected in zip(ours.proposal_generator.rpn_head(list(maps)), theirs.rpn_head(maps), strict=True):
        for one, other in zip(mine, expected, strict=True):
            close(one, other)
    boxes = torch.tensor([[3.2, 5.1, 60.4, 90.7], [10, 10, 118, 95], [70.5, 20.2, 75.3, 31.9]])
    rois, heads, their_heads = torch.cat([torch.zeros(3, 1), boxes], 1), ours.roi_heads, theirs.roi_head
    pyramid = list(maps[:4])
    scores, deltas = heads.box_predictor(heads.box_head(heads.box_pooler(pyramid, [Boxes(boxes)])))
    expected = their_heads._bbox_forward(maps, rois)
    close(scores, expected["cls_score"])
    close(deltas, expected["bbox_pred"])
    if heads.mask_on:
        pooled = heads.mask_pooler(pyramid, [Boxes(boxes)])
        close(heads.mask_head.layers(pooled), their_heads._mask_forward(maps, rois)["mask_preds"])


def detections_are_the_same(ours, theirs):
    """All of them, one by one. Of boxes that suppress each other with one score, either library may keep another."""
    height, width = SIZE
    boxes = theirs.bboxes.clone()
    boxes[:, 0::2].clamp_(0, width)
    boxes[:, 1::2].clamp_(0, height)
    assert len(ours.boxes) == len(boxes) > 10
    scores = (ours.scores[:, None] - theirs.scores).abs()
    equal = (scores < 1e-4) & (torch.cdist(ours.boxes, boxes, p=float("inf")) < 0.05)
    tied = (scores < 1e-6) & (box_iou(ours.boxes, boxes) > 0.5)
    same = (ours.classes[:, None] == theirs.labels) & (equal | tied)
    assert same.any(0).all() and same.any(1).all() and (equal & same).any(1).float().mean() > 0.95
    if ours.masks is not None:
        partner = same.float().argmax(1)
        assert (ours.masks.bool() != theirs.masks[partner]).float().mean() < 1e-3
