"""`bcd doctor`: what this machine has, what is missing, and how to get it."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from bcd.errors import UserError
from bcd.runs.provenance import git_trouble

if TYPE_CHECKING:
    from bcd.config.schema.suites import Params

PACKAGES = ("torch", "torchvision", "timm", "numpy", "pandas", "opencv-python-headless", "snakemake", "dvc", "mlflow")
OPTIONAL = {
    "detectron2": "not on the package index: `conda env create -f environment.yml` brings it",
}
TOOLS = {"git": "install it (`apt-get install git`)", "make": "use the commands of the Makefile by hand"}
NEEDED_GB = 10


def report() -> list[str]:
    """Lines of text, one fact each; what needs attention starts with `missing:`, or of params/ with `wrong:`."""
    lines = [f"python {platform.python_version()} on {platform.platform()}"]
    lines += [_package(name) for name in PACKAGES]
    for name, remedy in OPTIONAL.items():
        lines.append(f"{name}: found" if importlib.util.find_spec(name) else f"missing: {name} (optional); {remedy}")
    for name, effect in TOOLS.items():
        lines.append(f"{name}: {found}" if (found := shutil.which(name)) else f"missing: {name}; {effect}")
    if not _home_is_writable():
        lines.append("missing: home; start Snakemake as `XDG_CACHE_HOME=$PWD/.snakemake/cache snakemake`")
    if trouble := git_trouble():
        lines.append(f"missing: commit; {trouble}")
    return lines + _machine() + _params()


def _home_is_writable() -> bool:
    try:
        return os.access(Path.home(), os.W_OK)
    except RuntimeError:  # neither HOME nor an entry of this user
        return False


def _package(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"missing: {name}; run `make reproduce`, which installs requirements.lock"


def _machine() -> list[str]:
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    free = shutil.disk_usage(".").free / 1e9
    lines = [
        f"cores {os.cpu_count()}, torch threads {torch.get_num_threads()}, {torch.backends.cpu.get_cpu_capability()}",
        f"GPU: {', '.join(gpus)}" if gpus else "GPU: none; the suites scenes, camvid-mini and smoke do without",
        f"disk: {free:.0f} GB free here",
    ]
    if free < NEEDED_GB:
        lines.append(f"missing: disk; the environment and the default suite need about {NEEDED_GB} GB")
    return lines


def _params() -> list[str]:
    """Every entry and suite of params/ that is wrong, and the state of the default suite's data."""
    from bcd.config.load import load_params, wrong_entries

    try:
        params = load_params()
    except UserError as error:
        return [f"wrong: {error}"]
    found = [*wrong_entries(params), *_wrong_suites()]
    try:
        lines = _data(params)
    except UserError as error:
        lines = [f"missing: data, which the default suite would name; {error}"]
    return [*(f"wrong: {sentence}" for sentence in found), *lines]


def _wrong_suites() -> list[str]:
    """What is wrong with the file of a suite, a sentence each."""
    from bcd.config.suites import load_suite

    found: dict[str, None] = {}
    for path in sorted(Path("params/suites").glob("*.yaml")):
        try:
            load_suite(path.stem)
        except UserError as error:
            found[str(error)] = None  # suites that are made of a wrong one say the same
    return list(found)


def _data(params: Params) -> list[str]:
    from bcd.config.load import default_suite
    from bcd.config.suites import load_suite
    from bcd.planning import survey
    from bcd.runs import expand

    suite = load_suite(default_suite())
    states = survey.data_state(expand.suite_runs(params, suite))
    lines = [f"data/{files}: {state}" for files, state in states.items()]
    mirror = os.environ.get("BCD_MIRROR")
    if mirror and not Path(mirror).is_dir():
        lines.append(f"missing: BCD_MIRROR={mirror} is no folder; unset it or name one that holds a MANIFEST.csv")
    return lines
