"""Time and memory of every loss, forward and backward, beside a plain implementation of the same formula.

    python benchmarks/losses.py [--terms ifvd context] [--size 64] [--channels 512] [--batch 2] [--large] [--quick]

The maps are features of --channels x --size x --size; logits of 19 x 2 size x 2 size; for losses of all stages at once
--channels / 8, / 4, / 2, / 1 at 2 size, size, size / 2, size / 4; all float32, every pixel valid and labelled. Time is
the best of several rounds in which the two take turns; memory the growth of a fresh process's peak over what it holds
when maps and weights exist, the gradients included. `plain.py` has the plain forms; a dash stands where ours is just
that. Needs Linux. About 15 minutes on one core, --quick (small maps, to see that it runs) about 5: every measurement
of memory starts a process, and most of that is importing torch.
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
from torch import Tensor

from bcd.config.terms import option_names
from bcd.losses import TERMS

CLASSES = 19
DOES_NOT_FIT = 77  # exit status
# Large blocks go back to the system when freed, so that the growth is what is in use.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
# A step draws from these memories alike however large they are, and the published sizes take 860 MB.
OPTIONS = {"cirkd_memory": {"pixel_memory": 2000, "region_memory": 200}}
# Rows besides those of the default options: every pixel a node, the operator of the presets.
OTHER_OPTIONS = {"skd": {"pool": 1}, "boundary": {"operator": "residual"}}


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
        options = OPTIONS.get(case.term, {}) | case.options
        self.loss, self.weights = self.term.loss, []
        if not inspect.isclass(self.loss):
            self.known |= options
            return
        shapes = [x.shape for x in self.student] if self.term.joint else self.student[0].shape
        classes = {"classes": CLASSES} if self.term.reads_classes else {}
        self.loss = self.known["module"] = self.loss(shapes, shapes, **options, **classes).to(dtype)
        self.weights = [p for p in self.loss.parameters() if p.requires_grad]

    def ours(self) -> tuple[Tensor, Sequence[Tensor]]:
        return self._run(self.loss, {*self.term.facts, *option_names(self.case.term)})

    def plain(self) -> tuple[Tensor, Sequence[Tensor]]:
        loss = PLAIN[self.case.term]
        return self._run(loss, set(inspect.signature(loss).parameters))

    def _run(self, loss: Callable, reads: set[str]) -> tuple[Tensor, Sequence[Tensor]]:
        student = [s.detach().requires_grad_() for s in self.student]
        maps = (student, self.teacher) if self.term.joint else (student[0], self.teacher[0])
        inputs = [*student, *self.weights]
        torch.manual_seed(1)
        value = loss(*maps, **{name: self.known[name] for name in reads & set(self.known)})
        return value.detach(), torch.autograd.grad(value, inputs, allow_unused=True, materialize_grads=True)


def seconds(calls: Sequence[Callable], quick: bool) -> list[float]:
    """The best time of each call. The calls take turns: three rounds and two seconds, but no new round after 20."""
    rounds, spent = [], 0.0
    while not rounds or (not quick and spent < 20 and (len(rounds) < 3 or spent < 2)):
        rounds.append([])
        for call in calls:
            begin = time.perf_counter()
            call()
            rounds[-1].append(time.perf_counter() - begin)
        spent += sum(rounds[-1])
    return [min(taken) for taken in zip(*rounds, strict=True)]


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
    getattr(Step(replace(case, size=16)), which)()  # first calls load code and allocate buffers that stay
    call = getattr(Step(case), which)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = status()
    resource.setrlimit(resource.RLIMIT_AS, (int(before["VmSize"] + limit_gb * 1e9), resource.RLIM_INFINITY))
    try:
        call()
    except RuntimeError as error:
        if "allocate memory" not in str(error):
            raise
        sys.exit(DOES_NOT_FIT)
    print((status()["VmHWM"] - before["VmRSS"]) / 1e6)


def status() -> dict[str, int]:
    """Sizes of this process in bytes."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if words[-1] == "kB"}


Cost = tuple[float, float]  # ms, MB


def costs(case: Case, options: argparse.Namespace) -> tuple[Cost, Cost | None]:
    """Of ours and of the plain form, None where that does not exist or does not fit."""
    mb = [growth(case, which, options) for which in (("ours", "plain") if case.term in PLAIN else ("ours",))]
    step = Step(case)
    calls = [step.ours, step.plain][: sum(each is not None for each in mb)]
    ms = [1e3 * s for s in seconds(calls, options.quick)]
    return (ms[0], mb[0]), (ms[1], mb[1]) if len(ms) > 1 else None


def table_row(case: Case, ours: Cost, plain: Cost | None) -> str:
    cells = [case.term, str(case)]
    for i, digits in enumerate((1, 0)):
        missing = "does not fit" if case.term in PLAIN else "-"
        other = [f"{plain[i]:.{digits}f}", ratio(ours[i], plain[i])] if plain else [missing, "-"]
        cells += [f"{ours[i]:.{digits}f}", *other]
    return f"| {' | '.join(cells)} |"


def ratio(ours: float, plain: float) -> str:
    return f"{ours / plain:.2f}" if plain >= 0.1 else "-"  # below it is noise


def cases(options: argparse.Namespace) -> list[Case]:
    found = [Case(term, options.channels, options.size, options.batch) for term in options.terms]
    others = [replace(case, options=OTHER_OPTIONS[case.term]) for case in found if case.term in OTHER_OPTIONS]
    return found + others + ([Case("cirkd_batch", 64, 128, options.batch)] if options.large else [])


def target(case: Case, ours: Cost, plain: Cost | None) -> str | None:
    """What the term was written to reach, and what it does; None for most."""
    wanted = {
        "ifvd": "less than a tenth of the plain time and memory",
        "skd": f"{case.size} x {case.size} nodes without their matrix" if case.options else None,
        "cirkd_batch": "fits" if case.size >= 128 else None,
    }.get(case.term)
    ratios = " and ".join(map(ratio, ours, plain)) if plain else "none, as the plain form does not fit"
    measured = "{:.0f} ms, {:.0f} MB".format(*ours)
    return wanted and f"target: {case.term} ({case}): {wanted}; measured {measured}, ratios: {ratios}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--terms", nargs="+", default=list(TERMS), choices=list(TERMS), metavar="TERM")
    parser.add_argument("--size", type=int, default=64, help="height and width of features, a multiple of 16")
    parser.add_argument("--channels", type=int, default=512, help="of features, a multiple of 16")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--limit-gb", type=float, default=8, help="plain forms that need more are skipped")
    parser.add_argument("--large", action="store_true", help="also cirkd_batch on 64 x 128 x 128")
    parser.add_argument("--quick", action="store_true", help="small maps, timed once")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.measure:
        which, case = options.measure
        measure(which, Case(**json.loads(case)), options.limit_gb)
        return
    if options.quick:
        options.size, options.channels = 16, 64
    print("| term | map | ours ms | plain ms | ratio | ours MB | plain MB | ratio |")
    print("|---|---|---:|---:|---:|---:|---:|---:|", flush=True)
    targets = []
    for case in cases(options):
        measured = costs(case, options)
        print(table_row(case, *measured), flush=True)
        targets.append(target(case, *measured))
    print("", *filter(None, targets), sep="\n")


if __name__ == "__main__":
    main()
