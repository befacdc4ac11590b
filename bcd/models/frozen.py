"""Keeping the first layers of a backbone as they were loaded (`freeze` of a model)."""

from torch import nn

from bcd.errors import UserError, nearest
from bcd.models.base import DenseModel


def freeze(model: DenseModel, backbone: nn.Module, last: str) -> None:
    """Keep the module `last` of `backbone`, and all that the backbone defines before it, as they are.

    Their parameters get no gradient, and their BatchNorms use the loaded statistics in training, too, as
    detectron2's FREEZE_AT and mmsegmentation's `frozen_stages` have it. What holds both frozen and trained layers
    is left alone.
    Raises UserError where `backbone` has no module of that name.
    """
    modules = dict(backbone.named_modules())
    if not last or last not in modules:
        raise UserError(f"model.freeze: the backbone has no module '{last}'{nearest(last, modules)}")
    names = list(modules)
    end = max(i for i, name in enumerate(names) if name == last or name.startswith(f"{last}."))
    around = {".".join(last.split(".")[:i]) for i in range(last.count(".") + 1)}
    model.frozen = tuple(modules[name] for name in names[: end + 1] if name not in around)
    for module in model.frozen:
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(False)
    model.train(model.training)
