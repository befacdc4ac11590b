"""A finished run to an exported file: convert, quantise, compare with PyTorch, write."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from bcd.config.schema.data import TRAIN
from bcd.config.schema.exports import Export
from bcd.data.palette import palette_of
from bcd.export import decode, formats, parity
from bcd.export.finished import Finished
from bcd.export.graph import Graph, graph_of
from bcd.export.runtime import Opened, open_bytes
from bcd.export.sidecar import Calibration, Metadata, Sidecar, View, cpu, sidecar_path, toolchain
from bcd.export.view import calibration_images, images_of, inputs, parity_images, view_of
from bcd.files import write_together
from bcd.runs.jsonfile import dump
from bcd.train.trained import load_trained

DECODER = "bcd_decode.py"  # `bcd.export.decode`, beside a detector
Say = Callable[[str], None]


def export(run: Finished, form: Export, path: Path, *, opset: int | None = None, say: Say) -> Path:
    """Write a run as a file of another runtime, its JSON beside it, and return the file's path.

    run: of a model that `bcd.config.exportable` lets pass. path: what is there is replaced. opset: of
    ONNX, None for our default.

    Nothing is written unless the file agrees with PyTorch (`bcd.export.parity`). Raises UserError where the format's
    extra is not installed, and for what docs/guides/export.md lists of opsets, calibration and places.
    """
    exporter = formats.exporter(form.format)
    opset = exporter.default_opset(opset)
    images = images_of(run, TRAIN)
    view = view_of(run, images)
    drawn = calibration_images(images, form.calibration, form.seed) if form.quantised else []
    model, _ = load_trained(run.folder)
    graph = graph_of(model)
    metadata = metadata_of(run, form, view, graph)
    say(f"{path.name}: converting{f', quantising on {len(drawn)} training images' if form.quantised else ''}")
    files, scheme, kept = pack(graph, metadata, opset, inputs(images, view, drawn, (view.height, view.width)))
    say(f"{path.name}: comparing with PyTorch")
    # A job of the suite has one thread, and a runtime would take every core.
    compared = _compare(open_bytes(files, path, form.format, torch.get_num_threads()), graph, run, view)

    written = {path.with_suffix(suffix).name: data for suffix, data in files.items()}
    if graph.decoding is not None:
        written[DECODER] = Path(decode.__file__).read_bytes()
    sidecar = Sidecar(
        metadata=metadata,
        files={name: hashlib.sha256(data).hexdigest() for name, data in written.items()},
        bytes=sum(map(len, files.values())),
        toolchain=toolchain(exporter.PACKAGES),
        opset=opset,
        calibration=Calibration(split=TRAIN, images=len(drawn), seed=form.seed, scheme=scheme, kept=kept)
        if form.quantised
        else None,
        cpu=cpu(),
        parity=compared,
    )
    write_together({path.with_name(name): data for name, data in written.items()} | {sidecar_path(path): dump(sidecar)})
    return path


def pack(
    graph: Graph, metadata: Metadata, opset: int | None, calibrating: Sequence[np.ndarray]
) -> tuple[formats.Files, str, list[str]]:
    """A graph as the bytes of its files; for int8 also the scheme, and the operations left in float.

    opset: of ONNX, None for other formats. calibrating: inputs float32 (1, 3, H, W) that int8 ranges are measured on.
    """
    exporter, view = formats.exporter(metadata.format), metadata.view
    example = np.zeros((1, 3, view.height, view.width), np.float32)
    model, scheme, kept = exporter.convert(graph, example, dynamic=metadata.dynamic, opset=opset), "", list[str]()
    if metadata.precision != "float32":
        model, scheme, kept = exporter.quantise(model, calibrating, everything=metadata.precision == "int8-all")
    return exporter.serialise(model, metadata.model_dump_json()), scheme, kept


def metadata_of(run: Finished, form: Export, view: View, graph: Graph) -> Metadata:
    """What the file says of itself."""
    training = run.spec.training
    return Metadata(
        task=training.task,
        key=run.key,
        run=run.spec.hash,
        weights_sha256=run.weights_sha256,
        model=f"{training.model.backbone} {training.model.head}",
        format=form.format,
        precision=form.precision,
        dynamic=form.dynamic,
        classes=training.data.classes,
        palette=palette_of(training.data).tolist(),
        view=view,
        outputs=list(graph.outputs),
        decoding=graph.decoding,
    )


def _compare(opened: Opened, graph: Graph, run: Finished, view: View) -> parity.Parity:
    """The file against PyTorch on images of the split that the run is evaluated on."""
    images = images_of(run, run.evaluation.split)
    chosen = parity_images(images)
    own = (view.height, view.width)
    sizes = [own, *parity.other_sizes(*own)] if opened.metadata.dynamic else [own]
    shown = [one for size in sizes for one in inputs(images, view, chosen, size)]
    names = [images.read(index)[1] for index in chosen]
    return parity.compare(opened, graph, shown, names, gate=opened.metadata.precision == "float32")
