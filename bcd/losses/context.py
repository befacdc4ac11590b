"""Context distillation: the relation of every pixel to every other, compared row by row."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from bcd.losses.boundary import UNIT_EPS
from bcd.losses.masked import prepare

# Elements of one tile of relations: few enough to stay near the caches, enough to keep the products busy.
TILE_ELEMENTS = 1 << 20


def context(
    student: Tensor,
    teacher: Tensor,
    *,
    valid: Tensor | None = None,
    label: Tensor | None = None,
    temperature: float = 0.1,
    normalise: bool = True,
) -> Tensor:
    """Mean over valid pixels i of KL(R_t[i] || R_s[i]), R = softmax over the image's valid pixels of F^T F / tau.

    Our definition of the "pixel-level self-relations" of arXiv 2401.13174, whose equations are not at hand. Channel
    counts may differ. Exact; the memory grows with the number of pixels, not with its square.

    Args:
        student, teacher: features (N, C_s, H, W) and (N, C_t, H, W).
        valid: bool (N, H, W).
        label: not used.
        temperature: tau > 0.
        normalise: scale each pixel's feature to unit length, so that relations are cosine similarities. Without it
            long features dominate the rows and tau needs the scale of the features.
    """
    student, teacher, valid = prepare(student, teacher, valid)
    if normalise:
        student, teacher = (F.normalize(x, dim=1, eps=UNIT_EPS) for x in (student, teacher))
    student, teacher = (x.flatten(2).mT.contiguous() for x in (student, teacher))
    return self_relation_kl(student, teacher, valid.flatten(1), temperature)


def self_relation_kl(
    student: Tensor, teacher: Tensor, valid: Tensor, temperature: float, rows: int | None = None
) -> Tensor:
    """The loss of `context` on token lists (N, L, C_s) and (N, L, C_t) with `valid` bool (N, L).

    `rows` of the L x L relations are held at a time (default: as many as fit TILE_ELEMENTS); the result depends on it
    only through rounding.
    """
    n, length, _ = student.shape
    rows = rows or max(1, TILE_ELEMENTS // max(1, n * length))
    return _SelfRelationKL.apply(student, teacher, valid, temperature, rows)


class _SelfRelationKL(torch.autograd.Function):
    """A scalar loss whose gradient is known in closed form, so it is taken tile by tile while the tiles exist.

    With S = F^T F / tau and w_i = valid_i / (number of valid pixels of the batch), dL/dS_ij = w_i (R_s - R_t)_ij.
    Computing it in the forward pass spares the backward pass two products and all exponentials, and keeps one tensor
    of the size of the student's features instead of the relations.
    """

    @staticmethod
    def forward(ctx, student, teacher, valid, temperature, rows):
        weight = valid.to(student.dtype) / valid.sum().clamp(min=1)
        hidden = ~valid.unsqueeze(1)
        loss = student.new_zeros(())
        gradient = torch.zeros_like(student) if ctx.needs_input_grad[0] else None
        with torch.autocast(student.device.type, enabled=False):
            for tile in (slice(i, i + rows) for i in range(0, student.shape[1], rows)):
                log_student = _log_relations(student, tile, hidden, temperature)
                log_teacher = _log_relations(teacher, tile, hidden, temperature)
                relation = log_teacher.exp()
                row_weight = weight[:, tile].unsqueeze(-1)
                loss += (log_teacher.sub_(log_student).mul_(relation) * row_weight).sum()
                if gradient is not None:
                    slope = log_student.exp_().sub_(relation).mul_(row_weight / temperature)
                    gradient[:, tile].baddbmm_(slope, student)
                    gradient.baddbmm_(slope.mT, student[:, tile])
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        (gradient,) = ctx.saved_tensors
        return gradient * grad_output, None, None, None, None


def _log_relations(tokens: Tensor, tile: slice, hidden: Tensor, temperature: float) -> Tensor:
    """Log of the rows `tile` of R, (N, rows, L); a hidden column has probability 0."""
    logits = torch.bmm(tokens[:, tile] / temperature, tokens.mT)
    logits.masked_fill_(hidden, torch.finfo(logits.dtype).min / 2)  # finite: an image may have no valid pixel
    return F.log_softmax(logits, dim=-1)
