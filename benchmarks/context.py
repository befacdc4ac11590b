"""Time and memory of the context loss beside its plain form and beside nothing but the products it is made of.

    python benchmarks/context.py [--tokens 32 64 128] [--channels 64 128 256 512] [--quick | --onednn]

For maps of tokens x tokens pixels, one image, float32, forward and backward:

    plain      the definition, with whole relation matrices
    products   the four matrix products of the formula, S_s, S_t, G f and G^T f, tile by tile and without anything else,
               in the tiles of the loss and in larger ones, which suit products alone better
    taken      the products the loss takes in their stead: as S is symmetric, the two halves of S_s and S_t (twice where
               tiles are not kept) and one product of the symmetric slope with f

All run in turn, round by round, and the fastest round of each counts. The memory is the growth of the peak resident set
over the inputs, in a fresh process per figure. Where there is a GPU, a second table has its bfloat16 speed.
With `--quick`, which leaves out what takes long, some five minutes on a busy machine.

With `--onednn` nothing but the loss as it is beside the loss with oneDNN's products at a precision that oneDNN may
choose, which is a setting of the whole process: time, and the error of the gradient against float64.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import combinations_with_replacement
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from bcd.losses.context import context
from bcd.losses.context_tiled import KEPT_RELATIONS, SIDE

TEMPERATURE = 0.1
LARGER_SIDE = 384
# Freed memory goes back to the system at once, so that the peak is what was held together.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}


def plain(student: Tensor, teacher: Tensor) -> Tensor:
    """The definition, all pixels valid."""
    total = student.new_zeros(())
    for maps in zip(student, teacher, strict=True):
        s, t = (F.normalize(x.flatten(1), dim=0) for x in maps)
        log_s, log_t = (F.log_softmax(x.T @ x / TEMPERATURE, dim=1) for x in (s, t))
        total = total + F.kl_div(log_s, log_t, reduction="sum", log_target=True)
    return total / student[:, 0].numel()


def inputs(batch: int, channels: int, tokens: int, **options) -> tuple[Tensor, Tensor]:
    generator = torch.Generator(options.get("device", "cpu")).manual_seed(0)
    student, teacher = (torch.randn(batch, channels, tokens, tokens, generator=generator, **options) for _ in "st")
    return student.requires_grad_(), teacher


def step(loss: Callable, student: Tensor, teacher: Tensor) -> Tensor:
    return torch.autograd.grad(loss(student, teacher), student)[0]


def products(s: Tensor, t: Tensor, side: int = SIDE) -> None:
    """The four products, on tiles of `side` relations a side."""
    room, gradient = s.new_empty(2, side, side), torch.zeros_like(s)
    s_of, t_of, gradient_of = s.split(side), t.split(side), gradient.split(side)
    for i in range(len(s_of)):
        for j in range(len(s_of)):
            of_s, of_t = room[:, : len(s_of[i]), : len(s_of[j])]
            torch.mm(s_of[i], s_of[j].T, out=of_s)
            torch.mm(t_of[i], t_of[j].T, out=of_t)
            gradient_of[i].addmm_(of_s, s_of[j])
            gradient_of[j].addmm_(of_s.T, s_of[i])


def products_taken(s: Tensor, t: Tensor) -> None:
    """Those that are left of the four when symmetry is used."""
    room, gradient = s.new_empty(2, SIDE, SIDE), torch.zeros_like(s)
    s_of, t_of, gradient_of = s.split(SIDE), t.split(SIDE), gradient.split(SIDE)
    for last in (True,) if len(s) ** 2 <= KEPT_RELATIONS else (False, True):
        for i, j in combinations_with_replacement(range(len(s_of)), 2):
            of_s, of_t = room[:, : len(s_of[i]), : len(s_of[j])]
            torch.mm(s_of[i], s_of[j].T, out=of_s)
            torch.mm(t_of[i], t_of[j].T, out=of_t)
            if last:
                gradient_of[i].addmm_(of_s, s_of[j])
            if last and j > i:
                gradient_of[j].addmm_(of_s.T, s_of[i])


def fastest(contenders: dict[str, Callable], seconds: float) -> dict[str, float]:
    """Milliseconds of the fastest of at least three rounds, more while they fit into `seconds`."""
    best, rounds, start = dict.fromkeys(contenders, float("inf")), 0, time.perf_counter()
    while rounds < 3 or time.perf_counter() - start < seconds:
        for name, run in contenders.items():
            before = time.perf_counter()
            run()
            best[name] = min(best[name], 1e3 * (time.perf_counter() - before))
        rounds += 1
    return best


def status_mib(field: str) -> float:
    return int(re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)[1]) / 1024


def print_growth(name: str, batch: int, channels: int, tokens: int) -> None:
    """Prints the growth of this process's peak resident set, in MiB, over the inputs of one step."""
    loss = {"plain": plain, "context": context}[name]
    step(loss, *inputs(1, channels, 16))  # libraries load, threads start
    maps = inputs(batch, channels, tokens)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = status_mib("VmRSS")
    step(loss, *maps)
    print(status_mib("VmHWM") - before)


def growth(*case: str | int) -> float:
    command = [sys.executable, __file__, "--growth", *map(str, case)]
    return float(subprocess.run(command, env=os.environ | ALLOCATOR, capture_output=True, check=True, text=True).stdout)


