"""A stand-in for a GPU: tensors that say they lie elsewhere, while a CPU computes them.

Under `FarDevice` every tensor on `FAR` (torch's device "meta") holds its numbers in a CPU tensor beside it. So a
program runs to its end with real numbers, whatever its shapes depend on, and what a GPU would object to is found out:
an operator that is given tensors of both devices raises `Mixed`, and `numpy()` raises as it does on a GPU. What would
make the CPU wait for the GPU is counted by the function of the project that asked for it. The operators are kept by
name, so that those without a form for CUDA can be told from a build of torch that has one.

The autograd engine refuses "cuda" where there is no card, hence "meta", on which it runs in the calling thread.
"""

import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any
from unittest.mock import patch

import torch
from support.project import ROOT
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map

import bcd

FAR = torch.device("meta")
PROJECT = str(Path(bcd.__file__).parent)
PAGE = ROOT / "docs" / "results" / "scale.md"
ROW = re.compile(r"^\| `(?P<who>[^`]+)` \| `(?P<where>[^`]+)` \| (?P<what>[^|]+) \|", re.MULTILINE)
# Operators whose result has as many elements as the numbers say: on a GPU they wait for these.
COUNTING = (
    *("nonzero", "masked_select", "repeat_interleave", "bincount", "nms", "equal"),
    *("_unique2", "unique_dim", "unique_consecutive"),
)
INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put")
COPIES = ("_to_copy", "copy_", "copy")


class Mixed(Exception):
    """An operator was given tensors of both devices."""


