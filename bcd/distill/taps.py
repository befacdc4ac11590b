"""Named tensors of a model, taken by forward hooks, so that no model is forked to return its features."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bcd.errors import UserError

Shape = Sequence[int]
Shapes = Mapping[str, Shape]


class Taps:
    """Hooks on a model that keep the tapped tensors of its latest forward pass until they are read.

    A path is a module's name in `model.named_modules()`. What follows a colon picks from an output that is a list,
    tuple or dict: an index, or a key. A module that runs several times in one forward pass leaves its last output.
    A tensor that the model later changes in place is seen changed.

    Deep-copying an object that holds the model and its Taps gives the copy Taps of its own. Wrapping the model
    (DistributedDataParallel) changes nothing, as hooks sit on the inner modules.

    Args:
        model: what is tapped; it gets forward hooks, which `remove` or the end of a `with` statement takes off.
        paths: tap name -> path.

    Raises:
        UserError: a path names no module of the model.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from bcd.distill.taps import Taps
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1))
        >>> with Taps(model, {"stage1": "0", "logits": "1"}) as taps:
        ...     output = model(torch.zeros(1, 3, 4, 6))
        ...     tensors = taps.read()
        >>> tensors["stage1"].shape, tensors["logits"] is output
        (torch.Size([1, 8, 4, 6]), True)
    """

    def __init__(self, model: nn.Module, paths: Mapping[str, str]):
        self.paths = dict(paths)
        self._taken: dict[str, Tensor] = {}
        modules = dict(model.named_modules())
        modules_of = {name: _module(modules, name, path) for name, path in self.paths.items()}
        # Without this, a forward pass that skips a module would leave the tensor of an earlier one to be read.
        self._handles = [model.register_forward_pre_hook(self._forget)]
        self._handles += [m.register_forward_hook(partial(self._take, name)) for name, m in modules_of.items()]

    def read(self) -> dict[str, Tensor]:
        """The tensors of the latest forward pass, each once: reading forgets them.

        Raises:
            UserError: a tapped module did not run since the last read.
        """
        taken, self._taken = self._taken, {}
        for name, path in self.paths.items():
            if name not in taken:
                raise UserError(
                    f"tap {name!r} ({path}) was not produced: the module did not run in the latest forward pass, "
                    "or that has been read; run the model once before each reading, and tap a module that runs"
                )
        return {name: taken[name] for name in self.paths}

    def remove(self) -> None:
        """Take the hooks off the model and forget its tensors."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._taken.clear()

    def __enter__(self) -> "Taps":
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def __getstate__(self) -> dict[str, object]:
        # A tensor with a graph can be neither copied nor pickled, and a copy has not run yet.
        return self.__dict__ | {"_taken": {}}

    def _forget(self, *_: object) -> None:
        self._taken.clear()

    def _take(self, name: str, _module: nn.Module, _inputs: object, output: object) -> None:
        self._taken[name] = _pick(output, name, self.paths[name])


def observe(model: nn.Module, paths: Mapping[str, str], run: Callable[[], object]) -> dict[str, torch.Size]:
    """Shapes of the tensors at `paths` (see `Taps`), from one forward pass that leaves no trace.

    The pass runs in eval mode without gradients. Every module's mode, BatchNorm statistics and the random state stay as
    they were.

    Args:
        model: what is tapped.
        paths: tap name -> path.
        run: makes one forward pass of `model`.

    Raises:
        UserError: a path names no module of the model, or its module does not run.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from bcd.distill.taps import observe
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1))
        >>> observe(model, {"stage1": "0", "logits": "1"}, lambda: model(torch.zeros(1, 3, 4, 6)))
        {'stage1': torch.Size([1, 8, 4, 6]), 'logits': torch.Size([1, 2, 4, 6])}
    """
    modes = {module: module.training for module in model.modules()}
    devices = {p.device for p in model.parameters() if p.is_cuda}
    try:
        with Taps(model, paths) as taps, torch.random.fork_rng(devices=list(devices)), torch.no_grad():
            model.eval()
            run()
            return {name: tensor.shape for name, tensor in taps.read().items()}
    finally:
        for module, training in modes.items():
            module.training = training


def require_learning(taps: Mapping[str, Tensor]) -> None:
    """Raise UserError for a tap of a student in training that no loss can change."""
    if fixed := [name for name, tensor in taps.items() if not tensor.requires_grad]:
        raise UserError(
            f"the student's tap '{fixed[0]}' is frozen, so no term can teach it; choose taps behind the frozen layers, "
            "or freeze fewer (`taps` in params/methods.yaml, `freeze` in params/models.yaml)"
        )


def _module(modules: Mapping[str, nn.Module], name: str, path: str) -> nn.Module:
    module_path = path.partition(":")[0]
    if module_path not in modules:
        nearest = difflib.get_close_matches(module_path, modules, n=1, cutoff=0.0)
        raise UserError(f"tap {name!r}: the model has no module {module_path!r}; did you mean {nearest[0]!r}?")
    return modules[module_path]


def _pick(output: Any, name: str, path: str) -> Tensor:
    choice = path.partition(":")[2]
    picked = output
    if choice:
        # torchvision's pyramids use digits as string keys, so a dict is asked for the text first.
        candidates = [choice, int(choice)] if choice.lstrip("-").isdigit() else [choice]
        for candidate in candidates:
            try:
                picked = output[candidate]
                break
            except (KeyError, IndexError, TypeError):
                continue
        else:
            raise UserError(f"tap {name!r} ({path}): the output has no {choice!r}; it offers {_offer(output)}")
    if not isinstance(picked, Tensor):
        raise UserError(f"tap {name!r} ({path}): not one tensor; choose from {_offer(picked)} after a colon")
    return picked


def _offer(output: object) -> str:
    if isinstance(output, Mapping):
        return "keys " + ", ".join(map(str, output))
    if isinstance(output, Sequence):
        return f"indices 0 to {len(output) - 1}"
    return f"nothing to choose from (it is a {type(output).__name__})"
