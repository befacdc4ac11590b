# The suite, its runs and groups; and the one hook after a successful build.
import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

from bcd import config as params_files
from bcd import spec
from bcd.errors import UserError

# Jobs call `bcd`, which lies beside this Python whether or not the environment is activated.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

try:
    SUITE = str(config.get("suite") or params_files.default_suite())
    PARAMS = params_files.load_params()
    SUITE_PARAMS = params_files.load_suite(SUITE)
    RUNS = spec.suite_runs(PARAMS, SUITE_PARAMS)
except UserError as error:
    raise WorkflowError(str(error)) from None

GROUPS = spec.groups(RUNS)
TABLES = [table.name for table in SUITE_PARAMS.tables]
OUT = f"results/{SUITE}"


def run_files(runs):
    return [str(spec.run_file(SUITE, run)) for run in runs]


# DVC tracks the same outputs; tell it that they are up to date, unless DVC itself runs this build.
onsuccess:
    if Path(".dvc").exists() and "DVC_STAGE" not in os.environ and "DVC_ROOT" not in os.environ:
        shell("bcd dvc-commit --suite {SUITE}")
