"""Size and inference cost of a model."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

# Up to this many pixels an image is run. Above, only its shapes are propagated, as the compiler that meta tensors
# import costs more than a small image and less than a large one.
_RUN_PIXELS = 256 * 256

_aten = torch.ops.aten

# Cost of one call from its positional arguments and its output.
_COSTS = {
    _aten.convolution.default: lambda args, out: out.numel() * args[1][0].numel(),
    _aten.mm.default: lambda args, out: out.numel() * args[0].shape[-1],
    _aten.bmm.default: lambda args, out: out.numel() * args[0].shape[-1],
    _aten.addmm.default: lambda args, out: out.numel() * args[1].shape[-1],
    _aten.native_batch_norm.default: lambda args, out: 2 * args[0].numel(),
    _aten.native_layer_norm.default: lambda args, out: 5 * args[0].numel(),
    _aten._adaptive_avg_pool2d.default: lambda args, out: args[0].numel(),
    _aten.mean.dim: lambda args, out: args[0].numel(),  # adaptive pooling to 1x1 arrives as a mean
    _aten.upsample_bilinear2d.default: lambda args, out: 4 * out.numel(),
}


def count_parameters(model: nn.Module) -> int:
    """Number of parameters, auxiliary head included, buffers (running statistics) not."""
    return sum(p.numel() for p in model.parameters())


def flops(model: nn.Module, size: Sequence[int]) -> int:
    """Inference cost for one image of `size` (height, width), as published tables count it.

    The convention is that of fvcore 0.1.5, which reproduces the GFLOPs of the BPKD tables:

    - a multiply-accumulate of a convolution or matrix product costs 1, a bias nothing
    - batch norm costs 2 and layer norm 5 per element
    - bilinear resizing costs 4 per output element, adaptive average pooling 1 per input element
    - the rest costs nothing, resizing to the nearest pixel included

    The final resize to the image is counted, an auxiliary head is not run.
    The model is left as it was.
    """
    device = "cpu" if size[0] * size[1] <= _RUN_PIXELS else "meta"
    tensors = {k: v.to(device) for k, v in (*model.named_parameters(), *model.named_buffers())}
    image = torch.zeros(1, 3, *size, device=device, dtype=next(model.parameters()).dtype)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            return counted(lambda: functional_call(model, tensors, image))
    finally:
        for module, training in modes.items():
            module.training = training


def counted(run: Callable[[], Any]) -> int:
    """The cost of what `run()` computes, by the convention of `flops`."""
    # Deterministic mode replaces resizing by operations that are not counted.
    # By the debug mode, since `use_deterministic_algorithms` imports the compiler.
    deterministic = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("default")
    try:
        # Attention as the products that it is made of.
        with sdpa_kernel(SDPBackend.MATH), _Counter() as counter:
            run()
    finally:
        torch.set_deterministic_debug_mode(deterministic)
    return counter.total


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # true imports the compiler, from which nothing here has to be kept

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in _COSTS:
            self.total += _COSTS[func](args, out[0] if isinstance(out, tuple) else out)
        return out
