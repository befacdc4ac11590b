"""What every segmentor must do, whatever its backbone and head."""

from types import SimpleNamespace

import huggingface_hub.constants
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy

from bcd.config.architectures import BACKBONES, DETECTOR_HEADS, SEGMENTATION_HEADS
from bcd.config.schema.models import SegmentationModel
from bcd.errors import UserError
from bcd.models import build, complexity, count_parameters, flops, load_openmmlab
from bcd.models.backbones import PYRAMIDS, TIMM, build_backbone
from bcd.models.detection.torchvision_detector import DENSE
from bcd.models.detection.torchvision_heads import ANCHOR_SCALE
from bcd.models.heads import HEADS
from bcd.models.openmmlab import openmmlab_naming
from bcd.models.weights import read_state

CLASSES = 5
SIZE = (97, 131)
STUDENT = dict(widths=[8, 16, 24, 32], depths=[1, 1, 1, 1], channels=16)
TEACHER = dict(widths=[16, 32, 64, 96], depths=[2, 2, 2, 2], channels=32)
MODELS = {
    "light-student": STUDENT,
    "light-teacher": TEACHER,
    "light-stride16": STUDENT | dict(output_stride=16),
    "light-aux": STUDENT | dict(aux_channels=8),
    "pspnet-r18": dict(backbone="resnet18", head="psp", aux_channels=8),
    "pspnet-r18d": dict(backbone="resnet18d", head="psp"),
    "pspnet-r50-stride16": dict(backbone="resnet50", head="psp", output_stride=16),
    "deeplabv3plus-mv2": dict(backbone="mobilenetv2_100", head="deeplabv3plus", aux_channels=8),
    "light-mv2": dict(backbone="mobilenetv2_100", head="light", output_stride=32),
    "isanet-r18": dict(backbone="resnet18", head="isa", aux_channels=8),
    "fcn-hrnet-w18s": dict(backbone="hrnet_w18_small_v2", head="fcn", output_stride=32),
    "upernet-swin-t": dict(backbone="swin_tiny_patch4_window7_224", head="uper", output_stride=32, aux_channels=8),
    "segformer-b0": dict(backbone="mit_b0", head="segformer", output_stride=32),
}
STRIDES = {
    "light-student": (2, 4, 8, 8),
    "light-teacher": (2, 4, 8, 8),
    "light-stride16": (2, 4, 8, 16),
    "light-aux": (2, 4, 8, 8),
    "pspnet-r50-stride16": (4, 8, 16, 16),
    "light-mv2": (4, 8, 16, 32),
    "fcn-hrnet-w18s": (4, 8, 16, 32),
    "upernet-swin-t": (4, 8, 16, 32),
    "segformer-b0": (4, 8, 16, 32),
}


def fields(**changes):
    return SegmentationModel(**dict(backbone="light", head="light", channels=16) | changes)


def built(name, seed=0, **changes):
    torch.manual_seed(seed)
    return build(fields(**MODELS[name] | changes), CLASSES)


def image(batch=2, size=SIZE):
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(1))


def watch(model):
    """Tensors of all taps, filled by the next forward."""
    seen = {}

    def keep(tap, index):
        return lambda module, args, out: seen.update({tap: out[int(index)] if index else out})

    for tap, path in model.taps.items():
        module, _, index = path.partition(":")
        model.get_submodule(module).register_forward_hook(keep(tap, index))
    return seen


