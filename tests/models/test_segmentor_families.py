"""Models that the shared references lack against mmsegmentation 1.2.2, by the samples of segmentor_reference.json."""

import hashlib
import json

import numpy as np
import pytest
import torch
from support.project import ROOT
from support.weight_rule import SIZES, image, sample, weight

from bcd.config.schema.models import SegmentationModel
from bcd.models import build, count_parameters, flops, load_openmmlab
from bcd.models.openmmlab import openmmlab_naming, our_layout

REFERENCE = json.loads((ROOT / "tests/support/segmentor_reference.json").read_text())
# name: backbone, head, head channels, auxiliary channels, output stride
MODELS = {
    "isanet-r18": ("resnet18", "isa", 128, 64, 8),
    "isanet-r101": ("resnet101", "isa", 512, 256, 8),
    "deeplabv3plus-r101": ("resnet101", "deeplabv3plus", 512, 256, 8),
    "fcn-hrnet-w18s": ("hrnet_w18_small_v2", "fcn", 270, None, 32),
    "fcn-hrnet-w48": ("hrnet_w48", "fcn", 720, None, 32),
    "upernet-swin-t": ("swin_tiny_patch4_window7_224", "uper", 512, 256, 32),
    "upernet-swin-b12": ("swin_base_patch4_window12_384", "uper", 512, 256, 32),
    "segformer-b1": ("mit_b1", "segformer", 256, None, 32),
    "pspnet-r101": ("resnet101", "psp", 512, 256, 8),
    "pspnet-r18": ("resnet18", "psp", 128, 64, 8),
    "deeplabv3plus-mv2": ("mobilenetv2_100", "deeplabv3plus", 512, 256, 8),
}
SLOW = ("isanet-r101", "deeplabv3plus-r101", "fcn-hrnet-w48", "upernet-swin-b12")
# README of BPKD: parameters in M, multiply-accumulates in G, of the ADE20K models at 512x512.
BPKD = {
    "pspnet-r101": ("68.07", "256.89"),
    "pspnet-r18": ("12.82", "54.53"),
    "isanet-r101": ("56.80", "228.21"),
    "isanet-r18": ("12.46", "54.33"),
    "deeplabv3plus-r101": ("62.68", "255.67"),
    "deeplabv3plus-mv2": ("15.35", "69.60"),
    "fcn-hrnet-w48": ("65.95", "95.64"),
    "fcn-hrnet-w18s": ("3.97", "10.49"),
}


def built(name, classes):
    backbone, head, channels, aux, stride = MODELS[name]
    model = SegmentationModel(backbone=backbone, head=head, channels=channels, aux_channels=aux, output_stride=stride)
    return build(model, classes).eval()


def shape_in_openmmlab(key, tensor):
    """Shapes differ where MiT stacks query, key and value and has 1x1 convolutions for linear layers."""
    shape = list(tensor.shape)
    if key.endswith(("attn.q.weight", "attn.q.bias")):
        shape[0] *= 3
    if key.endswith(("attn.kv.weight", "attn.kv.bias")):
        shape[0] = shape[0] // 2 * 3
    return shape + [1, 1] if ".mlp.fc" in key and key.endswith("weight") and "stages_" in key else shape


def key_derived(model):
    """A checkpoint of mmsegmentation for `model`, its weights made from its keys, and the hash of keys and shapes."""
    rename = openmmlab_naming(model)
    shapes = {rename(key): shape_in_openmmlab(key, tensor) for key, tensor in model.state_dict().items()}
    lines = sorted(f"{key} {tuple(shape)}" for key, shape in shapes.items())
    state = {key: torch.from_numpy(np.asarray(weight(key, shape))) for key, shape in shapes.items() if shape}
    return state, hashlib.sha256("\n".join(lines).encode()).hexdigest()


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in REFERENCE])
@torch.no_grad()
def test_keys_parameters_and_logits_are_mmsegmentations(name):
    model, expected = built(name, 19), REFERENCE[name]
    state, keys = key_derived(model)
    assert (keys, count_parameters(model)) == (expected["keys_sha256"], expected["parameters"])
    exact = SIZES[:2] if name == "upernet-swin-t" else SIZES  # the other Swin takes its time
    for dtype, tolerance, sizes in ((torch.float64, 1e-8, exact), (torch.float32, 1e-4, SIZES[1:2])):
        model.to(dtype)
        report = load_openmmlab(model, state)
        assert (report.missing, report.mismatched, report.unexpected) == ((), (), ())
        for size in sizes:
            logits = model.head(model.backbone(torch.from_numpy(image(size)).to(dtype))).numpy()
            deviation = np.abs(sample(logits, 32) - expected["logits"][size]["sample"]).max()
            assert deviation < tolerance * expected["logits"][size]["largest"], (dtype, size)


@pytest.mark.parametrize("name", BPKD)
def test_size_and_cost_are_those_printed_by_bpkd(name):
    model = built(name, 150)
    assert (f"{count_parameters(model) / 1e6:.2f}", f"{flops(model, (512, 512)) / 1e9:.2f}") == BPKD[name]


def test_layouts_keep_what_they_do_not_know():
    tensor = torch.arange(12.0)
    assert our_layout("backbone.layer1.0.conv1.weight", tensor) is tensor
    query, rest = (our_layout(f"backbone.stages_0.blocks.0.attn.{part}.bias", tensor) for part in ("q", "kv"))
    assert torch.equal(torch.cat([query, rest]), tensor) and len(query) == 4
    merged = our_layout("backbone.layers.1.downsample.norm.weight", tensor)
    assert merged.tolist() == [0, 4, 8, 2, 6, 10, 1, 5, 9, 3, 7, 11]
    odd = torch.zeros(6)
    assert our_layout("backbone.layers.1.downsample.norm.weight", odd) is odd
