# The suite, its runs and groups; and the one hook after a successful build.
import atexit
import re
import sys
import time
from pathlib import Path
from shlex import quote

from snakemake.exceptions import WorkflowError

from bcd.errors import UserError, nearest
from bcd.files import explained
from bcd.config.load import default_suite, load_params
from bcd.config.suites import load_suite
from bcd.cli.snakemake import (
    free_dead_lock,
    is_main,
    jobs_to_do,
    make_again,
    repeat_failures,
    say_doubts,
    say_end,
    say_log,
)
from bcd.cli.building import Building
from bcd.planning.outdated import outdated
from bcd.report.outputs import panels_request, table_request
from bcd.runs.spec import RESULTS, digest
from bcd.runs.expand import distinct_runs, groups, runs_of, suite_rows
from bcd.runs.resolve import missing_weights
from bcd.runs.unfit import unfit_data, unfit_weights
from bcd.tracking.state import unsynced

# Jobs call `bcd`, which lies beside this Python whether or not the environment is activated.
# Snakemake formats the prefix, so braces in a folder's name are doubled.
BIN = quote(str(Path(sys.executable).parent)).replace("{", "{{").replace("}", "}}")
shell.prefix(f"export PATH={BIN}:$PATH; ")

if unknown := sorted(config.keys() - {"suite"}):
    raise WorkflowError(
        f"--config {unknown[0]}: unknown{nearest(unknown[0], ['suite'])}"
    )

# Snakemake takes 1e3 or 010 for a number.
named = config.get("suite", "")
if not isinstance(named, str) and not Path(f"params/suites/{named}.yaml").exists():
    raise WorkflowError(
        f"--config suite: Snakemake reads this as {named!r} and not as a name; write `suite: 'NAME'`, in quotes, into "
        "params/suite.yaml and leave --config out"
    )

try:
    SUITE = str(config["suite"]) if "suite" in config else default_suite()
    PARAMS = load_params()
    SUITE_PARAMS = load_suite(SUITE)
    ROWS = suite_rows(PARAMS, SUITE_PARAMS)
    RUNS = distinct_runs(SUITE, ROWS)
    TABLE_PARAMS = {t.name: table_request(SUITE_PARAMS, t) for t in SUITE_PARAMS.tables}
    free_dead_lock(workflow)
    OUTDATED = outdated(PARAMS, SUITE_PARAMS, ROWS) if is_main(workflow) else {}
except UserError as error:
    raise WorkflowError(str(error)) from None
except OSError as error:
    raise WorkflowError(explained(error) or str(error)) from None

GROUPS = groups(RUNS)
TABLE_RUNS = {table: runs_of(rows) for table, rows in ROWS.items()}
TABLE_PANELS = {t.name: panels_request(t) for t in SUITE_PARAMS.tables}
OUT = f"results/{SUITE}"
STARTED = time.time()
BUILDING = Building(SUITE)
if is_main(workflow):
    BUILDING.replace_lines(workflow.output_settings)


def rule_name(kind, what):
    """A rule's name; the digest keeps names apart that differ in letters that a rule may not have."""
    plain = re.sub("[^a-z0-9]", "_", f"{kind}_{what}".lower())
    return f"{plain}_{digest(what)[:6]}"


def cores(run):
    """What a training keeps busy: in each process its own threads and its data workers."""
    return max(1, run.runtime.gpus) * (
        run.training.recipe.threads + run.runtime.workers
    )


def run_files(runs):
    return [str(run.file(SUITE)) for run in runs]


# What failed may lie hours and screens above, and Snakemake's own last lines do not say it.
onerror:
    BUILDING.stop()
    atexit.register(repeat_failures, Path(OUT, "logs"), STARTED)


# DVC tracks the same outputs; tell it that they are up to date once everything is.
onsuccess:
    BUILDING.stop()
    say_doubts(SUITE, RUNS.values())
    say_end(SUITE, RUNS.values(), STARTED)
    if unsynced(SUITE, RESULTS):
        say_log(Path(OUT, "logs/track.log"))
    if Path(".dvc").exists() and set(workflow.dag_settings.targets) <= {"all"}:
        shell("bcd dvc-commit --suite {SUITE:q}")
