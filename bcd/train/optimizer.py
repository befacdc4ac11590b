"""The recipe's optimiser and learning rate."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import nn

from bcd.config.schema.recipes import Recipe, Sgd
from bcd.errors import UserError


def eager(optimizer: type[torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    """An optimiser of torch without its hooks for `torch.compile`; it computes the same bits.

    The hooks import the whole compiler at the first call (torch 2.14: a third of what a short training costs before
    its first step), and nothing of a training is compiled. They are wrappers, so what they wrap is taken.
    """
    methods = ("add_param_group", "zero_grad", "state_dict", "load_state_dict", "step")
    plain = {name: inspect.unwrap(getattr(optimizer, name)) for name in methods}
    # The wrapper of `step` also turned gradients off.
    return type(optimizer.__name__, (optimizer,), plain | {"step": torch.no_grad()(plain["step"])})


SGD, ADAMW = eager(torch.optim.SGD), eager(torch.optim.AdamW)


def learning_rate(recipe: Recipe, step: int) -> float:
    """The learning rate of a step, from 0.

    Poly decay with a floor, `(lr - min_lr) (1 - t/T)^power + min_lr`, a tenth of it after each step of `decay_at`,
    after a linear warm-up.
    """
    rate = (recipe.lr - recipe.min_lr) * (1 - step / recipe.steps) ** recipe.power + recipe.min_lr
    rate *= 0.1 ** sum(step >= decay for decay in recipe.decay_at)
    return rate * min(1.0, (step + 1) / recipe.warmup) if recipe.warmup else rate


def make_optimizer(student: nn.Module, recipe: Recipe, others: Iterable[nn.Parameter] = ()) -> torch.optim.Optimizer:
    """The recipe's optimiser over a student and `others`.

    `others` are parameters of distillation terms; they follow the recipe's plain learning rate and decay. A group's
    learning rate is that of the recipe times its `lr_factor`.
    """
    chosen = recipe.optimizer
    groups = parameter_groups(student, chosen.lr_factors, chosen.no_decay)
    groups.setdefault((1.0, True), []).extend(p for p in others if p.requires_grad)
    listed = [
        {"params": parameters, "lr_factor": factor, "weight_decay": chosen.weight_decay if decays else 0.0}
        for (factor, decays), parameters in groups.items()
        if parameters
    ]
    # Fused: one pass over all tensors; for small models the plain loop is a good part of a step.
    if isinstance(chosen, Sgd):
        return SGD(listed, momentum=chosen.momentum, lr=recipe.lr, fused=True)
    return ADAMW(listed, lr=recipe.lr, fused=True)


def parameter_groups(
    model: nn.Module, lr_factors: Mapping[str, float], no_decay: Sequence[str]
) -> dict[tuple[float, bool], list[nn.Parameter]]:
    """(factor of the learning rate, whether it is decayed) -> the trainable parameters, in the model's order.

    The words mean what `bcd.config.schema.recipes.Sgd` says.
    Raises UserError for a word that stands in no parameter's name.
    """
    names = [name for name, _ in model.named_parameters()]
    for field, words in (("lr_factors", lr_factors), ("no_decay", no_decay)):
        for word in words:
            if not any(word in name for name in names):
                raise UserError(
                    f"the recipe's optimizer.{field}: no parameter of this model has '{word}' in its name, such as "
                    f"{names[0]} or {names[-1]}; correct the word in params/recipes.yaml"
                )
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            fitting = [word for word in lr_factors if word in name]
            factor = lr_factors[max(fitting, key=len)] if fitting else 1.0
            groups.setdefault((factor, not any(word in name for word in no_decay)), []).append(parameter)
    return groups
