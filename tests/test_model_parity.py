"""Our models against mmsegmentation 1.2.2, number by number, under weights derived from its keys."""

import json
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bcd.models import build, count_parameters, flops, load_openmmlab
from bcd.models.openmmlab import is_mobilenet, openmmlab_key

REFERENCE = Path(__file__).parents[1].parent / "shared" / "model_parity"
pytestmark = pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"reference outputs absent: {REFERENCE}")

SMALL, LARGE = ["96x128", "97x131"], "301x330"
# name: backbone, head, head channels, auxiliary channels, classes
MODELS = {
    "pspnet_r18": ("resnet18", "psp", 128, 64, 19),
    "pspnet_r18_ade150": ("resnet18", "psp", 128, 64, 150),
    "pspnet_r101": ("resnet101", "psp", 512, 256, 19),
    "deeplabv3plus_mv2": ("mobilenetv2_100", "deeplabv3plus", 128, 64, 19),
    "deeplabv3plus_mv2_ade150": ("mobilenetv2_100", "deeplabv3plus", 512, 256, 150),
}
TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-4}


def built(name):
    backbone, head, channels, aux, classes = MODELS[name]
    fields = dict(output_stride=8, widths=None, depths=None, pretrained="none", dropout=0.1)
    model = SimpleNamespace(backbone=backbone, head=head, channels=channels, aux_channels=aux, **fields)
    return build(model, classes).eval()


def reference(name):
    return json.loads((REFERENCE / f"{name}.json").read_text())


def key_derived(table, gain):
    """The reference's weight rule: every tensor from its mmsegmentation key and shape (see its README)."""
    state = {}
    for entry in table:
        key, shape = entry["key"], entry["shape"]
        last = key.rsplit(".", 1)[-1]
        if last == "num_batches_tracked":
            state[key] = torch.zeros((), dtype=torch.int64)
            continue
        n = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode()))).standard_normal(shape)
        if last == "running_var":
            n = 1 + 0.1 * np.abs(n)
        elif last == "running_mean" or last.endswith("bias"):
            n = 0.1 * n
        elif len(shape) == 1:
            n = 1 + 0.1 * n
        else:
            n = n * np.sqrt(gain / np.prod(shape[1:]))
        np.testing.assert_allclose(n.ravel()[0], entry["first"], rtol=1e-12)
        state[key] = torch.from_numpy(np.asarray(n))
    return state


def sample(array, count):
    flat = array.reshape(-1)
    if flat.size <= count:
        return flat
    j = np.arange(count)
    return flat[((2 * j + 1) * flat.size) // (2 * count)]


@torch.no_grad()
def outputs(model, size, dtype):
    height, width = map(int, size.split("x"))
    image = np.random.Generator(np.random.PCG64(0)).standard_normal((1, 3, height, width))
    maps = {}
    hooks = [
        model.head.neck.register_forward_hook(lambda m, i, o: maps.update(decode_feature=o)),
        model.aux.neck.register_forward_hook(lambda m, i, o: maps.update(aux_feature=o)),
        model.head.register_forward_hook(lambda m, i, o: maps.update(logits=o)),
    ]
    stages = model.backbone(torch.from_numpy(image).to(dtype))
    maps |= {f"stage{i}": stage for i, stage in enumerate(stages)}
    maps["aux_logits"] = model.aux(stages)
    maps["logits_resized"] = model(torch.from_numpy(image).to(dtype))["logits"]
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
    mobilenet = is_mobilenet(model)
    ours = {openmmlab_key(k, mobilenet=mobilenet): list(v.shape) for k, v in model.state_dict().items()}
    assert ours == {entry["key"]: entry["shape"] for entry in facts["state_dict"]}
    heads = {"decode_head": model.head, "auxiliary_head": model.aux}
    parts = {"backbone": model.backbone, **heads, "total": model}
    assert {part: count_parameters(module) for part, module in parts.items()} == facts["params"]


@pytest.mark.parametrize("name", MODELS)
def test_inference_cost_is_the_reference_count(name):
    model, facts = built(name), reference(name)
    for size, macs in facts["complexity_by_num_classes"][str(MODELS[name][-1])]["macs"].items():
        assert flops(model, tuple(map(int, size.split("x")))) == macs["fvcore_total"]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", [name for name in MODELS if name != "pspnet_r101"])
def test_all_maps_equal_the_reference(name, dtype):
    worst = max(deviations(name, [*SMALL, LARGE], dtype).items(), key=lambda item: item[1])
    assert worst[1] < TOLERANCE[dtype], worst


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_resnet101_maps_equal_the_reference(dtype):
    worst = max(deviations("pspnet_r101", SMALL, dtype).items(), key=lambda item: item[1])
    assert worst[1] < TOLERANCE[dtype], worst


@pytest.mark.slow
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_resnet101_maps_equal_the_reference_at_the_large_size(dtype):
    worst = max(deviations("pspnet_r101", [LARGE], dtype).items(), key=lambda item: item[1])
    assert worst[1] < TOLERANCE[dtype], worst
