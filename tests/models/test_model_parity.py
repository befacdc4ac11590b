"""Our models against mmsegmentation 1.2.2, number by number, under weights derived from its keys."""

import json

import numpy as np
import pytest
import torch
from support.project import SHARED
from support.weight_rule import SIZES, image, sample, weight

from bcd.config.schema.models import SegmentationModel
from bcd.models import build, count_parameters, flops, load_openmmlab
from bcd.models.openmmlab import openmmlab_naming, our_layout

REFERENCE = SHARED / "model_parity"
pytestmark = pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"reference outputs absent: {REFERENCE}")

*SMALL, LARGE = SIZES
# name: backbone, head, head channels, auxiliary channels, classes, output stride
MODELS = {
    "pspnet_r18": ("resnet18", "psp", 128, 64, 19, 8),
    "pspnet_r18_ade150": ("resnet18", "psp", 128, 64, 150, 8),
    "pspnet_r101": ("resnet101", "psp", 512, 256, 19, 8),
    "deeplabv3plus_mv2": ("mobilenetv2_100", "deeplabv3plus", 128, 64, 19, 8),
    "deeplabv3plus_mv2_ade150": ("mobilenetv2_100", "deeplabv3plus", 512, 256, 150, 8),
    "segformer_b0": ("mit_b0", "segformer", 256, None, 19, 32),
}
TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-4}


def built(name):
    backbone, head, channels, aux, classes, stride = MODELS[name]
    model = SegmentationModel(backbone=backbone, head=head, channels=channels, aux_channels=aux, output_stride=stride)
    return build(model, classes).eval()


def reference(name):
    return json.loads((REFERENCE / f"{name}.json").read_text())


def key_derived(table, gain):
    """The reference's weights, each checked against the element that is stored of it."""
    state = {}
    for entry in table:
        if entry["key"].endswith("num_batches_tracked"):
            continue
        tensor = weight(entry["key"], entry["shape"], gain)
        np.testing.assert_allclose(tensor.flat[0], entry["first"], rtol=1e-12)
        state[entry["key"]] = torch.from_numpy(np.asarray(tensor))
    return state


@torch.no_grad()
def outputs(model, size, dtype):
    pixels, maps = torch.from_numpy(image(size)).to(dtype), {}
    modules = {"decode_feature": model.head.neck, "logits": model.head}
    if model.aux is not None:
        modules |= {"aux_feature": model.aux.neck, "aux_logits": model.aux}

    def keep(name):
        return lambda module, args, out: maps.update({name: out})

    hooks = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    stages = model.backbone(pixels)
    maps |= {f"stage{i}": stage for i, stage in enumerate(stages)}
    if model.aux is not None:
        model.aux(stages)
    maps["logits_resized"] = model(pixels)["logits"]
    for hook in hooks:
        hook.remove()
    return {name: value.numpy() for name, value in maps.items()}


def deviations(name, sizes, dtype):
    """{(size, map): max|ours - reference| / max|reference|} over every stored array of the model."""
    model, facts = built(name).to(dtype), reference(name)
    report = load_openmmlab(model, key_derived(facts["state_dict"], facts["gain"]))
    assert (report.missing, report.mismatched, report.unexpected) == ((), (), ())
    kind = {torch.float64: "f64", torch.float32: "f32"}[dtype]
    found = {}
    with np.load(REFERENCE / f"{name}.npz") as stored:
        for size in sizes:
            for key, ours in outputs(model, size, dtype).items():
                whole, part = f"{size}.{key}.{kind}", f"{size}.{key}.sample.{kind}"
                expected = stored[whole] if whole in stored else stored[part]
                ours = ours if whole in stored else sample(ours, expected.size)
                assert ours.shape == expected.shape
                found[size, key] = np.abs(ours - expected).max() / np.abs(expected).max()
    return found


def test_the_weight_rule_matches_its_published_check():
    entry = {"key": "backbone.stem.0.weight", "shape": [32, 3, 3, 3], "first": 0.1383356572198368}
    key_derived([entry], gain=1)


@pytest.mark.parametrize("name", MODELS)
def test_keys_shapes_and_parameter_counts_are_mmsegmentations(name):
    model, facts = built(name), reference(name)
    rename, table = openmmlab_naming(model), {entry["key"]: entry["shape"] for entry in facts["state_dict"]}
    ours = model.state_dict()
    assert {rename(key) for key in ours} == set(table)
    assert all(our_layout(k, torch.empty(table[rename(k)])).shape == tensor.shape for k, tensor in ours.items())
    parts = {"backbone": model.backbone, "decode_head": model.head, "auxiliary_head": model.aux, "total": model}
    counts = {part: count_parameters(module) for part, module in parts.items() if module is not None}
    assert counts == facts["params"]


@pytest.mark.parametrize("name", MODELS)
def test_inference_cost_is_the_reference_count(name):
    model, facts = built(name), reference(name)
    for size, macs in facts["complexity_by_num_classes"][str(MODELS[name][4])]["macs"].items():
        assert flops(model, tuple(map(int, size.split("x")))) == macs["fvcore_total"]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", [name for name in MODELS if name != "pspnet_r101"])
def test_all_maps_equal_the_reference(name, dtype):
    worst = max(deviations(name, [*SMALL, LARGE], dtype).items(), key=lambda item: item[1])
    assert worst[1] < TOLERANCE[dtype], worst


def test_resnet101_maps_equal_the_reference():
    worst = max(deviations("pspnet_r101", SMALL, torch.float64).items(), key=lambda item: item[1])
    assert worst[1] < TOLERANCE[torch.float64], worst


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "sizes"), [(torch.float64, [LARGE]), (torch.float32, [*SMALL, LARGE])], ids=str)
def test_resnet101_maps_equal_the_reference_everywhere(dtype, sizes):
    worst = max(deviations("pspnet_r101", sizes, dtype).items(), key=lambda item: item[1])
    assert worst[1] < TOLERANCE[dtype], worst