@pytest.mark.parametrize("name", MODELS)
def test_outputs_taps_and_gradients(name):
    model = built(name)
    seen = watch(model)
    logits_shape = (2, CLASSES, *SIZE)
    outputs = model(image())
    assert set(outputs) == ({"logits", "aux"} if model.aux is not None else {"logits"})
    assert all(out.shape == logits_shape and out.is_contiguous() for out in outputs.values())

    strides = STRIDES.get(name, (4, 8, 8, 8))
    assert set(seen) == {"stage1", "stage2", "stage3", "stage4", "neck", "logits"}
    assert all(tensor.is_contiguous() for tensor in seen.values())
    channels = model.backbone.channels
    for i, stride in enumerate(strides):
        assert seen[f"stage{i + 1}"].shape == (2, channels[i], *(-(-edge // stride) for edge in SIZE))
    assert seen["neck"].shape[2:] == seen["logits"].shape[2:]
    assert seen["logits"].shape[:2] == (2, CLASSES)

    label = torch.randint(0, CLASSES, (2, *SIZE), generator=torch.Generator().manual_seed(2))
    sum(cross_entropy(out, label) for out in outputs.values()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())

    model.eval()
    with torch.no_grad():
        outputs = model(image(batch=1))
    assert set(outputs) == {"logits"}
    assert outputs["logits"].shape == (1, CLASSES, *SIZE)


@pytest.mark.parametrize("name", MODELS)
def test_neck_is_what_the_classifier_reads_and_taps_cost_nothing(name):
    model = built(name).eval()
    with torch.no_grad():
        plain, cost = model(image()), flops(model, SIZE)
        seen = watch(model)
        tapped = model(image())
        assert torch.equal(plain["logits"], tapped["logits"])
        assert torch.equal(model.head.classifier(seen["neck"]), seen["logits"])
    assert flops(model, SIZE) == cost


@pytest.mark.parametrize("name", ["light-aux", "pspnet-r18", "deeplabv3plus-mv2"])
def test_initial_weights_follow_the_seed(name):
    first, again, other = built(name, seed=3), built(name, seed=3), built(name, seed=4)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    for part in ("backbone", "head", "aux"):
        pairs = zip(getattr(first, part).parameters(), getattr(other, part).parameters(), strict=True)
        assert not all(torch.equal(a, b) for a, b in pairs)
    assert first.weights.note == "none"
    small = first.aux.classifier if name == "light-aux" else first.head.classifier
    assert small.bias.abs().max() == 0
    assert 0.005 < small.weight.std() < 0.02


def test_the_light_head_keeps_torchs_initial_classifier():
    classifier = built("light-student").head.classifier
    bound = classifier.in_channels**-0.5
    assert 0.3 * bound < classifier.weight.std() < bound and classifier.weight.abs().max() <= bound


@pytest.mark.parametrize("name", MODELS)
def test_state_dict_survives_safetensors(name, tmp_path):
    model, fresh = built(name), built(name, seed=9)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    fresh.load_state_dict(load_file(tmp_path / "model.safetensors"))
    with torch.no_grad():
        assert torch.equal(model.eval()(image())["logits"], fresh.eval()(image())["logits"])


def test_light_models_are_as_small_as_documented():
    torch.manual_seed(0)
    assert count_parameters(build(fields(**STUDENT), 8)) == 35_104
    assert count_parameters(build(fields(**TEACHER), 8)) == 502_040


def test_cost_counts_a_known_convolution_and_leaves_the_model_alone():
    conv = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.BatchNorm2d(4), torch.nn.ReLU())
    conv[1].eval()
    assert flops(conv, (5, 7)) == 5 * 7 * 4 * (3 * 9) + 2 * 5 * 7 * 4
    assert [module.training for module in conv] == [True, False, True]
    assert conv[1].num_batches_tracked == 0


@pytest.mark.parametrize("name", MODELS)
def test_the_cost_of_an_image_that_is_run_is_that_of_its_shapes(name, monkeypatch):
    ran = flops(built(name), SIZE)
    monkeypatch.setattr(complexity, "_RUN_PIXELS", 0)
    assert flops(built(name), SIZE) == ran > 0


def test_auxiliary_head_adds_nothing_to_the_inference_cost():
    assert flops(built("light-aux"), SIZE) == flops(built("light-student"), SIZE)


def test_one_class_trains_trivially():
    model = build(fields(**STUDENT), 1)
    logits = model(image())["logits"]
    loss = cross_entropy(logits, torch.zeros(2, *SIZE, dtype=torch.int64))
    loss.backward()
    assert logits.shape == (2, 1, *SIZE) and loss == 0
    assert all(p.grad is not None and p.grad.abs().sum() == 0 for p in model.parameters())


def test_dropout_acts_in_training_only():
    model = built("light-student", dropout=0.5)
    assert not torch.equal(model(image())["logits"], model(image())["logits"])
    model.eval()
    assert torch.equal(model(image())["logits"], model(image())["logits"])


def test_dilations_are_those_of_the_published_models():
    resnet = build_backbone("resnet18")
    first = [resnet[f"layer{i}"][b].conv1.dilation[0] for i in (1, 2, 3, 4) for b in (0, 1)]
    second = {resnet[f"layer{i}"][b].conv2.dilation[0] for i in (1, 2, 3, 4) for b in (0, 1)}
    assert (first, second) == ([1, 1, 1, 1, 1, 2, 2, 4], {1})
    mobilenet = build_backbone("mobilenetv2_100")
    dilations = [[block.conv_dw.dilation[0] for block in stage] for stage in mobilenet.blocks]
    assert [stage[0] for stage in dilations] == [1, 1, 1, 2, 2, 4, 4]
    assert {d for stage in dilations for d in stage[1:]} == {1}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(pretrained="timm", backbone="resnet18", widths=None, depths=None), r"'resnet18d'"),
        (dict(pretrained="absent.pth"), r"absent\.pth does not exist"),
    ],
)
def test_mistakes_are_named_with_their_remedy(changes, message):
    with pytest.raises(UserError, match=message):
        build(fields(**STUDENT | changes), CLASSES)


