"""The few places where several processes (torchrun) meet; every function is trivial in a single process."""

from __future__ import annotations

import os
from types import MethodType

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


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
    return total / torch.where(count > 0, count, 1)


def sum_over_all(part: Tensor) -> Tensor:
    """The sum of `part` over processes. Its gradient in each is the sum of those in all."""
    total: Tensor = _SumOverAll.apply(part)
    return total


class _SumOverAll(torch.autograd.Function):
    @staticmethod
    def forward(_context: object, part: Tensor) -> Tensor:
        part = part.clone()
        dist.all_reduce(part)
        return part

    @staticmethod
    def backward(_context: object, gradient: Tensor) -> Tensor:
        return _SumOverAll.forward(None, gradient.contiguous())


def synchronise_batch_norm(model: nn.Module, device: torch.device) -> nn.Module:
    """`model` with BatchNorm statistics over the batches of all processes, in place where that is possible.

    Names and values of parameters and buffers stay. `nn.SyncBatchNorm` refuses CPU tensors, hence another way there.
    """
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.forward = MethodType(_global_batch_norm, module)  # type: ignore[method-assign]
    return model


def _global_batch_norm(norm: _BatchNorm, x: Tensor) -> Tensor:
    """`norm` of x, float (N, C, ...), one process's part of the batch.

    The variance takes a second pass, around the mean of all: E[x^2] - E[x]^2 would lose the digits that agree.
    """
    if not (norm.training or norm.running_mean is None):
        return type(norm).forward(norm, x)
    pixels = [dim for dim in range(x.dim()) if dim != 1]
    shape = [-1 if dim == 1 else 1 for dim in range(x.dim())]
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    count = sum_over_all(wide.new_tensor(x.numel() / x.shape[1]))
    mean = sum_over_all(wide.sum(pixels)) / count
    centred = wide - mean.view(shape)
    variance = sum_over_all(centred.square().sum(pixels)) / count
    if norm.running_mean is not None:
        assert norm.running_var is not None and norm.num_batches_tracked is not None  # kept together
        norm.num_batches_tracked += 1
        share = norm.momentum if norm.momentum is not None else 1 / norm.num_batches_tracked.item()
        with torch.no_grad():
            norm.running_mean.lerp_(mean, share)
            norm.running_var.lerp_(variance * count / (count - 1).clamp(min=1), share)
    result = centred * (variance + norm.eps).rsqrt().view(shape)
    if norm.affine:
        result = result * norm.weight.view(shape) + norm.bias.view(shape)
    return result.to(x.dtype)


def mean_over_all(values: list[float]) -> list[float]:
    """The mean over processes of each of as many numbers as every process gives."""
    if world() == 1:
        return values
    received = gather(torch.tensor(values, dtype=torch.float64))
    return torch.stack(received).mean(0).tolist()


def anywhere(flag: bool) -> bool:
    """Whether `flag` is set in any process, so that all of them stop at the same step."""
    if world() == 1:
        return flag
    votes = torch.tensor(int(flag), device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(votes)
    return bool(votes)


def joined(part: Tensor) -> Tensor:
    """Vectors of all processes, of any lengths, one after the other in rank order; no gradient goes through."""
    if world() == 1:
        return part
    lengths = [int(length) for length in gather(torch.tensor([part.numel()]))]
    padded = part.new_zeros(max(lengths))
    padded[: part.numel()] = part.detach()
    parts = [received[:length] for received, length in zip(gather(padded), lengths, strict=True)]
    return torch.cat(parts).to(part.device)


def gather(state: Tensor) -> list[Tensor]:
    """A CPU tensor of equal size from every process, in rank order."""
    if world() == 1:
        return [state]
    device = torch.device("cuda") if dist.get_backend() == "nccl" else torch.device("cpu")
    received = [torch.empty_like(state, device=device) for _ in range(world())]
    dist.all_gather(received, state.to(device))
    return [part.cpu() for part in received]