def cpu_rows(tokens: int, channels: int, threads: list[int], seconds: float, with_plain: bool) -> None:
    student, teacher = inputs(1, channels, tokens)
    s, t = (F.normalize(x.detach()[0].flatten(1).T.contiguous(), dim=1) for x in (student, teacher))
    contenders = {
        "context": lambda: step(context, student, teacher),
        "products": lambda: products(s, t),
        "larger": lambda: products(s, t, LARGER_SIDE),
        "taken": lambda: products_taken(s, t),
    }
    held, plain_held = growth("context", 1, channels, tokens), float("nan")
    if with_plain:
        contenders["plain"] = lambda: step(plain, student, teacher)
        plain_held = growth("plain", 1, channels, tokens)
    for count in threads:
        torch.set_num_threads(count)
        ms = {"plain": float("nan")} | fastest(contenders, seconds)
        cells = [f"{tokens} x {tokens}", channels, count]
        cells += [f"{ms[name]:.1f}" for name in ("context", "plain", "products", "larger", "taken")]
        cells += [f"{ms['plain'] / ms['context']:.1f}"]
        cells += [f"{ms['context'] / ms[name]:.2f}" for name in ("products", "larger")]
        cells += [f"{held:.0f}", f"{plain_held:.0f}", f"{100 * held / plain_held:.1f}"]
        print("|", " | ".join(map(str, cells)), "|", flush=True)


def gradient(student: Tensor, teacher: Tensor, onednn: bool) -> Tensor:
    """The gradient of the loss, with MKL's products or with those that oneDNN takes where bfloat16 is allowed."""
    setting = torch.backends.mkldnn.matmul
    before, setting.fp32_precision = setting.fp32_precision, "bf16" if onednn else "ieee"
    try:
        return step(context, student, teacher)
    finally:
        setting.fp32_precision = before


def onednn_table(tokens: list[int], channels: list[int], seconds: float) -> None:
    torch.set_num_threads(1)
    print("| tokens | channels | loss ms | with oneDNN ms | ratio | error of the gradient | with oneDNN |")
    print("|---|---|---|---|---|---|---|")
    for side in tokens:
        for c in channels:
            maps = inputs(1, c, side)
            exact = gradient(*(x.detach().double().requires_grad_(x.requires_grad) for x in maps), onednn=False)
            errors = [((gradient(*maps, onednn) - exact).abs().max() / exact.abs().max()).item() for onednn in (0, 1)]
            plain, other = fastest(
                {str(onednn): partial(gradient, *maps, onednn) for onednn in (False, True)}, seconds
            ).values()
            cells = [f"{side} x {side}", c, f"{plain:.1f}", f"{other:.1f}", f"{other / plain:.2f}"]
            print("|", " | ".join(map(str, [*cells, *(f"{error:.1e}" for error in errors)])), "|", flush=True)


def gpu_ms(run: Callable, rounds: int = 10) -> float:
    run()
    best = float("inf")
    for _ in range(rounds):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in "ab")
        start.record()
        run()
        stop.record()
        stop.synchronize()
        best = min(best, start.elapsed_time(stop))
    return best


def gpu_table(tokens: list[int], channels: list[int]) -> None:
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    rate = 2 * 8192**3 / gpu_ms(lambda: a @ a)
    print(f"\n{torch.cuda.get_device_name()}, bfloat16; its matrix product runs at {rate / 1e9:.0f} TFLOP/s\n")
    print("| tokens | channels | context ms | of that rate, four products counted, % | MiB |\n|---|---|---|---|---|")
    for side in tokens:
        for c in channels:
            maps = inputs(1, c, side, device="cuda", dtype=torch.bfloat16)
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            ms = gpu_ms(lambda maps=maps: step(context, *maps))
            share = 4 * 2 * side**4 * c / ms / rate
            mib = (torch.cuda.max_memory_allocated() - before) / 2**20
            print(f"| {side} x {side} | {c} | {ms:.2f} | {100 * share:.0f} | {mib:.0f} |", flush=True)


def cpu_table(tokens: list[int], channels: list[int], seconds: float) -> None:
    threads = sorted({1, torch.get_num_threads()})
    print(
        f"| tokens | channels | threads | context ms | plain ms | products ms | the same in tiles of {LARGER_SIDE} ",
        end="",
    )
    print("| taken ms | plain / context | context / products ", end="")
    print(f"| context / products in tiles of {LARGER_SIDE} | context MiB | plain MiB | % |\n|" + "---|" * 14)
    for side in tokens:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        with_plain = 10 * 4 * side**4 < free  # ten relation matrices
        for c in channels:
            cpu_rows(side, c, threads, seconds, with_plain)
    if 128 in tokens:
        held = [f"{growth('context', 2, c, 128):.0f} MiB with {c} channels" for c in channels]
        print(f"\n128 x 128 tokens, two images: {', '.join(held)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--channels", type=int, nargs="+", default=[64, 128, 256, 512])
    parser.add_argument("--quick", action="store_true", help="no 128 x 128 tokens, fewer rounds")
    parser.add_argument("--onednn", action="store_true", help="the loss with oneDNN's products, and nothing else")
    parser.add_argument("--growth", nargs=4, help=argparse.SUPPRESS)  # how this script calls itself
    options = parser.parse_args()
    tokens = [side for side in options.tokens if side < 128 or not options.quick]
    if options.growth:
        print_growth(options.growth[0], *map(int, options.growth[1:]))
    elif options.onednn:
        onednn_table(tokens, options.channels, 10)
    else:
        cpu_table(tokens, options.channels, 1 if options.quick else 10)
        if torch.cuda.is_available():
            gpu_table(tokens, options.channels)


if __name__ == "__main__":
    main()
