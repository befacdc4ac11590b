"""Reading state dicts and fitting them to a model whose keys may be named differently."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core import multiarray
from safetensors.torch import load_file
from torch import Tensor, nn

from bcd.errors import UserError
from bcd.files import reading


@dataclass(frozen=True)
class InitialWeights:
    """What a model starts from.

    note      a line for the record: source, SHA-256, leftovers
    unfilled  names of the tensors that a weights file left at their random values
    lacking   a class of the model that the file does not know, as far as it names its own
    engine    the engine that the file's heads are of, where it is not the model's
    """

    note: str = "none"
    unfilled: tuple[str, ...] = ()
    lacking: str = ""
    engine: str = ""


# What a file of another number of classes leaves at random, in the names of every model of ours.
CLASSIFIERS = re.compile(
    r"(classifier|conv_seg|cls_score|cls_logits|box_predictor\.bbox_pred|mask_fcn_logits|mask_head\.predictor)\.\w+$"
)


def require_whole(weights: InitialWeights, file: str) -> None:
    """Raise UserError unless a model came whole from its file, but for an auxiliary head, which predicts nothing.

    For a model that is not trained.
    """
    if weights.lacking:
        raise UserError(
            f"the recipe has no steps and {file} knows no class '{weights.lacking}'; call the dataset's classes as the "
            "file does, or train the model"
        )
    unfilled = [name for name in weights.unfilled if not name.startswith("aux.")]
    if not unfilled:
        return
    why, remedy = "is of another head or width than the model", "correct the model's head or channels"
    if weights.engine:
        why, remedy = f"has heads of the engine {weights.engine}", f"set detection.engine: {weights.engine}"
    elif all(CLASSIFIERS.search(name) for name in unfilled):
        why, remedy = "has another number of classes than the dataset", "name a file of its classes"
    raise UserError(
        f"the recipe has no steps and {file} {why}, as it leaves {len(unfilled)} tensors at random, first "
        f"{unfilled[0]}; {remedy}, or train the model"
    )


@dataclass(frozen=True)
class LoadReport:
    """Outcome of a load: `missing` and `mismatched` (shapes) in our names, `unexpected` in the source's."""

    loaded: int
    missing: tuple[str, ...]
    mismatched: tuple[str, ...]
    unexpected: tuple[str, ...]

    @property
    def unfilled(self) -> tuple[str, ...]:
        return (*self.missing, *self.mismatched)

    def __str__(self) -> str:
        parts = [f"{self.loaded} tensors loaded"]
        for field in ("missing", "mismatched", "unexpected"):
            keys = getattr(self, field)
            if keys:
                shown = ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")
                parts.append(f"{len(keys)} {field} ({shown})")
        return "; ".join(parts)


