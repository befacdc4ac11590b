"""Agreement of the losses with numbers that the official implementations produced; run as a script for the table.

    PYTHONPATH=tests python tests/support/parity.py        # | term | golden cases | largest deviations |

Each `parity_<topic>.py` beside this file lists CASES. A case is run on the stored inputs; the harness then compares
the loss, every stored gradient and every stored state.
"""

import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from support.project import SHARED
from torch import Tensor, nn

GOLDEN = SHARED / "golden"
HERE = Path(__file__).parent


class Golden:
    """One file of official inputs and outputs, its floating-point inputs as leaves of `dtype`.

    `golden["student_0"]` is an input, which gathers a gradient where the file stores one. `hyper` holds the official
    hyper-parameters. Random draws are replayed in the order in which the official code made them.
    """

    def __init__(self, name: str, dtype: torch.dtype = torch.float64):
        with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as data:
            self.meta = json.loads(data["meta"].item())
            self.data = {k: torch.from_numpy(data[k].copy()) for k in data.files if data[k].dtype.kind in "fiub"}
        self.name, self.dtype = name, dtype
        self.hyper = self.meta.get("hyper") or {}
        self._inputs: dict[str, Tensor] = {}
        self._modules: list[tuple[nn.Module, dict[str, str]]] = []

    def __getitem__(self, key: str) -> Tensor:
        if key not in self._inputs:
            value = self.data[key]
            value = value.to(self.dtype) if value.is_floating_point() else value.long()
            self._inputs[key] = value.requires_grad_(f"grad_{key}" in self.data)
        return self._inputs[key]

    def list(self, prefix: str) -> list[Tensor]:
        """The inputs `<prefix>_0`, `<prefix>_1`, ..."""
        return [self[f"{prefix}_{i}"] for i in range(sum(k.startswith(f"{prefix}_") for k in self.data))]

    def load(self, module: nn.Module, names: dict[str, str]) -> nn.Module:
        """`module` in `dtype` with the official weights and buffers; `names` maps the official names to ours."""
        module.to(self.dtype)
        ours = dict(module.named_parameters()) | dict(module.named_buffers())
        with torch.no_grad():
            for official, name in names.items():
                source = self.data[f"param/{official}"]
                ours[name].copy_(source.reshape(ours[name].shape))
        self._modules.append((module, names))
        return module

    def deviations(self, run: Callable[["Golden"], Tensor]) -> dict[str, float]:
        """Run the case; what was compared -> deviation from the file, relative to the file's largest value.

        A value that the official code leaves NaN must be NaN.
        """
        with self._replayed():
            loss = run(self)
        result = {"loss": _deviation(loss.detach(), self.data["loss"].reshape(()))}
        if loss.requires_grad and loss.isfinite():
            loss.backward()
        tensors = {f"grad_{k}": v.grad for k, v in self._inputs.items()}
        for module, names in self._modules:
            ours = dict(module.named_parameters()) | dict(module.named_buffers())
            tensors |= {f"grad_param/{o}": ours[n].grad for o, n in names.items() if f"grad_param/{o}" in self.data}
            tensors |= {f"state_after/{o}": ours[n] for o, n in names.items() if f"state_after/{o}" in self.data}
        for key, reference in self.data.items():
            if key.startswith(("grad_", "state_after/")) and not key.endswith(("_f16", "_bf16")):
                if loss.isnan():
                    continue
                assert key in tensors, f"{self.name}: the case does not produce {key}"
                got = torch.zeros_like(reference) if tensors[key] is None else tensors[key]
                result[key] = _deviation(got.detach().reshape(reference.shape), reference)
        return result

    def _replayed(self):
        draws = iter(sorted(k for k in self.data if k.startswith("random/")))
        return _Replay(self, draws)


class _Replay:
    """Puts the stored draws in place of `torch.rand` and `torch.randperm`; all must be asked for, in order."""

    def __init__(self, golden: Golden, draws):
        self.golden, self.draws = golden, draws

    def __enter__(self):
        self.saved = torch.rand, torch.randperm
        torch.rand = self._next("rand")
        torch.randperm = self._next("randperm")

    def _next(self, kind: str):
        def draw(*size, **_):
            key = next(self.draws)
            assert key.endswith(kind), f"the official code drew {key}, not {kind}"
            value = self.golden.data[key]
            expected = tuple(size[0]) if isinstance(size[0], (tuple, list, torch.Size)) else size
            assert tuple(value.shape) == expected, f"{key}: {tuple(value.shape)} asked for as {expected}"
            return value.to(self.golden.dtype) if kind == "rand" else value.long()

        return draw

    def __exit__(self, kind, *_):
        torch.rand, torch.randperm = self.saved
        assert kind or next(self.draws, None) is None, "a stored draw was not asked for"


def _deviation(value: Tensor, reference: Tensor) -> float:
    """Largest difference over the largest reference; the difference itself where the reference is (almost) 0."""
    value, reference = value.double(), reference.double()
    if reference.isnan().any():
        return 0.0 if torch.equal(value.isnan(), reference.isnan()) else float("inf")
    largest = reference.abs().max().item()
    difference = (value - reference).abs().max().item()
    return difference / largest if largest > 1e-12 else difference


@dataclass(frozen=True)
class Case:
    """`run` computes the loss of our `term` on the file's inputs; `tolerance` where the file states a wider one."""

    term: str
    file: str
    run: Callable[[Golden], Tensor]
    tolerance: float = 1e-9

    def __str__(self) -> str:
        return f"{self.term}-{self.file}"


def all_cases() -> list[Case]:
    names = sorted(p.stem for p in HERE.glob("parity_*.py"))
    return [case for name in names for case in importlib.import_module(f"support.{name}").CASES]


def main() -> None:
    torch.set_num_threads(1)
    print(
        "| term | golden cases | loss, float64 | gradients and states, float64 | loss, float32 | gradients, float32 |"
    )
    print("|---|---|---|---|---|---|")
    by_term: dict[str, list[Case]] = {}
    for case in all_cases():
        by_term.setdefault(case.term, []).append(case)
    for term, cases in by_term.items():
        cells = []
        for dtype in (torch.float64, torch.float32):
            found = [Golden(case.file, dtype).deviations(case.run) for case in cases]
            cells.append(max(f["loss"] for f in found))
            cells.append(max((v for f in found for k, v in f.items() if k != "loss"), default=0.0))
        print(f"| `{term}` | {len(cases)} | " + " | ".join(f"{c:.1e}" for c in cells) + " |")


if __name__ == "__main__":
    main()