class Far(Tensor):
    """A tensor on FAR; `near` has its numbers."""

    near: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, near: Tensor) -> "Far":
        size = {"strides": near.stride(), "storage_offset": near.storage_offset()}
        far = Tensor._make_wrapper_subclass(cls, near.shape, dtype=near.dtype, device=FAR, **size)
        far.near = near
        return far

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} outside FarDevice")

    # torch's own refuse subclasses, or make tensors without numbers.
    def tolist(self) -> Any:
        return self.cpu().tolist()

    def new_tensor(self, data: Any, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
        return torch.tensor(data, dtype=dtype or self.dtype).to(FAR)


class FarDevice(TorchDispatchMode):
    """While it is entered, FAR computes.

    waits      function of the project -> how often it makes the CPU wait, by what: {"losses/fgd.py:box_weights": ...}
    operators  every operator that had a tensor on FAR
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: dict[str, Counter[str]] = {}
        self.operators: set[Any] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [x for x in tree_iter((args, kwargs)) if isinstance(x, Tensor)]
        far = [x for x in tensors if isinstance(x, Far)]
        name = func._schema.name.partition("::")[2]
        asked = kwargs.get("device")
        if asked is not None and torch.device(asked) == FAR:
            kwargs["device"] = torch.device("cpu")
        to_far = bool(far) if asked is None else torch.device(asked) == FAR
        if name == "copy_":
            to_far = isinstance(args[0], Far)
        if far or to_far:
            self._look(func, name, args, kwargs, tensors, far, to_far)
        if name == "_local_scalar_dense" or not (far or to_far):
            to_far = False
        out = func(*tree_map(_near, args), **tree_map(_near, kwargs))
        written = [x for x in _written(func, args, kwargs) if isinstance(x, Tensor)]
        if any(x.shape != _near(x).shape for x in written):
            raise NotImplementedError(f"{func} changes a shape in place")
        if written and not isinstance(out, list | tuple):
            return written[0]
        return tree_map(lambda x: Far(x) if isinstance(x, Tensor) and to_far else x, out)

    def _look(
        self, func: Any, name: str, args: Any, kwargs: dict, tensors: list[Tensor], far: list[Tensor], to_far: bool
    ) -> None:
        if name in COPIES:
            if to_far != bool(far) or len(far) not in (0, len(tensors)):
                self._wait("copies to the device" if to_far else "copies to the CPU")
            return
        self.operators.add(func)
        if name in ("_local_scalar_dense", *COUNTING):
            self._wait({"_local_scalar_dense": "reads a number"}.get(name, name))
        near = [x for x in tensors if not isinstance(x, Far)]
        if name in INDEXING:
            chosen = [x for x in args[1] if x is not None]
            if any(x.dtype in (torch.bool, torch.uint8) for x in chosen) and not _filled(name, args, chosen):
                self._wait("chooses by a mask")
            if any(x.device.type == "cpu" for x in chosen):
                self._wait("copies to the device")
            near = [x for x in near if not any(x is index for index in chosen)]
        if far and any(x.dim() for x in near):
            raise Mixed(f"{func} in {_asking()} of {[(x.device.type, tuple(x.shape)) for x in tensors]}")

    def _wait(self, why: str) -> None:
        self.waits.setdefault(_asking(), Counter())[why] += 1


@contextmanager
def far_device() -> Iterator[FarDevice]:
    """`FarDevice`, where modules keep their parameters when they move, as on a GPU, and fused optimisers run.

    Autocast is that of the CPU, so what it would do on the device is not seen.
    """
    fused = [*torch.utils._foreach_utils._get_fused_kernels_supported_devices(), FAR.type]
    autocast = torch.autocast
    tensor, as_tensor = torch.tensor, torch.as_tensor
    swap = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        with (
            patch("torch.optim.optimizer._get_fused_kernels_supported_devices", lambda: fused),
            patch("torch.tensor", _moving(tensor)),
            patch("torch.as_tensor", _moving(as_tensor)),
            patch("torch.autocast", lambda kind, *a, **k: autocast("cpu" if kind == FAR.type else kind, *a, **k)),
            FarDevice() as device,
        ):
            yield device
    finally:
        torch.__future__.set_swap_module_params_on_conversion(swap)


def _moving(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """torch makes tensors without numbers on FAR, so they are made on the CPU and moved."""

    def made(data: Any, *, device: Any = None, **options: Any) -> Tensor:
        far = device is not None and torch.device(device) == FAR
        return make(data, **options).to(FAR) if far else make(data, device=device, **options)

    return made


def without_cuda(operators: set[Any]) -> set[str]:
    """Names of the operators that this build of torch has no CUDA form of."""
    has: Callable[[str, str], bool] = torch._C._dispatch_has_computed_kernel_for_dispatch_key
    return {op.name() for op in operators if not has(op.name(), "CUDA")}


def documented(who: str) -> dict[str, set[str]]:
    """Function of the project -> what it makes the CPU wait for, by the table of PAGE."""
    rows = [row for row in ROW.finditer(PAGE.read_text()) if row["who"] == who]
    return {row["where"]: set(row["what"].split(", ")) for row in rows}


def waited(device: FarDevice) -> dict[str, set[str]]:
    """What made the CPU wait, but for the test's own doing."""
    return {where: set(what) for where, what in device.waits.items() if where != "elsewhere"}


def require(device: FarDevice, who: str, waits: dict[str, set[str]] | None = None) -> None:
    """The device was asked for nothing that CUDA has no form of, and the CPU waited where the table says so."""
    if torch.version.cuda:
        assert without_cuda(device.operators) == set()
    assert (waited(device) if waits is None else waits) == documented(who)


def to(where: torch.device | str, tree: Any) -> Any:
    return tree_map(lambda x: x.to(where) if isinstance(x, Tensor) else x, tree)


def near(tree: Any) -> Any:
    """The same with CPU tensors, detached."""
    return tree_map(lambda x: _near(x.detach()) if isinstance(x, Tensor) else x, tree)


def _near(x: Any) -> Any:
    return x.near if isinstance(x, Far) else x


def _written(func: Any, args: Any, kwargs: dict) -> Iterator[Any]:
    """What an operator changes in place."""
    for number, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield args[number] if number < len(args) else kwargs.get(argument.name)


def _filled(name: str, args: Any, chosen: list[Tensor]) -> bool:
    """Whether an assignment by one mask is a fill, for which CUDA needs no positions."""
    return name.strip("_").endswith("put") and len(chosen) == 1 and args[2].numel() == 1


def _asking() -> str:
    """The innermost function of the project that is running, as `losses/kd.py:kd`."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename.startswith(PROJECT):
            # Without what is inside a function: whether a comprehension is one of its own depends on Python.
            function = frame.f_code.co_qualname.partition(".<locals>")[0]
            return f"{frame.f_code.co_filename[len(PROJECT) + 1 :]}:{function}"
        frame = frame.f_back
    return "elsewhere"
