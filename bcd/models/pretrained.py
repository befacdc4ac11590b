"""Initial weights named by a model's `pretrained` field: none, timm's, or a local file."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from bcd.errors import UserError
from bcd.files import sha256_file
from bcd.models.backbones import OUT_INDICES, TIMM, V1C_STEM
from bcd.models.layers import timm_backbone
from bcd.models.openmmlab import openmmlab_naming, our_layout
from bcd.models.weights import InitialWeights, LoadReport, load_state, not_finite, read_state

# Layers of a backbone that no classifier has: the norms of Swin's four maps.
FRESH = ("norms.",)


def load_pretrained(model: nn.Module, backbone: str, pretrained: str) -> InitialWeights:
    """Load what `pretrained` names into `model`, a segmentor or detector with a `.backbone` made by `build_backbone`.

    - `none` loads nothing.
    - `timm` fetches the ImageNet weights of `backbone` through timm's cache.
    - Anything else is the path of a `.safetensors` or `.pth` file with a whole model or a backbone, in our names,
      timm's or OpenMMLab's.

    Raises UserError where weights are unavailable or not finite, or the file leaves part of the backbone uninitialised.
    A head that does not fit, for its number of classes, say, keeps its random weights and is named in the result.
    """
    if pretrained == "none":
        return InitialWeights()
    if pretrained == "timm":
        return InitialWeights(_from_timm(model, backbone))
    path = Path(pretrained)
    report = fit(model, read_state(path))
    fresh = tuple(f"backbone.{layer}" for layer in FRESH)
    lacking = [key for key in report.unfilled if key.startswith("backbone.") and not key.startswith(fresh)]
    if lacking:
        raise UserError(
            f"weights file {path} lacks {len(lacking)} tensors of backbone '{backbone}', first {lacking[0]};"
            " name a file made for this backbone in model.pretrained"
        )
    if lost := not_finite(model):
        raise UserError(
            f"weights file {path} leaves {len(lost)} tensors with a NaN or an infinity, first {lost[0]}; name another "
            "file in model.pretrained"
        )
    return InitialWeights(f"file:{path.name} sha256:{sha256_file(path)} ({report})", report.unfilled)


def fit(model: nn.Module, state: Mapping[str, Tensor]) -> LoadReport:
    """Load a state dict in whichever of the known namings most of the model's keys are found."""
    openmmlab = openmmlab_naming(model)
    namings = (
        (lambda key: key, _as_is),
        (lambda key: key.removeprefix("backbone."), _as_is),
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
            f"file of {backbone}_v1c weights, or choose backbone '{backbone}d'"
        )
    name, weights = timm_weights(backbone)
    state = {key: weights[key] for key in own if not key.startswith(FRESH)}
    net.load_state_dict({**own, **state})
    return f"timm:{name} tensors-sha256:{sha256_tensors(state)}"


def timm_weights(backbone: str) -> tuple[str, dict[str, Tensor]]:
    """Full name and tensors of timm's ImageNet weights, through its cache; UserError if they cannot be had."""
    import timm

    if not timm.is_model_pretrained(backbone):
        raise UserError(f"model.pretrained is 'timm' but timm has no weights for '{backbone}'; use 'none'")
    config = timm.get_pretrained_cfg(backbone)
    assert config is not None  # as there are weights
    try:
        if backbone in TIMM:
            source: nn.Module = timm_backbone(backbone, out_indices=OUT_INDICES, pretrained=True)
        else:
            source = timm.create_model(backbone, pretrained=True)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"model.pretrained is 'timm' but the weights of '{backbone}' could not be fetched; connect to "
            "the Hugging Face Hub once to fill its cache (HF_HOME), or name a local file"
        ) from error
    return f"{config.architecture}.{config.tag}", source.state_dict()


def sha256_tensors(state: Mapping[str, Tensor]) -> str:
    """Hash of names, shapes, dtypes and values, independent of the file they came from."""
    digest = hashlib.sha256()
    for key in sorted(state):
        tensor = state[key].detach().cpu().contiguous()
        digest.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