def openmmlab_state(model):
    rename = openmmlab_naming(model)
    return {rename(key): value for key, value in model.state_dict().items()}


def without(prefix, state):
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


@pytest.mark.parametrize("name", ["light-student", "pspnet-r18", "deeplabv3plus-mv2", "fcn-hrnet-w18s"])
@pytest.mark.parametrize("naming", ["ours", "backbone", "openmmlab", "openmmlab-backbone"])
def test_pretrained_files_load_in_every_naming(name, naming, tmp_path):
    source = built(name, seed=5)
    state = openmmlab_state(source) if naming.startswith("openmmlab") else source.state_dict()
    if naming.endswith("backbone"):
        state = without("backbone.", state) | {"fc.weight": torch.zeros(2, 2)}
    path = tmp_path / "weights.pth"
    torch.save({"meta": {"epoch": 3}, "state_dict": state}, path)
    model = built(name, seed=6, pretrained=str(path))
    pairs = zip(model.backbone.parameters(), source.backbone.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    same_head = torch.equal(model.head.classifier.weight, source.head.classifier.weight)
    assert same_head == (not naming.endswith("backbone"))
    assert model.weights.note.startswith("file:weights.pth sha256:")
    assert ("unexpected (fc.weight)" in model.weights.note) == naming.endswith("backbone")


def test_an_imagenet_swin_lacks_the_norms_of_its_maps_only(tmp_path):
    state = openmmlab_state(built("upernet-swin-t", seed=5))
    index = {"stages.0.blocks.0.attn.w_msa.relative_position_index": torch.zeros(49, 49, dtype=torch.int64)}
    backbone = without("backbone.", state) | index
    classifier = {key: value for key, value in backbone.items() if not key.startswith("norm")}
    path = tmp_path / "swin.pth"
    torch.save({"state_dict": classifier}, path)
    model = built("upernet-swin-t", seed=6, pretrained=str(path))
    key = "stages.2.blocks.5.attn.w_msa.qkv.weight"
    assert torch.equal(model.backbone.layers[2].blocks[5].attn.qkv.weight, backbone[key])
    assert "unexpected" not in model.weights.note
    torch.save({k: v for k, v in classifier.items() if k != key}, path)
    with pytest.raises(UserError, match=r"lacks 1 tensors of backbone 'swin_tiny\w+', first backbone\.layers\.2"):
        built("upernet-swin-t", pretrained=str(path))


def test_other_classes_keep_their_random_classifier_and_are_reported(tmp_path):
    source = built("light-student")
    save_file(source.state_dict(), tmp_path / "m.safetensors")
    torch.manual_seed(1)
    model = build(fields(**STUDENT, pretrained=str(tmp_path / "m.safetensors")), CLASSES + 1)
    assert torch.equal(model.head.neck.conv.weight, source.head.neck.conv.weight)
    assert "2 mismatched (head.classifier.weight, head.classifier.bias)" in model.weights.note


def test_a_file_for_another_backbone_is_refused(tmp_path):
    plain_stem = timm.create_model("resnet18").state_dict()
    save_file(plain_stem, tmp_path / "r18.safetensors")
    with pytest.raises(UserError, match=r"r18\.safetensors lacks \d+ tensors of backbone 'resnet18'"):
        built("pspnet-r18", pretrained=str(tmp_path / "r18.safetensors"))


def test_scores_of_numpy_beside_the_weights_do_not_matter(tmp_path):
    source = built("light-student", seed=5)
    scores = {"best_score": np.float64(0.7), "steps": np.int64(3), "curve": np.arange(3.0)}
    torch.save({"meta": scores, "state_dict": source.state_dict()}, tmp_path / "m.pth")
    model = built("light-student", seed=6, pretrained=str(tmp_path / "m.pth"))
    assert torch.equal(model.head.neck.conv.weight, source.head.neck.conv.weight)


def test_unreadable_and_unsafe_files_are_refused(tmp_path):
    (tmp_path / "cut.safetensors").write_bytes(b"\x10")
    (tmp_path / "cut.pth").write_bytes(b"\x80")
    torch.save({"state_dict": SimpleNamespace()}, tmp_path / "code.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"state_dict": [1, 2]}, tmp_path / "nested.pth")
    torch.save({f"w{n}": torch.zeros(50, 50) for n in range(20)}, tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    (tmp_path / "whole").unlink()
    for cut in (1, 500, 2000, len(whole) // 2, len(whole) - 30):
        (tmp_path / f"cut{cut}.pth").write_bytes(whole[:-cut])
    (tmp_path / "empty.pth").touch()
    for file in tmp_path.iterdir():
        with pytest.raises(UserError, match=f"{file.name} is not readable as plain tensors"):
            built("light-student", pretrained=str(file))


def test_files_without_numbers_are_refused(tmp_path):
    state = built("light-student").state_dict()
    name = next(key for key in state if key.startswith("backbone."))
    for change, said in (
        (lambda tensor: tensor * float("nan"), "leaves 1 tensors with a NaN or an infinity"),
        (lambda tensor: tensor.flatten(1).to_sparse(), "has the tensor"),
        (lambda tensor: tensor.to("meta"), "has the tensor"),
    ):
        torch.save(state | {name: change(state[name])}, tmp_path / "m.pth")
        with pytest.raises(UserError, match=f"m.pth {said}.*{name}"):
            built("light-student", pretrained=str(tmp_path / "m.pth"))


def test_load_openmmlab_reports_by_key():
    model = built("pspnet-r18")
    state = openmmlab_state(built("pspnet-r18", seed=8)) | {"decode_head.extra": torch.zeros(1)}
    del state["backbone.layer1.0.conv1.weight"]
    state["decode_head.conv_seg.bias"] = torch.zeros(CLASSES + 1)
    report = load_openmmlab(model, state)
    assert report.missing == ("backbone.layer1.0.conv1.weight",)
    assert report.mismatched == ("head.classifier.bias",)
    assert report.unexpected == ("decode_head.extra",)
    assert report.loaded == len(model.state_dict()) - 2


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty Hugging Face cache, and no network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"a": torch.eye(3).to_sparse()}, "has the tensor 'a' without plain values"),
        ({"a": torch.zeros(3, device="meta")}, "has the tensor 'a' without plain values"),
        ({1: torch.zeros(3)}, "has a tensor called 1, which is no text"),
        (None, "is a folder"),
    ],
)
def test_tensors_that_no_model_has_are_refused_by_name(tmp_path, content, said):
    path = tmp_path / "odd.pth"
    path.mkdir() if content is None else torch.save(content, path)
    with pytest.raises(UserError, match=f"{path} {said}"):
        read_state(path)


