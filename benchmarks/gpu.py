"""The parts of `benchmarks/gpu.sh`: what a card has to show that no CPU can.

    python benchmarks/gpu.py PART --out FOLDER [--tiny]

Each part prints lines of JSON, which also go to FOLDER/PART.jsonl, and exits 1 where a number is beyond its bound.

    kernels      the context loss against its definition in float64: forward and backward, odd sizes, masks, precisions
    rate         the context loss at 128 x 128 tokens: share of the measured bfloat16 matrix rate, plain and compiled
    terms        time and memory of every term beside its plain form
    repeatable   what torch says of operators without a deterministic form, by term, and whether two passes agree
    step         a step of PSPNet-R101 to R18 at 512 x 512: bfloat16, channels_last, torch.compile, CUDA graphs, and the
                 share of bcd's terms
    groups       1, 4 and 8 students of one teacher in one process
    smoke        runs of the suite `smoke` on the card against the same on the CPU
    training     a training that is killed in the middle and resumed

On the GPU if there is one, else on the CPU. With --tiny everything is small enough for a CPU in seconds to minutes.
"""

import argparse
import copy
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bcd.distributed import own_device
from bcd.losses.context import context

Row = dict[str, Any]
DEVICE = own_device()
ON_CARD = DEVICE.type == "cuda"
# Of the value, relative, and of the gradient, as a share of its largest element, by the products' precision.
BOUNDS = {torch.float32: (1e-4, 1e-3), torch.bfloat16: (1e-2, 2e-2)}


def wait() -> None:
    if ON_CARD:
        torch.cuda.synchronize()


def milliseconds(call: Callable[[], object], rounds: int) -> float:
    """The fastest of the rounds, after one that is not counted."""
    best = float("inf")
    for measured in range(rounds + 1):
        wait()
        begin = time.perf_counter()
        call()
        wait()
        if measured:
            best = min(best, 1e3 * (time.perf_counter() - begin))
    return round(best, 3)


def peak_mib(call: Callable[[], object]) -> float | None:
    """What the call takes of the card's memory over what is held before; None on a CPU."""
    if not ON_CARD:
        return None
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    return round((torch.cuda.max_memory_allocated() - before) / 2**20, 1)


def attempt(row: Row, measure: Callable[[], Row]) -> Row:
    """The row with what was measured, or with the error in its place: one failure must not hide the rest."""
    try:
        return row | measure()
    except Exception as error:
        return row | {"error": f"{type(error).__name__}: {str(error).splitlines()[0][:300] if str(error) else ''}"}


def defined(student: Tensor, teacher: Tensor, valid: Tensor) -> Tensor:
    """The context loss by its definition, in the maps' precision."""
    total = student.new_zeros(())
    for s, t, mask in zip(student, teacher, valid, strict=True):
        s, t = (F.normalize(x[:, mask], dim=0) for x in (s, t))
        log_s, log_t = (F.log_softmax(x.T @ x / 0.1, dim=1) for x in (s, t))
        total = total + F.kl_div(log_s, log_t, reduction="sum", log_target=True)
    return total / valid.sum().clamp(min=1)


def kernels(tiny: bool) -> Iterator[Row]:
    sizes = [(5, 7), (16, 16)] if tiny else [(5, 7), (30, 31), (64, 64), (65, 97)]
    channels = [(3, 5)] if tiny else [(3, 5), (64, 64), (300, 512)]
    for dtype in BOUNDS:
        for h, w in sizes:
            for c_s, c_t in channels:
                for masked in (False, True):
                    row = {"dtype": str(dtype), "size": [h, w], "channels": [c_s, c_t], "masked": masked}
                    yield attempt(row, lambda a=(dtype, h, w, c_s, c_t, masked): _deviation(*a))


def _deviation(dtype: torch.dtype, h: int, w: int, c_s: int, c_t: int, masked: bool) -> Row:
    g = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, c, h, w, generator=g).to(dtype) for c in (c_s, c_t)]
    valid = torch.rand(2, h, w, generator=g) > (0.3 if masked else -1)
    exact, ours = (x.detach().to(DEVICE) for x in (maps[0].double(), maps[0]))
    exact.requires_grad_()
    ours.requires_grad_()
    expected = defined(exact, maps[1].double().to(DEVICE), valid.to(DEVICE))
    value = context(ours, maps[1].to(DEVICE), valid=valid.to(DEVICE))
    (slope,), (right,) = torch.autograd.grad(value, ours), torch.autograd.grad(expected, exact)
    found = [
        abs(value.item() / expected.item() - 1),
        ((slope.double() - right).abs().max() / right.abs().max()).item(),
    ]
    return {
        "value": found[0],
        "gradient": found[1],
        "ok": all(f <= b for f, b in zip(found, BOUNDS[dtype], strict=True)),
    }


