"""The few places where several processes (torchrun) meet; every function is trivial in a single process."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from torch import Tensor


def start() -> torch.device:
    """Join the process group that torchrun announced, if any; the device this process computes on."""
    if "RANK" in os.environ and not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return own_device()


def own_device() -> torch.device:
    """The device this process computes on; does not wait for the others."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    return torch.device("cuda", torch.cuda.current_device())


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def finish() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def global_mean(total: Tensor, count: Tensor) -> Tensor:
    """`total / count` with `count` summed over processes; 0 where nothing was counted anywhere.

    Scaled so that the gradients, which DDP averages over processes, are those of the mean over all of them.
    """
    count = count.to(total.dtype)
    if world() > 1:
        dist.all_reduce(count)
        total = total * world()
    return total / count.clamp(min=1)


def anywhere(flag: bool) -> bool:
    """Whether `flag` is set in any process, so that all of them stop at the same step."""
    if world() == 1:
        return flag
    votes = torch.tensor(int(flag), device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(votes)
    return bool(votes)


def gather(state: Tensor) -> list[Tensor]:
    """A CPU tensor of equal size from every process, in rank order."""
    if world() == 1:
        return [state]
    device = torch.device("cuda") if dist.get_backend() == "nccl" else torch.device("cpu")
    received = [torch.empty_like(state, device=device) for _ in range(world())]
    dist.all_gather(received, state.to(device))
    return [part.cpu() for part in received]