@dataclass(frozen=True)
class WeightsFile:
    """The tensors of a file, and what it says of them beside, if anything.

    classes  names of the classes that it was trained on
    config   text of OpenMMLab's configuration by which it was trained
    engine   the engine that its heads are of, where it is not that of the model that it is read for
    """

    state: dict[str, Tensor]
    classes: tuple[str, ...] = ()
    config: str = ""
    engine: str = ""


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, as `read_weights` has them."""
    return read_weights(path).state


def read_weights(path: Path) -> WeightsFile:
    """Tensors of a `.safetensors`, `.pth` or `.pt` file, on the CPU; a nested `state_dict` is unwrapped.

    OpenMMLab's files say which classes they know, and by which configuration they were trained. Pickles are read with
    `weights_only=True`, so a file cannot run code. Raises UserError for a missing or damaged file, another ending,
    sparse tensors, or a pickle that holds more than tensors, numbers and arrays of numpy, and plain data.
    """
    if path.suffix not in (".safetensors", ".pth", ".pt"):
        raise UserError(f"weights file {path} must end in .safetensors, .pth or .pt; convert it first")
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"weights file {path} {kind}; correct model.pretrained or put the file there")
    with reading(path), open(path, "rb"):
        pass  # what the system refuses is no damage
    try:
        state, meta = (load_file(path), {}) if path.suffix == ".safetensors" else _unpickle(path)
    except Exception as error:  # a damaged pickle can raise almost anything, and torch seeks to absurd places
        raise UserError(
            f"weights file {path} is not readable as plain tensors; replace it or save it as safetensors"
        ) from error
    found = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    for key, value in found.items():
        if not isinstance(key, str):
            raise UserError(f"weights file {path} has a tensor called {key!r}, which is no text; save a state dict")
        if value.layout != torch.strided or value.is_quantized or value.is_meta:
            raise UserError(f"weights file {path} has the tensor '{key}' without plain values; save it dense")
    return WeightsFile(found, _classes(meta), _config(meta))


# OpenMMLab notes scores as numpy's numbers beside the weights; files of numpy 1 name its module differently.
_NUMPY: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    np.ndarray,
    np.dtype,
    *(type(np.dtype(code)) for code in "?bBhHiIlLqQefd"),
    *(
        (function, f"numpy.{module}.multiarray.{function.__name__}")
        for function in (multiarray.scalar, multiarray._reconstruct)
        for module in ("core", "_core")
    ),
]


def _unpickle(path: Path) -> tuple[Mapping, Mapping]:
    """The tensors of a pickle by their names, and OpenMMLab's `meta` beside them, empty where there is none."""
    with torch.serialization.safe_globals(_NUMPY):
        content = torch.load(path, map_location="cpu", weights_only=True)
    meta: object = {}
    if isinstance(content, Mapping):
        meta = content.get("meta")
        content = content.get("state_dict", content)
    if not isinstance(content, Mapping):
        raise TypeError("not a mapping of names to tensors")
    return content, meta if isinstance(meta, Mapping) else {}


def _classes(meta: Mapping) -> tuple[str, ...]:
    """What OpenMMLab's checkpoints say of their classes: `CLASSES`, and `classes` within `dataset_meta` since 2023."""
    newer = meta.get("dataset_meta")
    found = (newer.get("classes") or newer.get("CLASSES")) if isinstance(newer, Mapping) else meta.get("CLASSES")
    plain = isinstance(found, (list, tuple)) and all(isinstance(name, str) for name in found)
    return tuple(found) if plain and found else ()


def _config(meta: Mapping) -> str:
    """The text of the configuration in OpenMMLab's checkpoints: `cfg` since 2023, `config` before."""
    return next((meta[name] for name in ("cfg", "config") if isinstance(meta.get(name), str)), "")


def not_finite(model: nn.Module) -> list[str]:
    """Names of the model's parameters and buffers that hold a NaN or an infinity."""
    return [
        name
        for name, value in model.state_dict().items()  # a loss may keep more than tensors in it
        if isinstance(value, Tensor) and value.is_floating_point() and not value.isfinite().all()
    ]


# Buffers that follow from the architecture; some files store them, with or without our models doing so.
_DERIVED = ("num_batches_tracked", "relative_position_index", "attn_mask")


@torch.no_grad()
def load_state(
    model: nn.Module,
    state: Mapping[str, Tensor],
    rename: Callable[[str], str],
    layout: Callable[[str, Tensor], Tensor] = lambda key, tensor: tensor,
) -> LoadReport:
    """Copy `layout(key, state[rename(key)])` into every tensor `key` of `model` of the same shape; leave the rest.

    Values are converted to the model's dtype and device. Batch counters (`num_batches_tracked`) may be absent, and what
    follows from the architecture (Swin's position index and masks) may be there.
    """
    loaded, missing, mismatched = [], [], []
    for key, target in model.state_dict().items():
        name = rename(key)
        if name not in state:
            if not key.endswith(_DERIVED):
                missing.append(key)
            continue
        tensor = layout(key, state[name])
        if tensor.shape == target.shape:
            target.copy_(tensor)
            loaded.append(key)
        else:
            mismatched.append(key)
    known = {rename(key) for key in model.state_dict()}
    unexpected = tuple(name for name in state if name not in known and not name.endswith(_DERIVED))
    return LoadReport(len(loaded), tuple(missing), tuple(mismatched), unexpected)
