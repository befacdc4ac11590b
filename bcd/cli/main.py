"""`bcd`: thin commands over the library. Heavy imports happen inside the commands that need them."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bcd.cli.compare import compare
from bcd.cli.data import check, fetch
from bcd.cli.export import export, predict
from bcd.cli.new import new
from bcd.cli.options import Suite, load, stopping
from bcd.cli.report import panels, report, summary, tables
from bcd.cli.terminal import put, say
from bcd.errors import UserError, counted

if TYPE_CHECKING:
    from bcd.runs.run import Run

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help=(
        "Benchmark suite for knowledge distillation in dense prediction.\n\n"
        "Usually `snakemake` calls these commands; by hand they do one step of it. Run them in the project's folder. "
        "A suite is a file of params/suites/; without --suite it is the one named in params/suite.yaml."
    ),
)


def _version(wanted: bool) -> None:
    if wanted:
        from bcd import __version__

        print(f"bcd {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


app.command()(new)
app.command()(fetch)
app.command()(check)


@app.command()
def plan(
    suite: Suite = None,
    drop_stale: Annotated[
        bool, typer.Option(help="Forget runs made by older code, so that `snakemake` redoes them.")
    ] = False,
    every_run: Annotated[bool, typer.Option("--all", help="List every run, not only those that need a look.")] = False,
    step_seconds: Annotated[
        list[str],
        typer.Option(
            help="Seconds of a training step at its recipe's batch: MODEL=SECONDS, which wins over measured ones, or "
            "SECONDS for every model that is not measured.",
            metavar="[MODEL=]SECONDS",
        ),
    ] = [],  # noqa: B006 - typer wants a list
    time: Annotated[
        bool, typer.Option("--time", help="Time a few training steps of each kind that no record knows, and keep them.")
    ] = False,
    forward_share: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            show_default="a third",
            help="What a forward pass costs of a training step: the teacher's part.",
        ),
    ] = 1 / 3,
    price: Annotated[float | None, typer.Option(min=0, max=1e9, help="Of a GPU-hour, in any currency.")] = None,
) -> None:
    """What the suite consists of, what is done, and the hours, money and disk that the rest will take.

    States: done; stale (made by older code, kept until you say --drop-stale); changed (params, data or teacher
    differ); stored (trained before, costs an evaluation at most); failed (and why); unfinished; missing.

    Hours come from the step times of like runs in results/store. Where there are none, --time takes a few training
    steps on this machine, with random weights and invented images, and keeps their times for later calls. Or say what
    you know:

    bcd plan --suite coco --step-seconds coco-retinanet-r101=0.9 --step-seconds 0.5 --price 2.50
    """
    from bcd.planning import budget, cost, step_times, timing
    from bcd.planning import survey as planning
    from bcd.runs import expand
    from bcd.runs.resolve import missing_weights
    from bcd.runs.status import Verdict
    from bcd.runs.unfit import require_fit_data, unfit_weights

    params, wanted = load(suite)
    rows = expand.suite_rows(params, wanted)
    runs = expand.distinct_runs(wanted.name, rows)
    require_fit_data(runs.values())
    stated = cost.parse_stated(step_seconds, {run.model for run in runs.values()})
    if time:
        step_times.add(planning.RESULTS, timing.timed(runs, cost.measured(planning.RESULTS)))
    rates = replace(cost.measured(planning.RESULTS), stated=stated, forward_share=forward_share)
    planned = planning.survey(wanted.name, runs, rates)
    if drop_stale:
        for key in planning.drop_stale(planned):
            put(f"dropped {key}")
        planned = planning.survey(wanted.name, runs, rates)
    for files, state in planning.data_state(runs).items():
        put(f"data/{files}: {state}")
    awaited = [one.status.run for one in planned if one.status.verdict in planning.TO_TRAIN]
    for sentence in missing_weights(runs.values()) + unfit_weights(awaited):
        put(sentence)
    for status in (one.status for one in planned):
        if every_run or status.note or status.verdict not in (Verdict.DONE, Verdict.MISSING):
            put(status.line)
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in planning.totals(planned).verdicts.items())
    size = f"{counted(len(planned), 'run')} in {counted(len(expand.groups(runs)), 'job')}"
    put(f"suite {wanted.name}: {size}; {verdicts}\n")
    put("\n".join(budget.report(params, rows, planned, rates, price)))


def settings_of(pairs: list[str]) -> dict[str, object]:
    """The settings of `--set`: path -> value, read as in params files."""
    from bcd.config.yaml_file import parse

    settings: dict[str, object] = {}
    for pair in pairs:
        path, sign, value = pair.partition("=")
        if not sign:
            raise UserError(f"--set {pair}: write PATH=VALUE, such as recipe.lr=0.02 or terms.cwd.weight=3")
        if path in settings:
            raise UserError(f"--set {path}: stands twice; say it once")
        settings[path] = parse(value, f"--set {pair}")
    return settings


@app.command()
def train(
    keys: Annotated[list[str], typer.Argument(help="Run keys of one group, as `bcd plan --all` lists them.")],
    suite: Suite = None,
    set_: Annotated[
        list[str],
        typer.Option(
            "--set", help="Change a parameter for this call: recipe.lr=0.02, terms.cwd.weight=3, model.channels=32."
        ),
    ] = [],  # noqa: B006 - typer wants a list
) -> None:
    """Train and evaluate runs: teachers, or students that share data, teacher and seed (they share the data stream).

    What results/store holds already is not trained again; an interrupted run continues where it was saved. With --set
    the result lies under results/SUITE/overrides/ and the tables do not see it.
    """
    from bcd.runs import expand
    from bcd.runs.resolve import overridden
    from bcd.train import job

    params, wanted = load(suite)
    runs = expand.suite_runs(params, wanted)
    chosen = [expand.pick_run(runs, key, wanted.name) for key in keys]
    if settings := settings_of(set_):
        chosen = [overridden(run, settings) for run in chosen]
    _follow_live(wanted.name, chosen)
    job.run_group(wanted.name, chosen, say)
    for run in chosen if int(os.environ.get("RANK", 0)) == 0 else []:
        put(run.file(wanted.name))


def _follow_live(suite: str, runs: list[Run]) -> None:
    """Start a process beside the training of each long run that shows its curves in MLflow while it lasts."""
    from bcd.train import job

    trained = {run.key_in_pytorch: run for run in runs}  # the forms of a student are one training, and one MLflow run
    for key, run in trained.items():
        if run.runtime.live_tracking and int(os.environ.get("RANK", 0)) == 0:
            folder = job.resolve(suite, run).folder(job.RESULTS)
            command = [sys.executable, "-m", "bcd.cli", "follow", key, str(folder), "--suite", suite]
            subprocess.Popen([*command, "--parent", str(os.getpid())], stdin=subprocess.DEVNULL, start_new_session=True)


@app.command(hidden=True)
def follow(key: str, folder: Path, suite: Suite = None, parent: Annotated[int, typer.Option()] = 0) -> None:
    """Push the history of one training run to MLflow until process PARENT has ended."""
    from bcd.tracking import sync as tracking

    tracking.follow(load(suite)[1].name, key, folder, parent=parent)


@app.command()
def evaluate(key: Annotated[str, typer.Argument(help="Run key of a finished run.")], suite: Suite = None) -> None:
    """Evaluate a finished run again and print its metrics, in percent.

    Where params/models.yaml has `published` numbers of a model that is loaded and not trained, they stand beside; one
    that differs by more than its tolerance is an error.
    """
    from bcd.printing import number_text
    from bcd.runs import expand
    from bcd.runs.published import against_published
    from bcd.train import job

    params, wanted = load(suite)
    run = expand.pick_run(expand.suite_runs(params, wanted), key, wanted.name)
    measured = job.evaluate_finished(wanted.name, run, say)
    width = max(map(len, measured))
    for name, value in measured.items():
        put(f"{name:{width}s}  {number_text(value):>6s}")
    beside = against_published(run, params.models[run.model].published, measured)
    for one in beside:
        put(one.sentence)
    if any(one.beyond for one in beside):
        raise UserError(
            f"{run.key} is not the published model as it was measured: compare the images (mean, std, size, all of the "
            f"split), the classes and the file of '{run.model}' (params/models.yaml)"
        )


app.command()(export)
app.command()(predict)


app.command()(tables)
app.command()(compare)
app.command()(panels)
app.command()(report)
app.command()(summary)


@app.command()
def track(
    suite: Suite = None,
    sync: Annotated[bool, typer.Option("--sync", help="Bring MLflow up to date with the records.")] = False,
    ui: Annotated[bool, typer.Option("--ui", help="Open the MLflow UI on 127.0.0.1.")] = False,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the UI.")] = 5000,
) -> None:
    """Show runs in MLflow. The store is results/mlflow.db unless MLFLOW_TRACKING_URI names another."""
    from bcd.tracking import sync as tracking
    from bcd.tracking import ui as pages

    if not (sync or ui):
        raise UserError("say --sync or --ui")
    params, wanted = load(suite)
    if sync:
        put(tracking.sync(params, wanted, Path("results")))
    if ui:
        with stopping("MLflow's pages are closed, its runs are kept"):
            raise typer.Exit(pages.ui(port, suite=wanted.name))


@app.command()
def doctor() -> None:
    """Versions, hardware, threads and disk; what is missing and how to get it; every wrong entry of params/.

    Other commands say what is wrong with an entry only where they use it. With a wrong one the exit status is 2.
    """
    from bcd.cli.doctor import report

    lines = report()
    for line in lines:
        put(line)
    if wrong := [line.removeprefix("wrong: ") for line in lines if line.startswith("wrong: ")]:
        raise UserError(wrong[0] + (f" (and {len(wrong) - 1} more, above)" if len(wrong) > 1 else ""))


@app.command("dvc-commit", hidden=True)
def dvc_commit(suite: Suite = None) -> None:
    """Tell DVC that the outputs Snakemake has just made are up to date."""
    from bcd.cli.dvc import commit

    commit(load(suite)[1].name)