def rate(tiny: bool) -> Iterator[Row]:
    side, tokens, rounds = (256, 16, 2) if tiny else (8192, 128, 10)
    a = torch.randn(side, side, device=DEVICE, dtype=torch.bfloat16)
    per_ms = 2 * side**3 / milliseconds(lambda: a @ a, rounds)
    yield {"matrix_tflops": round(per_ms / 1e9, 1), "tokens": tokens}
    for dtype in (torch.bfloat16, torch.float32):
        for channels in (16,) if tiny else (64, 256, 512):
            student, teacher = (torch.randn(1, channels, tokens, tokens, device=DEVICE, dtype=dtype) for _ in "st")
            student.requires_grad_()
            valid = torch.ones(1, tokens, tokens, dtype=torch.bool, device=DEVICE)

            def measured(loss: Callable[[], Tensor], student: Tensor = student, channels: int = channels) -> Row:
                def both() -> object:
                    return torch.autograd.grad(loss(), student)

                ms = milliseconds(both, rounds)
                share = round(4 * 2 * tokens**4 * channels / ms / per_ms, 4)
                return {"ms": ms, "share_of_matrix_rate": share, "mib": peak_mib(both)}

            forms: dict[str, Callable[[], Tensor]] = {
                "context": lambda s=student, t=teacher: context(s, t),
                "plain": lambda s=student, t=teacher, v=valid: defined(s.float(), t.float(), v),
            }
            if ON_CARD:
                compiled = torch.compile(lambda s, t: defined(s, t, torch.ones_like(s[:, 0], dtype=torch.bool)))
                forms["compiled"] = lambda s=student, t=teacher, c=compiled: c(s, t)
            for name, form in forms.items():
                row = {"form": name, "dtype": str(dtype), "channels": channels}
                yield attempt(row, lambda form=form: measured(form))


def terms(tiny: bool) -> Iterator[Row]:
    from losses import OTHER_OPTIONS, Case, Step
    from plain import PLAIN

    from bcd.losses import TERMS

    channels, size, rounds = (16, 16, 1) if tiny else (512, 64, 5)
    cases = [Case(term, channels, size, 2) for term in TERMS]
    cases += [Case(term, channels, size, 2, options) for term, options in OTHER_OPTIONS.items()]

    def measured(case: Case) -> Row:
        found: Row = {}
        # The plain forms make their tensors where torch makes them by default.
        with torch.device(DEVICE):
            step = Step(case)
            for name in ("ours", "plain") if case.term in PLAIN else ("ours",):
                call = getattr(step, name)
                found |= {f"{name}_ms": milliseconds(call, rounds), f"{name}_mib": peak_mib(call)}
        return found

    for case in cases:
        yield attempt({"term": case.term, "map": str(case)}, lambda case=case: measured(case))


def repeatable(tiny: bool) -> Iterator[Row]:
    from losses import Case, Step

    from bcd.losses import TERMS

    def measured(term: str) -> Row:
        with torch.device(DEVICE), warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            step = Step(Case(term, 16 if tiny else 128, 16 if tiny else 64, 2))
            for module in step.known.values():  # what remembers or learns would differ by design
                if isinstance(module, nn.Module):
                    module.eval()
            (value, slopes), (again, others) = step.ours(), step.ours()
        known = {str(each.message).splitlines()[0][:160] for each in said if "determinis" in str(each.message)}
        same = bool(value == again) and all(map(torch.equal, slopes, others))
        return {"same_bits": same, "says": sorted(known)}

    torch.use_deterministic_algorithms(True, warn_only=True)
    for term in TERMS:
        yield attempt({"term": term}, lambda term=term: measured(term))


