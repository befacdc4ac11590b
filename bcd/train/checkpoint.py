"""Train state on disk: everything a learner needs to continue as if nothing had happened."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from bcd.errors import UserError
from bcd.files import atomic_write
from bcd.models.weights import not_finite
from bcd.runs.progress import STATE, Progress, damaged, read_state, why_anew, write_state
from bcd.runs.spec import RunSpec
from bcd.runs.status import made_by


class TrainState(TypedDict):
    """Everything that a learner is in the middle of training, as state.pt keeps it below its first lines.

    objective  parameters and buffers of student, projectors and losses with state
    rng        random state of each process; `cuda_rng` that of the GPU
    sums       loss -> sum since the last line of the history
    streaks    loss -> value and step, see `bcd.train.standstill`
    spent      seconds in steps, on the wall and of the processor; `resumes`, how often it was continued
    """

    objective: Mapping[str, Any]
    optimizer: dict[str, Any]
    rng: list[torch.Tensor]
    cuda_rng: torch.Tensor | None
    sums: dict[str, float]
    streaks: dict[str, tuple[float, int]]
    spent: list[float]
    resumes: int


def save_state(folder: Path, spec: RunSpec, step: int, state: TrainState) -> None:
    """Write the state after so many steps, with what names its run and its makers."""
    progress = Progress(spec=spec.hash, step=step, made_by=made_by(spec.training))
    write_state(folder, progress, partial(torch.save, state))


def load_state(folder: Path, spec: RunSpec) -> tuple[int, TrainState | None, str]:
    """The steps that are done, the state after them, and why it is not gone on from if there is one of older code.

    Only tensors and plain values are unpickled. Raises UserError if the file is damaged or belongs to another run.
    """
    found = read_state(folder)
    if found is None:
        return 0, None, ""
    progress, content = found
    if anew := why_anew(progress, made_by(spec.training)):
        return 0, None, anew
    if not 0 <= progress.step <= spec.training.recipe.steps:
        raise damaged(folder / STATE, f"step {progress.step} is none of 0 to {spec.training.recipe.steps}")
    try:
        state = torch.load(content, map_location="cpu", weights_only=True)
    except Exception as error:  # what is no state of ours can raise almost anything, and none of it is executed
        raise damaged(folder / STATE, type(error).__name__) from None
    if not isinstance(state, dict) or state.keys() != TrainState.__annotations__.keys():
        raise damaged(folder / STATE, "its parts are not those of a train state")
    return progress.step, TrainState(**state), ""  # type: ignore[typeddict-item]  # its keys are compared above


def save_weights(path: Path, model: nn.Module) -> None:
    """The model's parameters and buffers as safetensors."""
    atomic_write(path, save_tensors({k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}))


def load_weights(path: Path, model: nn.Module) -> None:
    """Fill `model` from safetensors; raises UserError unless every key and shape is the model's and all is finite."""
    try:
        model.load_state_dict(load_tensors(path.read_bytes()))
    except (RuntimeError, SafetensorError) as error:
        raise UserError(
            f"{path} does not fit the model that today's code builds of its spec ({first_line(error)}); "
            f"delete the folder {path.parent} and run `snakemake` to train it again"
        ) from error
    if lost := not_finite(model):  # of a run that was finished before that was a failure
        raise UserError(
            f"{path} holds {len(lost)} tensors that are not finite, first {lost[0]}: this training has diverged; "
            "choose a smaller lr, a longer warmup or a smaller clip in params/recipes.yaml"
        )


def first_line(error: Exception) -> str:
    """What torch says of names and shapes, which it lists in many lines."""
    return " ".join(str(error).split())[:200]
