"""What losses share that hold their relations one tile at a time and gather the gradient while a tile exists."""

from typing import Any

from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

# Elements of one tile of relations: few enough to stay near the caches, enough to keep the products busy.
TILE_ELEMENTS = 1 << 20


def known_gradient(student: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:
    """The number `loss` as a function of `student` whose gradient is `gradient`, a tensor like `student`."""
    return _KnownGradient.apply(student, loss, gradient)


class _KnownGradient(Function):
    @staticmethod
    def forward(ctx: Any, _student: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return loss.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_output, None, None
