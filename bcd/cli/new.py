"""`bcd new`: from a folder of own images to a dataset's entry and a suite."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from bcd.cli.options import load
from bcd.cli.terminal import put, say
from bcd.config.schema.base import TaskName
from bcd.errors import UserError

if TYPE_CHECKING:
    from bcd.data.tree import Tree
    from bcd.scaffold.look import Described

PARAMS = Path("params")


def new(
    data: Annotated[str, typer.Option("--data", metavar="FOLDER", help="Your images with masks or annotations.")],
    task: Annotated[
        str | None, typer.Option(help="semantic, detection or instance; what the folder is for, if not said.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Of the dataset and the suite; else made of the folder's name.")
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="Names of the classes: of masks in the order of their values."),
    ] = None,
    void: Annotated[
        list[str],
        typer.Option(
            metavar="VALUE", help="A value of masks that means nothing, such as 11 or '0 0 0'; may be repeated."
        ),
    ] = [],  # noqa: B006 - typer wants a list
    force: Annotated[bool, typer.Option("--force", help="Replace what an earlier `bcd new` wrote.")] = False,
) -> None:
    """Look at a folder of images, and write a dataset's entry and a suite that trains on it.

    Masks: PNGs of class ids, of 0 and 255, or of colours, in a folder of their own or beside the images. Objects: COCO
    files (of Roboflow, CVAT, Label Studio and so on), or labelme's file of each image. Splits are folders, files or
    lists called train, val and test; without these, chance decides.

    It says what it found, what it chose and why, and what the suite will take. Both files are yours to change.

    bcd new --data photos --task semantic && snakemake --config suite=photos

    bcd new --data CamVid --classes sky,building,pole,road,... --void 11 --name roads
    """
    from bcd.config.load import checked_name, load_params
    from bcd.scaffold import choose, write
    from bcd.scaffold.look import folder_name, tree_of

    folder = Path(data).expanduser()
    called = checked_name(name or folder_name(folder), "--name")
    params = load_params(PARAMS)
    write.require_free(called, PARAMS, force=force)
    say(f"looking at {data}")
    files = tree_of(folder, data)
    wanted = [word.strip() for word in classes.split(",") if word.strip()] if classes else []
    described, tasks, lacking = _described(files, data, wanted, void)
    chosen_task = task or tasks[-1]
    choose.require_task(chosen_task, tasks, described.notes[0], lacking)
    for note in described.notes:
        put(f"found: {note}")
    choice = choose.choose(called, cast(TaskName, chosen_task), described, choose.this_machine(), params)
    for reason in choice.reasons:
        put(f"chosen: {reason}")
    write.write(called, described.entry | choice.entry, choice.suite, data, PARAMS)
    put(f"written: the entry '{called}' at the end of params/datasets.yaml, and {write.suite_file(called, PARAMS)}")
    _say_hours(called)
    put(f"next: bcd fetch {called} looks at every file, and snakemake --config suite={called} does that and the rest")


def _say_hours(suite: str) -> None:
    """What `bcd plan` says of hours and disk; steps that no record knows are timed for it, and kept."""
    from bcd.planning import budget, cost, step_times, survey, timing
    from bcd.runs import expand

    params, wanted = load(suite)
    rows = expand.suite_rows(params, wanted)
    runs = expand.distinct_runs(suite, rows)
    say("timing a few training steps")
    step_times.add(survey.RESULTS, timing.timed(runs, cost.measured(survey.RESULTS)))
    rates = cost.measured(survey.RESULTS)
    for line in budget.report(params, rows, survey.survey(suite, runs, rates), rates, None):
        put(line)


def _described(files: Tree, data: str, classes: list[str], void: list[str]) -> tuple[Described, list[str], str]:
    """What the folder holds, the tasks that it is for, and what it would need for others.

    The last task is the one that it says most for.
    """
    from bcd.scaffold import masks, objects

    if not objects.annotated(files):
        described = masks.describe(files, data, classes, void)
        return described, ["semantic"], "add a COCO file, or labelme's files, of the objects in the images"
    if void:
        raise UserError(f"--void {void[0]}: {data} has objects, and no masks with values; leave it out")
    described = objects.describe(files, data, classes)
    if not (bare := objects.maskless(files, described)):
        return described, ["detection", "instance"], "add a mask of each image, in a folder without annotation files"
    return described, ["detection"], f"mend this: {bare}; draw it, or take it out"
