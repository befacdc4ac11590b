"""Time and memory of every loss, forward and backward, beside a plain implementation of the same formula.

    python benchmarks/losses.py [--terms ifvd context] [--size 64] [--channels 512] [--batch 2] [--large] [--quick]

The maps are features of --channels x --size x --size; logits of 19 x 2 size x 2 size; for losses of all stages at once
--channels / 8, / 4, / 2, / 1 at 2 size, size, size / 2, size / 4; all float32, every pixel valid and labelled. Time is
the best of several rounds in which the two take turns; memory the growth of a fresh process's peak over what it holds
when maps and weights exist, the gradients included. `plain.py` has the plain forms; a dash stands where ours is just
that. Needs Linux. About six minutes on one core; --quick (half a minute) checks that it runs.
"""

import argparse
import inspect
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from plain import PLAIN
from torch import Tensor, nn

from bcd.losses import TERMS

CLASSES = 19
DOES_NOT_FIT = 77  # exit status

# Large blocks go back to the system when freed, so that the growth is what is in use.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
# A step draws from these memories alike however large they are, and the published sizes take 860 MB.
OPTIONS = {"cirkd_memory": {"pixel_memory": 2000, "region_memory": 200}}


@dataclass(frozen=True)
class Case:
    """A term with options, on features (batch, channels, size, size) or what belongs to them."""

    term: str
    channels: int
    size: int
    batch: int
    options: dict = field(default_factory=dict)

    @property
    def shapes(self) -> list[tuple[int, int, int]]:
        """(C, H, W) of every tap."""
        if TERMS[self.term].joint:
            return [(self.channels >> 3 - i, 2 * self.size >> i, 2 * self.size >> i) for i in range(4)]
        if TERMS[self.term].taps == ("logits",):
            return [(CLASSES, 2 * self.size, 2 * self.size)]
        return [(self.channels, self.size, self.size)]

    def __str__(self) -> str:
        c, h, w = self.shapes[0]
        taps = " and coarser" if len(self.shapes) > 1 else ""
        return f"{c} x {h} x {w}{taps}" + "".join(f", {k}: {v}" for k, v in self.options.items())


class Step:
    """Forward and backward pass of a case, `ours` or `plain`: the loss and its gradients by maps and weights."""

    def __init__(self, case: Case, dtype: torch.dtype = torch.float32):
        torch.manual_seed(0)
        self.case, self.term = case, TERMS[case.term]
        self.student, self.teacher = (
            [torch.randn(case.batch, *shape, dtype=dtype) for shape in case.shapes] for _ in range(2)
        )
        side = case.shapes[0][1]
        regions = torch.randint(CLASSES, (case.batch, 1, 8, 8)).float()
        label, image_label = (F.interpolate(regions, size).long()[:, 0] for size in (side, 4 * side))
        boxes = [torch.tensor([[0.1, 0.2, 0.6, 0.7], [0.5, 0.1, 0.9, 0.4]], dtype=dtype)] * case.batch
        self.known = {"label": label, "image_label": image_label, "boxes": boxes}
        self.loss, self.weights = self.term.loss, []
        self.options = OPTIONS.get(case.term, {}) | case.options
        if inspect.isclass(self.loss):
            self.loss = self._module(dtype)
            self.weights = [p for p in self.loss.parameters() if p.requires_grad]

    def _module(self, dtype: torch.dtype) -> nn.Module:
        shapes = [(self.case.batch, *shape) for shape in self.case.shapes]
        shapes = shapes if self.term.joint else shapes[0]
        classes = {"classes": CLASSES} if self.term.reads_classes else {}
        return self.term.loss(shapes, shapes, **self.options, **classes).to(dtype)

    def ours(self) -> tuple[Tensor, Sequence[Tensor]]:
        options = {} if self.weights else self.options
        facts = {name: self.known[name] for name in self.term.facts if name in self.known}
        return self._run(self.loss, facts | options)

    def plain(self) -> tuple[Tensor, Sequence[Tensor]]:
        loss = PLAIN[self.case.term]
        known = self.known | self.options | {"module": self.loss}
        return self._run(loss, {name: known[name] for name in inspect.signature(loss).parameters if name in known})

    def _run(self, loss: Callable, keywords: dict) -> tuple[Tensor, Sequence[Tensor]]:
        student = [s.detach().requires_grad_() for s in self.student]
        maps = (student, self.teacher) if self.term.joint else (student[0], self.teacher[0])
        torch.manual_seed(1)
        value = loss(*maps, **keywords)
        inputs = [*student, *self.weights]
        return value.detach(), torch.autograd.grad(value, inputs, allow_unused=True, materialize_grads=True)


def seconds(calls: Sequence[Callable], quick: bool) -> list[float]:
    """The best time of each call. The calls take turns: three rounds and two seconds, but no new round after 20."""
    best, rounds, spent = [float("inf")] * len(calls), 0, 0.0
    begin = time.perf_counter()
    while rounds == 0 or not quick and spent < 20 and (rounds < 3 or spent < 2):
        for i, call in enumerate(calls):
            start = time.perf_counter()
            call()
            best[i] = min(best[i], time.perf_counter() - start)
        rounds, spent = rounds + 1, time.perf_counter() - begin
    return best