def test_timm_weights_offline_name_the_remedy(hub):
    with pytest.raises(UserError, match=r"'mobilenetv2_100' could not be fetched.*HF_HOME.*local file"):
        built("deeplabv3plus-mv2", pretrained="timm")


@pytest.mark.parametrize("name", ["deeplabv3plus-mv2", "fcn-hrnet-w18s", "upernet-swin-t"])
def test_timm_weights_come_from_the_hub_cache(hub, name):
    backbone = MODELS[name]["backbone"]
    config = timm.get_pretrained_cfg(backbone)
    repository = hub / f"models--timm--{backbone}.{config.tag}"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    torch.manual_seed(11)
    source = timm.create_model(backbone).state_dict()
    save_file(source, snapshot / "model.safetensors")
    model = built(name, pretrained="timm")
    taken = {key: value for key, value in model.backbone.state_dict().items() if not key.startswith("norms.")}
    assert all(torch.equal(source[key], value) for key, value in taken.items())
    assert model.weights.note.startswith(f"timm:{backbone}.{config.tag} tensors-sha256:")


def test_the_cost_is_the_same_in_deterministic_mode():
    expected = flops(built("light-student"), SIZE)
    torch.use_deterministic_algorithms(True)
    try:
        assert flops(built("light-student"), SIZE) == expected
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_the_names_that_params_may_use_are_those_that_are_built():
    """`bcd.config.architectures` repeats them, so that params are checked without torch."""
    assert set(BACKBONES) == {"light", *TIMM, *PYRAMIDS}
    assert set(SEGMENTATION_HEADS) == set(HEADS)
    assert set(DETECTOR_HEADS) == set(ANCHOR_SCALE) == {*(head for head, _ in DENSE), "faster_rcnn", "mask_rcnn"}


