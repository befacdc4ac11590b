"""Decoupled distillation: the posterior of the labelled class apart from that among the other classes."""

import torch
import torch.nn.functional as F
from torch import Tensor

from bcd.config.ranges import NonNegative, Positive
from bcd.losses.masked import masked_mean, prepare


def dkd(
    student: Tensor,
    teacher: Tensor,
    *,
    valid: Tensor | None = None,
    label: Tensor,
    temperature: Positive = 4.0,
    alpha: NonNegative = 1.0,
    beta: NonNegative = 8.0,
    official: bool = False,
) -> Tensor:
    """T^2 * mean over valid labelled pixels of alpha KL(b_t || b_s) + beta KL(q_t || q_s).

    With p = softmax over classes of z / T and y the label, b = (p_y, 1 - p_y) and q = softmax of z / T over the
    classes other than y. Zhao et al., "Decoupled Knowledge Distillation" (arXiv 2203.08679), applied at every pixel;
    the official code (megvii-research/mdistiller, mdistiller/distillers/DKD.py) takes rows (N, C) and has no mask.

    Args:
        student, teacher: logits (N, C, H, W). With one class the loss is 0, with two its second part is.
        valid: bool (N, H, W).
        label: int64 (N, H, W); pixels of 255, or any other number that is no class, are left out.
        temperature: T > 0.
        alpha, beta: weights of the two parts.
        official: take the logarithm of b, infinite once p_y or 1 - p_y underflows, and lower the logit z_y / T by
            1000 instead of leaving it out of q, which fails for logits that far apart.

    Raises:
        UserError: the channel counts differ.
    """
    student, teacher, valid = prepare(student, teacher, valid, same_channels=True)
    counted = valid & (label >= 0) & (label < student.shape[1])
    index = label.where(counted, 0).unsqueeze(1)
    target = torch.zeros_like(student, dtype=torch.bool).scatter_(1, index, True)
    parts = _official_parts if official else _parts
    target_kl, other_kl = parts(student / temperature, teacher / temperature, target)
    return temperature**2 * masked_mean(alpha * target_kl + beta * other_kl, counted)


def _parts(student: Tensor, teacher: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """KL(b_t || b_s) and KL(q_t || q_s), each (N, H, W), of logits (N, C, H, W); `target` is a bool one-hot map."""
    floor = torch.finfo(student.dtype).min / 2  # finite: there is no other class if C = 1

    def decoupled(logits: Tensor) -> tuple[Tensor, Tensor]:
        log_p = F.log_softmax(logits, dim=1)
        log_target = log_p.masked_fill(~target, 0).sum(1)
        log_rest = torch.logsumexp(log_p.masked_fill(target, floor), dim=1)
        return torch.stack((log_target, log_rest), dim=1), F.log_softmax(logits.masked_fill(target, floor), dim=1)

    pairs = zip(decoupled(student), decoupled(teacher), strict=True)
    target_kl, other_kl = (F.kl_div(s, t, reduction="none", log_target=True).sum(1) for s, t in pairs)
    return target_kl, other_kl


def _official_parts(student: Tensor, teacher: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """As `_parts`, in the arithmetic of the official code."""

    def binary(logits: Tensor) -> Tensor:
        p = F.softmax(logits, dim=1)
        return torch.stack(((p * target).sum(1), (p * ~target).sum(1)), dim=1)

    target_kl = F.kl_div(binary(student).log(), binary(teacher), reduction="none").sum(1)
    log_student = F.log_softmax(student - 1000.0 * target, dim=1)
    other = F.softmax(teacher - 1000.0 * target, dim=1)
    return target_kl, F.kl_div(log_student, other, reduction="none").sum(1)
