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
    from bcd.scaffold import choose, estimate, write
    from bcd.scaffold.look import folder_name, tree_of

    folder = Path(data).expanduser()
    called = checked_name(name or folder_name(folder), "--name")
    params = load_params(PARAMS)
    write.require_free(called, PARAMS, force=force)
    say(f"looking at {data}")
    files = tree_of(folder, data)
    wanted = [word.strip() for word in classes.split(",") if word.strip()] if classes else []
    described, tasks = _described(files, data, wanted, void)
    chosen_task = task or tasks[-1]
    choose.require_task(chosen_task, tasks, described.notes[0])
    for note in described.notes:
        put(f"found: {note}")
    choice = choose.choose(called, cast(TaskName, chosen_task), described, choose.this_machine(), params)
    for reason in choice.reasons:
        put(f"chosen: {reason}")
    write.write(called, described.entry | choice.entry, choice.suite, data, PARAMS)
    put(f"written: the entry '{called}' at the end of params/datasets.yaml, and {write.suite_file(called, PARAMS)}")
    for line in estimate.hours(*load(called)):
        put(line)
    put(f"next: bcd fetch {called} looks at every file, and snakemake --config suite={called} does that and the rest")


def _described(files: Tree, data: str, classes: list[str], void: list[str]) -> tuple[Described, list[str]]:
    """What the folder holds, and the tasks that it is for; the last is the one that it says most for."""
    from bcd.scaffold import masks, objects

    if not objects.annotated(files):
        return masks.describe(files, data, classes, void), ["semantic"]
    if void:
        raise UserError(f"--void {void[0]}: {data} has objects, and no masks with values; leave it out")
    described = objects.describe(files, data, classes)
    return described, ["detection", "instance"] if objects.has_masks(files, described) else ["detection"]