def growth(case: Case, which: str, options: argparse.Namespace) -> float | None:
    """Peak growth in MB of a fresh process that runs the case once; None if a plain form needs more than the limit."""
    command = [sys.executable, __file__, "--measure", which, json.dumps(asdict(case))]
    command += ["--threads", str(options.threads), "--limit-gb", str(options.limit_gb if which == "plain" else 1000)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=os.environ | MALLOC)
    if done.returncode == DOES_NOT_FIT:
        return None
    done.check_returncode()
    return float(done.stdout)


def measure(which: str, case: Case, limit_gb: float) -> None:
    """The measured process: prints MB."""
    getattr(Step(replace(case, size=8)), which)()  # first calls load code and allocate buffers that stay
    call = getattr(Step(case), which)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = status()
    resource.setrlimit(resource.RLIMIT_AS, (int(before["VmSize"] + limit_gb * 1e9), resource.RLIM_INFINITY))
    try:
        call()
    except (RuntimeError, MemoryError) as error:
        if "memory" in str(error) or isinstance(error, MemoryError):
            sys.exit(DOES_NOT_FIT)
        raise
    print((status()["VmHWM"] - before["VmRSS"]) / 1e6)


def status() -> dict[str, int]:
    """Sizes of this process in bytes."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if words[-1] == "kB"}


@dataclass(frozen=True)
class Row:
    """What was measured: ms and MB of ours and of the plain form, None where that does not exist or fit."""

    case: Case
    ours: tuple[float, float]
    plain: tuple[float, float] | None

    @property
    def ratios(self) -> list[str]:
        # Below 1 MB the growth is noise.
        return [
            f"{a / b:.2f}" if b >= 1 or i == 0 else "-" for i, (a, b) in enumerate(zip(self.ours, self.plain or ()))
        ]

    def __str__(self) -> str:
        ms, mb = self.ours
        if self.plain:
            others = [f"{self.plain[0]:.1f}", self.ratios[0], f"{self.plain[1]:.0f}", self.ratios[1]]
        else:
            others = ["does not fit" if self.case.term in PLAIN else "-", "-"] * 2
        cells = [self.case.term, str(self.case), f"{ms:.1f}", *others[:2], f"{mb:.0f}", *others[2:]]
        return f"| {' | '.join(cells)} |"


def row(case: Case, options: argparse.Namespace) -> Row:
    mb = growth(case, "ours", options)
    plain_mb = growth(case, "plain", options) if case.term in PLAIN else None
    step = Step(case)
    if plain_mb is None:
        return Row(case, (1e3 * seconds([step.ours], options.quick)[0], mb), None)
    ms, plain_ms = (1e3 * s for s in seconds([step.ours, step.plain], options.quick))
    return Row(case, (ms, mb), (plain_ms, plain_mb))


def cases(options: argparse.Namespace) -> list[Case]:
    found = []
    for term in options.terms:
        found.append(Case(term, options.channels, options.size, options.batch))
        if term == "skd":  # every pixel a node
            found.append(replace(found[-1], options={"pool": 1}))
    return [*found, Case("cirkd_batch", 64, 128, options.batch)] if options.large else found


def target(row: Row, limit_gb: float) -> str | None:
    """What the term was written to reach, and what it does."""
    case, (ms, mb) = row.case, row.ours
    plain = "{:.0f} ms and {:.0f} MB".format(*row.plain) if row.plain else f"more than {limit_gb:g} GB"
    measured = f"measured {ms:.0f} ms and {mb:.0f} MB; plain {plain}"
    if case.term == "ifvd":
        return f"below a tenth of the plain time and memory; {measured}; ratios {' and '.join(row.ratios) or '-'}"
    if case.term == "skd" and case.options:
        return f"{case.size} x {case.size} nodes without their matrix; {measured}"
    if case.term == "cirkd_batch" and case.size >= 128:
        return f"fits; {measured}"
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--terms", nargs="+", default=list(TERMS), choices=list(TERMS), metavar="TERM")
    parser.add_argument("--size", type=int, default=64, help="height and width of features; at least 16")
    parser.add_argument("--channels", type=int, default=512, help="of features; a multiple of 16")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--limit-gb", type=float, default=8, help="plain forms that need more are skipped")
    parser.add_argument("--large", action="store_true", help="also cirkd_batch on 64 x 128 x 128; two minutes more")
    parser.add_argument("--quick", action="store_true", help="small maps, timed once")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.measure:
        which, case = options.measure
        return measure(which, Case(**json.loads(case)), options.limit_gb)
    if options.quick:
        options.size, options.channels = 16, 64
    print("| term | map | ours ms | plain ms | ratio | ours MB | plain MB | ratio |")
    print("|---|---|---:|---:|---:|---:|---:|---:|", flush=True)
    targets = []
    for case in cases(options):
        done = row(case, options)
        print(done, flush=True)
        if line := target(done, options.limit_gb):
            targets.append(f"target: {case.term} on {case}: {line}")
    print("\n" + "\n".join(targets))


if __name__ == "__main__":
    main()
