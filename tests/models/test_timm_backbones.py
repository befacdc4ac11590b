"""Backbones by timm's names: the index beside timm itself, and what a family gives forward, backward and from files."""

import subprocess
import sys

import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors.torch import save_file

from bcd.config.architectures import BACKBONES
from bcd.config.load import parse_model
from bcd.config.schema.models import DetectionModel, SegmentationModel
from bcd.config.timm_backbones import FILE, STRIDES, index_version, timm_backbones
from bcd.errors import UserError
from bcd.models import build
from bcd.models.backbones import build_backbone
from bcd.models.detection import build_detector
from bcd.models.timm_index import probe
from bcd.models.timm_pyramid import TimmPyramid, timm_key

# A small one of each family.
FAMILIES = (
    "convnext_atto", "convnextv2_atto", "efficientnet_lite0", "tf_efficientnet_b0", "mobilenetv3_small_050",
    "mobilenetv4_conv_small", "vit_tiny_patch16_224", "vit_small_patch16_dinov3", "vit_small_patch14_dinov2",
    "swinv2_cr_tiny_ns_224", "swinv2_tiny_window8_256", "eva02_tiny_patch14_224", "regnety_002", "resnet10t",
)  # fmt: skip
ODD = (70, 101)


def fields(name, **changes):
    return {"backbone": name, "head": "fpn", "channels": 8, "output_stride": 32} | changes


def test_the_index_names_every_model_of_its_timm():
    assert index_version() == timm.__version__
    assert list(timm_backbones()) == timm.list_models()


@pytest.mark.parametrize("name", [*FAMILIES, "levit_128", "hiera_tiny_224", "maxvit_pico_rw_256", "mixer_s32_224"])
def test_lines_of_the_index_are_made_again(name):
    assert probe(name) == timm_backbones()[name]


def test_a_line_is_read_as_it_was_written():
    lines = FILE.read_text().splitlines()[1:]
    assert [one.line for one in timm_backbones().values()] == lines


