"""Initial weights named by a model's `pretrained` field: none, timm's, or a local file."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from bcd.errors import UserError
from bcd.files import sha256_file
from bcd.models.backbones import TIMM, V1C_STEM
from bcd.models.openmmlab import is_mobilenet, openmmlab_key
from bcd.models.segmentor import Segmentor
from bcd.models.weights import LoadReport, load_state, read_state


def load_pretrained(model: Segmentor, backbone: str, pretrained: str) -> str:
    """Load what `pretrained` names into `model`; return a line for the record: source, SHA-256, leftovers.

    `none` loads nothing; `timm` fetches the ImageNet weights of `backbone` through timm's cache; anything
    else is the path of a `.safetensors` or `.pth` file with a whole model or a backbone, in our names, timm's
    or OpenMMLab's. Raises UserError where weights are unavailable or the file leaves part of the backbone
    uninitialised; a head that does not fit (another number of classes, say) keeps its random weights and is
    named in the returned line.
    """
    if pretrained == "none":
        return "none"
    if pretrained == "timm":
        return _from_timm(model, backbone)
    path = Path(pretrained)
    report = fit(model, read_state(path))
    lacking = [key for key in (*report.missing, *report.mismatched) if key.startswith("backbone.")]
    if lacking:
        raise UserError(
            f"weights file {path} lacks {len(lacking)} tensors of backbone '{backbone}', first {lacking[0]};"
            " name a file made for this backbone in model.pretrained"
        )
    return f"file:{path.name} sha256:{sha256_file(path)} ({report})"


def fit(model: Segmentor, state: Mapping[str, Tensor]) -> LoadReport:
    """Load a state dict in whichever of the known namings most of the model's keys are found."""
    mobilenet = is_mobilenet(model)

    def openmmlab(key: str) -> str:
        return openmmlab_key(key, mobilenet=mobilenet)

    namings = (
        lambda key: key,
        lambda key: key.removeprefix("backbone."),
        openmmlab,
        lambda key: openmmlab(key).removeprefix("backbone."),
    )
    keys = model.state_dict().keys()
    best = max(namings, key=lambda naming: sum(naming(key) in state for key in keys))
    return load_state(model, state, best)


def _from_timm(model: Segmentor, backbone: str) -> str:
    if backbone not in TIMM:
        raise UserError(f"model.pretrained is 'timm' but timm has no weights for '{backbone}'; use 'none'")
    if TIMM[backbone] is V1C_STEM:
        raise UserError(
            f"model.pretrained is 'timm' but timm has no weights for the deep stem of '{backbone}'; name a "
            f"file of {backbone}_v1c weights, or choose backbone '{backbone}d'"
        )
    import timm

    config = timm.get_pretrained_cfg(backbone)
    try:
        source = timm.create_model(backbone, pretrained=True, features_only=True, out_indices=(1, 2, 3, 4))
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"model.pretrained is 'timm' but the weights of '{backbone}' could not be fetched; connect to "
            "the Hugging Face Hub once to fill its cache (HF_HOME), or name a local file"
        ) from error
    state = source.state_dict()
    model.backbone.load_state_dict(state)
    return f"timm:{config.architecture}.{config.tag} tensors-sha256:{sha256_tensors(state)}"


def sha256_tensors(state: Mapping[str, Tensor]) -> str:
    """Hash of names, shapes, dtypes and values, independent of the file they came from."""
    digest = hashlib.sha256()
    for key in sorted(state):
        tensor = state[key].detach().cpu().contiguous()
        digest.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
