"""Holistic distillation: a critic learns to tell the teacher's maps from the student's, the student to please it.

Liu et al., "Structured Knowledge Distillation for Dense Prediction" (arXiv 1903.04197), as in
github.com/irfanICMLL/structure_knowledge_distillation (utils/criterion.py, networks/kd_model.py) and, in another
setting, github.com/winycg/CIRKD (losses/adv.py, train_kd.py).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from bcd import distributed
from bcd.config.ranges import Count, NonNegative, Positive
from bcd.errors import UserError
from bcd.losses.critic import MIN_SIZE, Critic
from bcd.losses.masked import full_precision, prepare

KINDS = ("wgan-gp", "hinge")
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": partial(torch.optim.SGD, momentum=0.9, weight_decay=5e-4),  # SKD
    "adam": partial(torch.optim.Adam, betas=(0.9, 0.99)),  # CIRKD
}


def generator_loss(d_student: Tensor) -> Tensor:
    """What the student minimises: the negative mean of its scores, of any shape; the same for both kinds of critic."""
    return -d_student.mean()


def critic_loss(d_student: Tensor, d_teacher: Tensor, kind: str = "wgan-gp") -> Tensor:
    """What the critic minimises, by its scores of the student's and the teacher's maps, of any shape.

    `wgan-gp`: mean d_student - mean d_teacher. `hinge`: mean max(0, 1 + d_student) + mean max(0, 1 - d_teacher).
    """
    if kind == "hinge":
        return F.relu(1 + d_student).mean() + F.relu(1 - d_teacher).mean()
    return d_student.mean() - d_teacher.mean()


def gradient_penalty(
    critic: Callable[[Tensor], Tensor], student: Tensor, teacher: Tensor, weight: float = 10.0
) -> Tensor:
    """`weight` times the mean over images of (||g|| - 1)^2, g the slope of the critic between teacher and student.

    Gulrajani et al. (arXiv 1704.00028). x = a teacher + (1 - a) student with one uniform random a per image; g is the
    gradient at x of the sum of all scores of the batch, its norm taken per image. Differentiable in the critic's
    parameters, not in the maps.

    Args:
        critic: maps (N, C, H, W) -> scores of any shape; twice differentiable.
        student, teacher: (N, C, H, W).
    """
    a = torch.rand(len(teacher), 1, 1, 1, dtype=teacher.dtype, device=teacher.device)
    between = (a * teacher + (1 - a) * student).detach().requires_grad_()
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return weight * (torch.linalg.vector_norm(slope.flatten(1), dim=1) - 1).square().mean()


class Holistic(nn.Module):
    """The negative mean score that a critic, trained along with the student, gives to the student's map.

    Every forward in training mode with gradients enabled first takes one step of the critic on the detached maps, then
    scores the student with the new critic. (The official codes step the student first. Here the caller's backward
    pass comes later, and the critic must not change between a forward and its backward pass.) Without gradients or in
    eval mode the critic stays as it is.

    The critic belongs to this module: its parameters never require gradients, so that no optimiser or wrapper outside
    takes them up, and the state of its own optimiser is part of `state_dict`. Load that after moving the module to its
    device. Several processes average the critic's gradients over all images.

    The value may be negative and is not 0 when student and teacher agree. Convolution and batch statistics see invalid
    pixels as zeros in both maps, so padding a batch does change the value.

    Args:
        student_shape, teacher_shape: observed (N, C, H, W); only the student's C is read.
        kind: of the critic, `wgan-gp` (SKD) or `hinge` (CIRKD).
        critic_optimizer: `sgd` (SKD) or `adam` (CIRKD), at the constant rate `critic_lr`; SKD lets its rate decay.
        critic_weight: factor of the critic's own loss; `penalty` factor within it of the gradient penalty, which a
            `hinge` critic does without.
        width: channels of the critic's first layer.

    Raises:
        UserError: an unknown kind; forward: the channel counts differ.
    """

    def __init__(
        self,
        student_shape: Sequence[int],
        teacher_shape: Sequence[int],
        *,
        kind: Literal["wgan-gp", "hinge"] = "wgan-gp",
        critic_optimizer: Literal["sgd", "adam"] = "sgd",
        critic_lr: Positive = 4e-4,
        critic_weight: NonNegative = 0.1,
        penalty: NonNegative = 10.0,
        width: Count = 64,
    ):
        super().__init__()
        if kind not in KINDS:
            raise UserError(f"holistic: kind must be one of {', '.join(KINDS)}, not {kind!r}")
        self.kind, self.critic_weight = kind, critic_weight
        self.penalty = penalty if kind == "wgan-gp" else 0.0
        self.critic = Critic(student_shape[1], width).requires_grad_(False)
        self.optimizer = OPTIMIZERS[critic_optimizer](self.critic.parameters(), lr=critic_lr)

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor, *, valid: Tensor | None = None) -> Tensor:
        """The scalar generator loss; gradient to the student only.

        Args:
            student, teacher: logits (N, C, H, W), as they are (no softmax); H or W below 64 is enlarged to 64.
            valid: bool (N, H, W).
        """
        student, teacher, valid = prepare(student, teacher, valid, same_channels=True)
        seen = valid.flatten(1).any(1)
        images = int(seen.sum())
        if not distributed.anywhere(images > 0):
            return student.sum()
        if images:
            student, teacher = _enlarged(student[seen]), _enlarged(teacher[seen])
        else:  # other processes have images: keep their company, so that all critics stay the same
            student, teacher = _enlarged(student), _enlarged(teacher)
        if self.training and torch.is_grad_enabled():
            self._update_critic(student.detach(), teacher, images)
        value = generator_loss(self.critic(student))
        return value if images else 0 * value

    def _update_critic(self, student: Tensor, teacher: Tensor, images: int) -> None:
        # Gradients for copies instead of the parameters, which thus need not require them for the moment.
        copies = {name: p.detach().requires_grad_() for name, p in self.critic.named_parameters()}

        def critic(maps: Tensor) -> Tensor:
            return functional_call(self.critic, copies, (maps,))

        d_teacher = critic(teacher)
        loss = critic_loss(critic(student), d_teacher, self.kind)
        if self.penalty:
            loss = loss + gradient_penalty(critic, student, teacher, self.penalty)
        gradients = torch.autograd.grad(self.critic_weight * loss, list(copies.values()))
        for p, gradient in zip(self.critic.parameters(), _over_processes(gradients, images), strict=True):
            p.grad = gradient
        self.optimizer.step()
        self.optimizer.zero_grad()  # else a caller that clips all gradients would count these

    def get_extra_state(self) -> dict:
        return self.optimizer.state_dict()

    def set_extra_state(self, state: dict) -> None:
        self.optimizer.load_state_dict(state)


def _over_processes(gradients: Sequence[Tensor], images: int) -> Sequence[Tensor]:
    """The mean of all processes' gradients, each weighted by its number of images, of which at least one has some."""
    if distributed.world() == 1:
        return gradients
    total = torch.tensor(float(images), device=gradients[0].device)
    dist.all_reduce(total)
    for gradient in gradients:
        gradient.mul_(images / total)
        dist.all_reduce(gradient)
    return gradients


def _enlarged(maps: Tensor) -> Tensor:
    height, width = maps.shape[2:]
    if min(height, width) >= MIN_SIZE:
        return maps
    size = (max(height, MIN_SIZE), max(width, MIN_SIZE))
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
