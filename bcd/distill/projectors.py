"""Learned maps from the student's channels to the teacher's."""

from collections.abc import Sequence

from torch import nn


def projector(student_shape: Sequence[int], teacher_shape: Sequence[int]) -> nn.Module:
    """A 1x1 convolution without bias from the student's channels to the teacher's; identity where they agree.

    Args:
        student_shape, teacher_shape: observed (N, C, H, W) of one tap. H and W may differ: resizing is `distill`'s.
    """
    student_channels, teacher_channels = student_shape[1], teacher_shape[1]
    if student_channels == teacher_channels:
        return nn.Identity()
    return nn.Conv2d(student_channels, teacher_channels, kernel_size=1, bias=False)
