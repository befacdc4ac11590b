"""Train state on disk: everything a learner needs to continue as if nothing had happened."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict, cast

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from bcd.errors import UserError
from bcd.files import atomic_write
from bcd.runs.record import dump


class TrainState(TypedDict):
    """Everything that a learner is in the middle of training, as state.pt keeps it.

    spec       hash of the run's spec
    step       steps that are done
    objective  parameters and buffers of student, projectors and losses with state
    rng        random state of each process; `cuda_rng` that of the GPU
    sums       loss -> sum since the last line of the history
    seconds    spent in steps; `resumes`, how often it was continued
    """

    spec: str
    step: int
    objective: Mapping[str, Any]
    optimizer: dict[str, Any]
    rng: list[torch.Tensor]
    cuda_rng: torch.Tensor | None
    sums: dict[str, float]
    seconds: float
    resumes: int


def save_state(folder: Path, state: TrainState) -> None:
    """Write `state.pt` and the step beside it (for `bcd plan`), each atomically."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    atomic_write(folder / "state.pt", buffer.getvalue())
    atomic_write(folder / "progress.json", dump({"step": state["step"]}))


def load_state(folder: Path, spec_hash: str) -> TrainState | None:
    """The saved train state, or None. Only tensors and plain values are unpickled.

    Raises UserError if the file is damaged or belongs to another run.
    """
    path = folder / "state.pt"
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise UserError(
            f"{path}: not a readable train state ({type(error).__name__}); delete it to start this run anew"
        ) from None
    if not isinstance(state, dict) or state.get("spec") != spec_hash:
        raise UserError(
            f"{path}: the train state of another run ({state.get('spec')}); delete it to start this run anew"
        )
    return cast(TrainState, state)


def drop_state(folder: Path) -> None:
    for name in ("state.pt", "progress.json", "failure.json"):
        (folder / name).unlink(missing_ok=True)


def save_weights(path: Path, model: nn.Module) -> None:
    """The model's parameters and buffers as safetensors."""
    atomic_write(path, save_tensors({k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}))


def load_weights(path: Path, model: nn.Module) -> None:
    """Fill `model` from safetensors; every key must match."""
    model.load_state_dict(load_tensors(path.read_bytes()))
