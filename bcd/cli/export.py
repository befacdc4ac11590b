"""`bcd export` and `bcd predict`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bcd.cli.options import Suite, load, progress, stopping
from bcd.cli.terminal import put, say
from bcd.errors import UserError, counted, pick
from bcd.runs.spec import RESULTS

if TYPE_CHECKING:
    from bcd.export.finished import Finished
    from bcd.export.predict import Predictor


def export(
    run: Annotated[str, typer.Argument(help="A run's key, or its folder in results/store.")],
    suite: Suite = None,
    format_: Annotated[str, typer.Option("--format", "-f", help="onnx, openvino or executorch.")] = "onnx",
    int8: Annotated[
        bool, typer.Option("--int8", help="Quantise, but for the last convolution and the resize behind it.")
    ] = False,
    int8_all: Annotated[bool, typer.Option("--int8-all", help="Quantise those, too.")] = False,
    dynamic: Annotated[bool, typer.Option("--dynamic", help="Leave height and width of the input open.")] = False,
    opset: Annotated[int | None, typer.Option(min=1, help="Of ONNX.", show_default="20")] = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="File or folder; a name without a suffix, or with / at its end, is a folder, which is made.",
            show_default="exports/<key>[-int8][-dynamic].<suffix>",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
    calibration: Annotated[
        int | None,
        typer.Option(
            min=1, max=10000, help="Training images that int8 is calibrated on.", show_default="64, or all there are"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Draws the calibration images.")] = 0,
) -> None:
    """Write a finished run as one file for another runtime, and a JSON beside it that says how it was made.

    The file is compared with PyTorch on real images before it is written; a float file that differs by more than 0.001
    in a logit is refused. Height and width are those at which the run was evaluated. docs/guides/export.md has more.
    """
    from bcd.export import EXPORTERS

    if int8 and int8_all:
        raise UserError("--int8-all quantises more than --int8; say one of them")
    if not (int8 or int8_all) and (calibration or seed):
        raise UserError("--calibration and --seed are for int8; say --int8 too, or leave them out")
    pick(EXPORTERS, format_, "--format")
    precision: Literal["float32", "int8", "int8-all"] = "int8-all" if int8_all else "int8" if int8 else "float32"
    form = {"format": format_, "precision": precision, "dynamic": dynamic, "calibration": calibration, "seed": seed}
    with stopping("no file is written, the same command begins anew"):
        path = _export(run, suite, form, out, opset, force)
    _say_exported(path)


def _export(
    run: str, suite: str | None, form: dict[str, object], out: str | None, opset: int | None, force: bool
) -> Path:
    from bcd.config.check import check
    from bcd.config.schema.exports import Export
    from bcd.export.place import export_to

    wanted = check(Export, form, f"--format {form['format']}")
    if Path(run).is_file():
        raise UserError(f"{run} is a file; name a run by its key, or by its folder in results/store")
    finished = _finished(run, suite)
    if finished.evaluation.export:
        raise UserError(f"{run} is a file already, {_kept(finished)}; name the run without `@...` to export it anew")
    return export_to(finished, wanted, out, opset=opset, force=force, say=say)


def _say_exported(path: Path) -> None:
    from bcd.export.sidecar import Sidecar, sidecar_path
    from bcd.runs.jsonfile import read_as

    parity = read_as(Sidecar, sidecar_path(path)).parity
    put(f"{path}: {counted(path.stat().st_size, 'byte')}")
    put(f"largest difference to PyTorch {parity.largest:.3g} in a logit; {parity.changed:.4%} of the pixels changed")


def predict(
    model: Annotated[str, typer.Argument(help="An exported file, a run's key, or its folder in results/store.")],
    folder: Annotated[Path, typer.Argument(help="Folder of images.")],
    out: Annotated[Path, typer.Option(help="Folder for what is predicted.")],
    suite: Suite = None,
    force: Annotated[bool, typer.Option("--force", help="Begin anew, whatever the folder holds.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Of an exported file's runtime.")] = None,
) -> None:
    """Apply a model to a folder of images: class maps, or objects as COCO's JSON and their masks, and overlays.

    The same command does what is left: after an interruption, and for images that are new or have changed. Images that
    cannot be read are passed by and named at the end.
    """
    with stopping("images that are done are kept, the same command continues"):
        from bcd.export.predict import predict_folder

        images, new = predict_folder(_predictor(model, suite, threads), folder, out, force=force, progress=progress())
    put(f"{out}: {counted(images, 'image')}" + ("" if new == images else f", {new or 'none'} left to do"))


def _predictor(model: str, suite: str | None, threads: int | None) -> Predictor:
    from bcd.export import predict as predicting
    from bcd.export.runtime import open_file

    path = Path(model)
    if path.is_file() or (path.suffix and not path.is_dir()):  # a key has no suffix
        return predicting.of_file(open_file(path, threads))
    finished = _finished(model, suite)
    if finished.evaluation.export is None:
        return predicting.of_run(finished)
    kept = _kept(finished)
    if not kept.exists():
        raise UserError(f"{model} has no file yet; `bcd train --suite {load(suite)[1].name} {model}` makes it")
    return predicting.of_file(open_file(kept, threads))


def _kept(finished: Finished) -> Path:
    from bcd.export.finished import kept_file

    return kept_file(finished.folder, finished.evaluation)


def _finished(run: str, suite: str | None) -> Finished:
    """The finished run that a key, or a folder of the store, names."""
    from bcd.export import finished
    from bcd.runs import expand

    if Path(run).is_dir():
        from bcd.config.load import load_params

        return finished.of_folder(Path(run), load_params().datasets.right())
    params, wanted = load(suite)
    runs = expand.suite_runs(params, wanted)
    if run not in runs and (other := _made_by(run)):
        raise UserError(f"{run} is a run of the suite {other}, not of {wanted.name}; add `--suite {other}`")
    before = f"there is no file or folder {run}, and "
    return finished.of_run(wanted.name, expand.pick_run(runs, run, wanted.name, before))


def _made_by(run: str) -> str:
    """The first suite that has made a run of that key; '' where none has."""
    kinds = ("runs", "teachers")
    found = (
        place.name for place in sorted(RESULTS.glob("*")) if any((place / k / f"{run}.json").is_file() for k in kinds)
    )
    return next(found, "")