@pytest.mark.parametrize("name", FAMILIES)
def test_maps_of_any_size_have_their_strides_and_channels(name):
    net = build_backbone(name, output_stride=32).eval()
    with torch.no_grad():
        maps = net(torch.randn(1, 3, *ODD))
    assert [x.shape[1] for x in maps] == net.channels
    assert [x.shape[2:] for x in maps] == [(-(-ODD[0] // s), -(-ODD[1] // s)) for s in STRIDES]
    assert all(x.is_contiguous() and x.isfinite().all() for x in maps)


@pytest.mark.parametrize("name", ["convnext_atto", "vit_tiny_patch16_224", "swinv2_cr_tiny_ns_224"])
def test_segmentors_learn_in_all_their_parts(name):
    model = build(SegmentationModel(**fields(name)), 3)
    model(torch.randn(2, 3, *ODD))["logits"].square().mean().backward()
    assert [key for key, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def test_padding_and_cropping_leave_what_a_network_makes_of_a_fitting_image():
    net = TimmPyramid("convnext_atto").eval()
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for ours, theirs in zip(net(image), net.net(image), strict=True):
            assert torch.equal(ours, theirs)


def test_maps_with_channels_last_are_turned():
    net = TimmPyramid("swinv2_tiny_window8_256").eval()
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(net(image)[1], net.net(image)[1].permute(0, 3, 1, 2))


def test_the_pyramid_of_a_plain_transformer_is_vitdets():
    """Identity at its stride, maximum below; above it the channels are halved with each doubling."""
    net = TimmPyramid("vit_tiny_patch16_224").eval()
    assert net.channels == [48, 96, 192, 192]
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        maps, (last,) = net(image), net.net(image)
    assert torch.equal(maps[2], last)
    assert torch.equal(maps[3], torch.nn.functional.max_pool2d(last, 2))


def test_detectors_stand_on_any_of_them():
    fields = {"backbone": "mobilenetv4_conv_small", "head": "fcos", "channels": 8, "detection": {"convs": 1}}
    detector = build_detector(DetectionModel(**fields | {"output_stride": 32}), 2).eval()
    with torch.no_grad():
        assert list(detector.features(torch.zeros(1, 3, 64, 64))) == ["p3", "p4", "p5", "p6", "p7"]


@pytest.mark.parametrize("name", ["convnext_atto", "vit_tiny_patch16_224", "swinv2_tiny_window8_256"])
def test_a_file_of_timms_classifier_fills_the_backbone(name, tmp_path):
    torch.manual_seed(0)
    options = {} if name == "convnext_atto" else {"dynamic_img_size": True}
    source = timm.create_model(name, num_classes=3, **options).eval()
    torch.save(source.state_dict(), tmp_path / "w.pth")
    model = build(SegmentationModel(**fields(name, pretrained=str(tmp_path / "w.pth"))), 3).eval()
    expected = TimmPyramid(name).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        wanted = source.forward_intermediates(image, indices=1, intermediates_only=True, output_fmt="NCHW")[-1]
        assert not torch.equal(expected(image)[-1], model.backbone(image)[-1])
        found = model.backbone.net(image)[-1]
    found = found.permute(0, 3, 1, 2) if model.backbone.channels_last else found
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("name", ["convnext_atto", "vit_tiny_patch16_224"])
def test_weights_of_timm_come_from_the_hubs_cache(name, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    config = timm.get_pretrained_cfg(name)
    repository = tmp_path / f"models--{config.hf_hub_id.replace('/', '--')}"
    repository = repository.with_name(repository.name.removesuffix(f".{config.tag}") + f".{config.tag}")
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    source = timm.create_model(name)
    save_file(source.state_dict(), snapshot / "model.safetensors")
    model = build(SegmentationModel(**fields(name, pretrained="timm")), 3)
    assert model.weights.note.startswith(f"timm:{name}.{config.tag} tensors-sha256:")
    taken = {timm_key(key): x for key, x in model.backbone.state_dict().items() if not key.startswith("pyramid.")}
    assert all(torch.equal(source.state_dict()[key], x) for key, x in taken.items())


def test_patches_of_another_side_are_scaled_as_timm_does(tmp_path):
    name = "vit_small_patch14_dinov2"
    source = timm.create_model(name, num_classes=0)
    torch.save(source.state_dict(), tmp_path / "w.pth")
    model = build(SegmentationModel(**fields(name, pretrained=str(tmp_path / "w.pth"))), 3)
    assert model.backbone.net.model.patch_embed.proj.weight.shape[-2:] == (16, 16)
    ours = model.backbone.net.model.blocks[5].mlp.fc1.weight
    assert torch.equal(ours, source.blocks[5].mlp.fc1.weight)


def test_a_file_of_another_model_is_refused(tmp_path):
    torch.save(timm.create_model("convnext_femto").state_dict(), tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"w\.pth lacks \d+ tensors of backbone 'convnext_atto'"):
        build(SegmentationModel(**fields("convnext_atto", pretrained=str(tmp_path / "w.pth"))), 3)


def test_layers_are_frozen_by_timms_names(tmp_path):
    torch.save(timm.create_model("mobilenetv4_conv_small").state_dict(), tmp_path / "w.pth")
    model = build(
        SegmentationModel(**fields("mobilenetv4_conv_small", pretrained=str(tmp_path / "w.pth"), freeze="blocks.1")), 3
    )
    trained = {name.split(".")[2] for name, p in model.backbone.named_parameters() if p.requires_grad}
    assert trained == {"2", "3", "4"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("levit_128", "'levit_128' of timm cannot be one, as its maps have strides 16, 32, 64, and 4, 8, 16 and 32"),
        ("hiera_tiny_224", "as it takes images of 224 x 224 alone; choose another"),
        ("convnext_tny", "'convnext_tny' is not known; did you mean 'convnext_tiny'?"),
    ],
)
def test_what_cannot_work_is_refused_when_params_are_read(name, message):
    with pytest.raises(UserError, match=message):
        parse_model(fields(name), "params/models.yaml: m")


def test_an_output_stride_that_timms_have_not_is_refused():
    with pytest.raises(UserError, match="output_stride: 'convnext_atto' has 32, not 8"):
        parse_model(fields("convnext_atto", output_stride=8), "params/models.yaml: m")


def test_params_are_read_without_timm():
    code = (
        "import sys; from bcd.config.load import parse_model\n"
        "parse_model({'backbone': 'convnext_tiny', 'head': 'fpn', 'channels': 8, 'output_stride': 32}, 'm')\n"
        "sys.exit('timm' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_another_timm_than_the_indexs_is_told(monkeypatch):
    from dataclasses import replace

    changed = replace(timm_backbones()["convnext_atto"], channels=(1, 2, 3, 4))
    monkeypatch.setitem(timm_backbones(), "convnext_atto", changed)
    with pytest.raises(UserError, match=r"has other maps of 'convnext_atto' than timm .*bcd\.models\.timm_index"):
        TimmPyramid("convnext_atto")


def test_own_names_stay_our_own():
    own = set(BACKBONES) & set(timm_backbones())
    assert {"resnet18", "mobilenetv2_100", "swin_tiny_patch4_window7_224"} <= own
    assert not any(
        isinstance(build_backbone(name, output_stride=32), TimmPyramid) for name in ("resnet18", "resnet18d")
    )