class Pair:
    """Teacher, student, bcd's terms and a batch of random images: a step without data and without a recipe."""

    def __init__(self, tiny: bool, precision: str = "f32", channels_last: bool = False, form: str = "eager"):
        from bcd.config.load import load_params
        from bcd.distill.taps import Taps, observe
        from bcd.distill.terms import WeightedTerms
        from bcd.models import build

        params = load_params()
        names = ("smoke-pspnet", "smoke-pspnet") if tiny else ("pspnet-r101", "pspnet-r18")
        side, batch = (64, 2) if tiny else (512, 16)
        torch.manual_seed(0)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.teacher, self.student = (
            build(params.models[name].model_copy(update={"pretrained": "none"}), 19).to(DEVICE, memory_format=layout)
            for name in names
        )
        self.teacher.eval().requires_grad_(False)
        self.image = torch.randn(batch, 3, side, side, device=DEVICE).to(memory_format=layout)
        self.label = torch.randint(19, (batch, side, side), device=DEVICE)
        self.valid = torch.ones_like(self.label, dtype=torch.bool)
        wanted = params.methods["bcd"].terms
        taps = sorted({tap for term in wanted for tap in term.taps})
        models = (self.student, self.teacher)
        paths = [{tap: model.taps[tap] for tap in taps} for model in models]
        one = self.image[:1]
        shapes = [observe(m, p, lambda m=m: m(one)) for m, p in zip(models, paths, strict=True)]
        self.weighted = WeightedTerms(wanted, *shapes, classes=19).to(DEVICE)
        self.taps = [Taps(m, p) for m, p in zip(models, paths, strict=True)]
        self.optimizer = torch.optim.SGD(self.student.parameters(), lr=0.01, momentum=0.9, fused=True)
        self.precision = precision
        self.run_student: Callable[[Tensor], dict[str, Tensor]] = self.student
        self.run_teacher: Callable[[Tensor], dict[str, Tensor]] = self.teacher
        if form != "eager":
            mode = "reduce-overhead" if form == "graphs" else "default"
            self.run_student, self.run_teacher = (torch.compile(model, mode=mode) for model in models)

    def autocast(self) -> torch.autocast:
        return torch.autocast(DEVICE.type, torch.bfloat16, enabled=self.precision == "bf16")

    def forward_teacher(self) -> dict[str, Tensor]:
        with torch.no_grad(), self.autocast():
            self.run_teacher(self.image)
        return self.taps[1].read()

    def forward_student(self) -> tuple[Tensor, dict[str, Tensor]]:
        with self.autocast():
            outputs = self.run_student(self.image)
        loss = sum(F.cross_entropy(x.float(), self.label) for x in outputs.values())
        return loss, self.taps[0].read()

    def distil(self, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> Tensor:
        with self.autocast():
            losses = self.weighted(student, teacher, step=0, total=1, valid=self.valid, label=self.label)
        return sum(losses.values())

    def train(self, teacher: dict[str, Tensor], *, distil: bool = True) -> None:
        loss, student = self.forward_student()
        if distil:
            loss = loss + self.distil(student, teacher)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def step(self, *, distil: bool = True) -> None:
        self.train(self.forward_teacher(), distil=distil)


def step(tiny: bool) -> Iterator[Row]:
    variants = [("f32", False, "eager"), ("bf16", False, "eager"), ("bf16", True, "eager")]
    if ON_CARD:
        variants += [("bf16", True, "compile"), ("bf16", True, "graphs")]
    rounds = 1 if tiny else 5

    def measured(*variant: Any) -> Row:
        pair = Pair(tiny, *variant)
        whole, without = (milliseconds(lambda d=d: pair.step(distil=d), rounds) for d in (True, False))
        return {
            "ms": whole,
            "teacher_ms": milliseconds(pair.forward_teacher, rounds),
            "terms_ms": round(whole - without, 3),
            "terms_share": round((whole - without) / whole, 3),
            "mib": peak_mib(pair.step),
        }

    for variant in variants:
        row = dict(zip(("precision", "channels_last", "form"), variant, strict=True))
        yield attempt(row, lambda variant=variant: measured(*variant))


def groups(tiny: bool) -> Iterator[Row]:
    pair = Pair(tiny, "bf16", True)
    alone = None
    for count in (1, 4, 8):
        others = [copy.deepcopy(pair) for _ in range(count - 1)]

        def together(others: list[Pair] = others) -> None:
            seen = pair.forward_teacher()
            for each in [pair, *others]:
                each.train(seen)

        def measured(count: int = count, together: Callable = together) -> Row:
            ms = milliseconds(together, 1 if tiny else 5)
            return {"ms": ms, "ms_a_student": round(ms / count, 3), "mib": peak_mib(together)}

        row = attempt({"students": count}, measured)
        alone = alone or row.get("ms")
        yield row | ({"of_single_runs": round(row["ms"] / (count * alone), 3)} if alone and "ms" in row else {})


PAIR = "semantic/scenes-smoke/smoke-student-from-smoke-teacher"
TEACHER = "semantic/scenes-smoke/smoke-teacher/none/s0"


def project(folder: Path) -> None:
    """A project with the parameters of this one and the generated dataset of the suite `smoke`."""
    for name in ("params", "bcd"):
        (folder / name).symlink_to(Path(name).resolve())
    bcd(folder, "fetch", "scenes-smoke")


def bcd(folder: Path, *words: str, on_cpu: bool = False) -> None:
    env = os.environ | ({"CUDA_VISIBLE_DEVICES": ""} if on_cpu else {})
    subprocess.run([sys.executable, "-m", "bcd.cli", *words], cwd=folder, env=env, check=True, stdout=sys.stderr)


def smoke(tiny: bool) -> Iterator[Row]:
    methods = ["none", "bcd"] if tiny else ["none", "kd", "cwd", "brd", "bcd", "bckd", "pbd"]
    found: dict[bool, dict[str, dict[str, float]]] = {}
    for on_cpu in (True, False):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            project(folder)
            bcd(folder, "train", "--suite", "smoke", TEACHER, on_cpu=on_cpu)
            bcd(folder, "train", "--suite", "smoke", *[f"{PAIR}/{m}/s0" for m in methods], on_cpu=on_cpu)
            edges = {m: folder / f"results/smoke/runs/{PAIR}/{m}/s0.json" for m in methods}
            found[on_cpu] = {m: json.loads(path.read_text())["metrics"] for m, path in edges.items()}
    for method in methods:
        cpu, card = found[True][method], found[False][method]
        largest = max((abs(card[k] - cpu[k]) for k in cpu if cpu[k] == cpu[k]), default=0.0)
        # Points of percent; two steps of rounding in another order move single pixels of small images.
        yield {"method": method, "largest_difference": largest, "miou": [cpu["miou"], card["miou"]], "ok": largest < 2}


def training(tiny: bool) -> Iterator[Row]:
    steps, kill_after = (60, 0.0) if tiny else (20_000, 60.0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project(folder)
        bcd(folder, "train", "--suite", "smoke", TEACHER)
        settings = [f"recipe.steps={steps}", "recipe.log_every=10"]
        command = [sys.executable, "-m", "bcd.cli", "train", "--suite", "smoke", f"{PAIR}/bckd/s0"]
        command += [word for each in settings for word in ("--set", each)]
        begin = time.perf_counter()
        first = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert first.stdout is not None
        for line in first.stdout:
            print(line, end="", file=sys.stderr)
            if "step " in line and time.perf_counter() - begin > kill_after:
                first.send_signal(signal.SIGTERM)
                break
        for line in first.stdout:
            print(line, end="", file=sys.stderr)
        stopped = first.wait()
        yield {"stopped_with": stopped, "seconds": round(time.perf_counter() - begin, 1), "ok": stopped != 0}
        subprocess.run(command, cwd=folder, check=True, stdout=sys.stderr)
        found = [json.loads(path.read_text()) for path in folder.glob("results/store/*/record.json")]
        record = next(each for each in found if each["steps"] == steps)
        kept = ("steps", "resumes", "step_seconds", "train_seconds", "device", "peak_memory_bytes")
        yield {k: record[k] for k in kept} | {"ok": record["resumes"] == 1}


PARTS = {part.__name__: part for part in (kernels, rate, terms, repeatable, step, groups, smoke, training)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS, metavar="PART")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--tiny", action="store_true", help="small enough for a CPU")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    good = True
    with (options.out / f"{options.part}.jsonl").open("w") as file:
        for row in PARTS[options.part](options.tiny):
            print(json.dumps(row), flush=True)
            print(json.dumps(row), file=file, flush=True)
            good &= row.get("ok", True) and "error" not in row
    sys.exit(not good)


if __name__ == "__main__":
    main()
