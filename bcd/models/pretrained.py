"""Initial weights named by a model's `pretrained` field: none, timm's, the package index's, or a local file."""

import hashlib
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

from bcd.config.architectures import BACKBONES
from bcd.config.index_weights import INDEX, verified_weights_file
from bcd.errors import UserError
from bcd.files import sha256_file
from bcd.models.backbones import OUT_INDICES, TIMM, V1C_STEM, timm_name
from bcd.models.class_names import SEGMENTOR, ClassRows, by_name
from bcd.models.efficientnet import timm_names
from bcd.models.hub import hub_errors, weights_path
from bcd.models.layers import timm_backbone
from bcd.models.openmmlab import openmmlab_naming, our_layout
from bcd.models.timm_pyramid import TimmPyramid, timm_key, timm_state
from bcd.models.weights import InitialWeights, LoadReport, WeightsFile, load_state, not_finite, read_state, read_weights

# Layers of a backbone that no classifier has: the norms of Swin's four maps, and what is above a plain transformer.
FRESH = ("norms.", "pyramid.")


def load_pretrained(
    model: nn.Module,
    backbone: str,
    pretrained: str,
    classes: Sequence[str] = (),
    adapt: Callable[[WeightsFile], WeightsFile] = lambda file: file,
    rows: Sequence[ClassRows] = SEGMENTOR,
) -> InitialWeights:
    """Load what `pretrained` names into `model`, a segmentor or detector with a `.backbone` made by `build_backbone`.

    - `none` loads nothing.
    - `timm` fetches the ImageNet weights of `backbone` through timm's cache.
    - `index` takes those of an installed package of the Python package index.
    - `hub:...` is a file of the Hugging Face Hub (`bcd.config.zoo.HubFile`), through its cache.
    - Anything else is the path of a `.safetensors` or `.pth` file with a whole model or a backbone, in our names,
      timm's, OpenMMLab's or efficientnet_pytorch's.

    Raises UserError where weights are unavailable or not finite, or the file leaves part of the backbone uninitialised.
    A head that does not fit, for its number of classes, say, keeps its random weights and is named in the result.

    classes: names of the model's. Those of a file that has others, or in another order, are brought to theirs.
    adapt: brings a file to the model's own names, where the model knows of files that nothing here does.
    rows: how the model's classifiers, and the file's, are made of classes.
    """
    if pretrained == "none":
        return InitialWeights()
    if pretrained == "timm":
        return InitialWeights(_from_timm(model, backbone))
    if pretrained == "index":
        source, state = index_weights(backbone)
        report = _fitted(model, backbone, state, source)
        left = len(report.unexpected)
        return InitialWeights(f"{source} ({report.loaded} tensors loaded, {left} of the classifier left)")
    path = weights_path(pretrained)
    file = adapt(read_weights(path))
    ours = by_name(file.state, rows, file.classes, classes)
    report = _fitted(model, backbone, ours.state, f"weights file {path}")
    note = f"file:{path.name} sha256:{sha256_file(path)} ({report})"
    return InitialWeights(note, report.unfilled, ours.lacking, file.engine)


def _fitted(model: nn.Module, backbone: str, state: Mapping[str, Tensor], source: str) -> LoadReport:
    """Load `state`; UserError, starting with `source`, where it lacks part of the backbone or is not finite."""
    report = fit(model, state)
    fresh = tuple(f"backbone.{layer}" for layer in FRESH)
    lacking = [key for key in report.unfilled if key.startswith("backbone.") and not key.startswith(fresh)]
    if lacking:
        raise UserError(
            f"{source} lacks {len(lacking)} tensors of backbone '{backbone}', first {lacking[0]};"
            " name a file made for this backbone in model.pretrained"
        )
    if lost := not_finite(model):
        raise UserError(
            f"{source} leaves {len(lost)} tensors with a NaN or an infinity, first {lost[0]}; name another "
            "file in model.pretrained"
        )
    return report


def fit(model: nn.Module, state: Mapping[str, Tensor]) -> LoadReport:
    """Load a state dict in whichever of the known namings most of the model's keys are found."""
    if "_conv_stem.weight" in state:
        state = timm_names(state)
    openmmlab = openmmlab_naming(model)
    backbone = model.get_submodule("backbone")
    if isinstance(backbone, TimmPyramid):
        state = timm_state(backbone.name, state)
    namings = (
        (lambda key: key, _as_is),
        (lambda key: key.removeprefix("backbone."), _as_is),
        (timm_key, _as_is),
        (openmmlab, our_layout),
        (lambda key: openmmlab(key).removeprefix("backbone."), our_layout),
    )
    keys = model.state_dict().keys()
    rename, layout = max(namings, key=lambda naming: sum(naming[0](key) in state for key in keys))
    return load_state(model, state, rename, layout)


def _as_is(key: str, tensor: Tensor) -> Tensor:
    return tensor


def _from_timm(model: nn.Module, backbone: str) -> str:
    net = model.get_submodule("backbone")
    own = net.state_dict()
    if TIMM.get(backbone) is V1C_STEM and "conv1.0.weight" in own:
        raise UserError(
            f"model.pretrained is 'timm' but timm has no weights for the deep stem of '{backbone}'; name a "
            f"file of {backbone}_v1c weights, or choose backbone '{backbone}b' or '{backbone}d'"
        )
    name, weights = timm_weights(backbone)
    state = {key: weights[key] for key in own if not key.startswith(FRESH)}
    net.load_state_dict({**own, **state})
    return f"timm:{name} tensors-sha256:{sha256_tensors(state)}"


def timm_weights(backbone: str) -> tuple[str, dict[str, Tensor]]:
    """Full name and tensors of timm's ImageNet weights, through its cache; UserError if they cannot be had."""
    import timm

    name = timm_name(backbone)
    if not timm.is_model_pretrained(name):
        raise UserError(f"model.pretrained is 'timm' but timm has no weights for '{backbone}'; use 'none'")
    config = timm.get_pretrained_cfg(name)
    assert config is not None  # as there are weights
    try:
        if backbone not in BACKBONES:
            source: nn.Module = TimmPyramid(backbone, pretrained=True)
        elif backbone in TIMM:
            source = timm_backbone(name, out_indices=OUT_INDICES, pretrained=True)
        else:
            source = timm.create_model(backbone, pretrained=True)
    except hub_errors() + (RuntimeError,) as error:
        raise UserError(
            f"model.pretrained is 'timm' but the weights of '{backbone}' could not be fetched; connect to "
            "the Hugging Face Hub once to fill its cache (HF_HOME), or name a local file"
        ) from error
    return f"{config.architecture}.{config.tag}", source.state_dict()


def index_weights(backbone: str) -> tuple[str, dict[str, Tensor]]:
    """Where they are from, and the tensors in timm's names; raises what `verified_weights_file` and `read_state` do."""
    weights = INDEX[backbone]
    state = read_state(verified_weights_file(backbone))
    source = f"index:{weights.distribution} {weights.version} sha256:{weights.sha256} {weights.licence}"
    return source, timm_names(state)


def sha256_tensors(state: Mapping[str, Tensor]) -> str:
    """Hash of names, shapes, dtypes and values, independent of the file they came from."""
    digest = hashlib.sha256()
    for key in sorted(state):
        tensor = state[key].detach().cpu().contiguous()
        digest.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
