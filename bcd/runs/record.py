"""What a run leaves behind: the full record in the store and the small JSON file that the DAG passes on.

The small file holds nothing that differs between two executions of the same run (no times, no host), so both DAG
engines see equal bytes; those facts live in the record.
"""

from __future__ import annotations

import ast
import hashlib
import os
import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bcd.config.terms import term_sources
from bcd.runs.run import Run

PACKAGE = Path(__file__).parents[1]
# What a training result depends on, apart from the task, the data format and the losses that the run uses.
TRAINING_CODE = ("train/loop.py", "train/learner.py", "distill", "data/decode.py", "data/tree.py", 
                 "data/semantic/stream.py",
                 "models")  # fmt: skip
# Task -> what its training, and what its evaluation, depends on beside that.
TASK_CODE = {
    "semantic": (
        ("tasks/semantic.py", "data/semantic/split.py", "data/semantic/transforms.py"),
        ("tasks/semantic.py", "metrics/boundary.py", "metrics/regions.py", "metrics/rows.py", "metrics/semantic.py"),
    ),
    "detection": (
        ("tasks/detection.py", "models/detection", "data/objects"),
        ("tasks/detection.py", "metrics/boundary.py", "metrics/detection.py", "metrics/average_precision.py"),
    ),
}  # fmt: skip
TASK_CODE["instance"] = TASK_CODE["detection"]
VERSIONS = ("torch", "torchvision", "timm", "numpy", "opencv-python-headless")


def code_fingerprints(run_config: dict[str, Any]) -> dict[str, str]:
    """`{"train", "evaluate"}`: hashes of the code that a run's weights and its metrics are made by.

    Comments, docstrings and formatting do not count; of the losses only those of the run's own terms do.
    """
    sources = term_sources()
    losses = _with_imports(frozenset(sources[t["term"]][0] for t in run_config["terms"]))
    train, evaluate = TASK_CODE[run_config["task"]]
    train = (*TRAINING_CODE, *train, f"data/formats/{run_config['data']['format']}.py", *losses)
    return {"train": _fingerprint(train), "evaluate": _fingerprint(evaluate)}


@cache
def _with_imports(files: frozenset[Path]) -> list[str]:
    """The loss files and those of `bcd/losses/` that they import, directly or not, as paths below the package."""
    found, waiting = set(), set(files)
    while waiting:
        file = waiting.pop()
        found.add(file)
        imports = [n.module for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.ImportFrom)]
        names = [m.removeprefix("bcd.losses.") for m in imports if m and m.startswith("bcd.losses.")]
        waiting |= {PACKAGE / "losses" / f"{name}.py" for name in names} - found
    return sorted(str(file.relative_to(PACKAGE)) for file in found)


@cache
def _fingerprint(parts: tuple[str, ...]) -> str:
    files = [f for part in parts for f in ([PACKAGE / part] if part.endswith(".py") else (PACKAGE / part).glob("*.py"))]
    total = hashlib.sha256()
    for file in sorted(set(files)):
        total.update(str(file.relative_to(PACKAGE)).encode())
        total.update(_meaning(file.read_text()).encode())
    return total.hexdigest()[:16]


def _meaning(source: str) -> str:
    """The syntax tree of a module as text, without docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            node.body = body[1:]
    return ast.dump(tree)


def git_state() -> dict[str, Any]:
    """Commit and whether the tree differs from it; nulls outside a repository."""

    def git(*arguments: str) -> str | None:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, cwd=PACKAGE, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    return {"commit": commit, "dirty": bool(git("status", "--porcelain", "-uno")) if commit else None}


def hardware() -> dict[str, Any]:
    """Processor, cores and, if torch sees one, the GPU."""
    import torch

    names = [line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cpu": names[0] if names else platform.processor(), "cores": os.cpu_count(), "gpu": gpu,
            "cpu_capability": torch.backends.cpu.get_cpu_capability()}  # fmt: skip


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in VERSIONS}}


def finished_record(spec: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    """The record of a finished training: the spec, what the loop reports (`facts`) and the circumstances."""
    return {
        "spec": spec,
        "code": code_fingerprints(spec),
        "git": git_state(),
        "versions": versions(),
        "hardware": hardware(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        **facts,
    }


def run_json(run: Run, spec_hash: str, finished: dict, evaluation: dict, manifest: dict, teacher: dict | None) -> dict:
    """The DAG's edge: what tables and students need to know of a finished run. Equal bytes for equal results."""
    return {
        "key": run.key,
        "task": run.config["task"],
        "dataset": run.dataset,
        "model": run.model_name,
        "method": run.method,
        "repetition": run.repetition,
        "seed": run.config["seed"],
        "fingerprint": run.fingerprint,
        "store": spec_hash,
        "data": manifest,
        "teacher": teacher,
        "pretrained": finished["pretrained"],
        "weights_sha256": finished["weights"]["sha256"],
        "parameters": finished["parameters"],
        "macs": finished["macs"],
        "macs_input": finished["macs_input"],
        "code": {"train": finished["code"]["train"], "evaluate": evaluation["code"]},
        "evaluation": {k: evaluation[k] for k in ("hash", "split", "images", "rows_sha256")},
        "metrics": evaluation["metrics"],
    }