LARGE = ("resnet101", "resnet101b", "resnet101d", "hrnet_w32", "hrnet_w40", "hrnet_w48", "mit_b3", "mit_b4", "mit_b5")
STRIDED = [
    pytest.param(name, stride, marks=[pytest.mark.slow] * (name in LARGE or name.startswith("swin")))
    for name, strides in BACKBONES.items()
    for stride in strides
]


@pytest.mark.parametrize(("name", "stride"), STRIDED)
@torch.no_grad()
def test_every_backbone_has_the_output_strides_that_params_may_ask_for(name, stride):
    sizes = dict(widths=[8, 8, 8, 8], depths=[1, 1, 1, 1]) if name == "light" else {}
    SegmentationModel(backbone=name, head="light", channels=16, output_stride=stride, **sizes)
    net = build_backbone(name, output_stride=stride, **sizes).eval()
    maps = net(torch.zeros(1, 3, 64, 64))
    assert [m.shape[1] for m in maps] == net.channels
    assert maps[3].shape[2:] == (64 // stride, 64 // stride)


def test_a_head_resizes_only_what_has_another_size():
    """Multiply-accumulates of the papers' UPerNet with Swin-T in the convention of fvcore, 150 classes."""
    model = fields(**MODELS["upernet-swin-t"] | {"channels": 512, "aux_channels": 256})
    assert flops(build(model, 150), (512, 512)) == 237_341_880_192
