"""An exported student in the place of its PyTorch model, so that no metric is written twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from bcd.config.schema.data import TRAIN
from bcd.config.schema.exports import CALIBRATION, Export
from bcd.export.build import export
from bcd.export.finished import Finished, kept_file
from bcd.export.graph import graph_of
from bcd.export.latency import beside_pytorch
from bcd.export.runtime import Opened, open_file
from bcd.export.sidecar import Sidecar, sidecar_path
from bcd.export.standin import stand_in
from bcd.export.view import images_of, inputs
from bcd.models.base import DenseModel
from bcd.runs import store
from bcd.runs.jsonfile import read_as
from bcd.runs.record import ExportFacts, Latency
from bcd.runs.spec import Evaluation, RunSpec
from bcd.train.trained import load_trained

THREADS = 1  # as a training job has, so that jobs do not disturb each other


@dataclass(frozen=True)
class Exported:
    """A finished run as a runtime runs it, what its file is, and what it costs; evaluation asks no more of `model`."""

    model: DenseModel
    facts: ExportFacts
    latency: Latency


def exported(
    folder: Path, spec: RunSpec, root: Path, evaluation: Evaluation, form: Export, say: Callable[[str], None]
) -> Exported:
    """Export a finished run, and open what was written; the file is kept in the run's folder.

    folder: the run's, in the store. root: the folder of its dataset.

    Raises UserError where the format's extra is not installed, and for a file that is not what PyTorch is.
    """
    record = store.record(folder)
    assert record is not None  # its evaluation begins with that
    run = Finished(folder, spec, spec.hash, root, evaluation, record.weights.sha256)
    if form.quantised:  # a form serves every dataset of params/, and a small one has fewer training images
        count = min(form.calibration or CALIBRATION, images_of(run, TRAIN).count)
        form = form.model_copy(update={"calibration": count})
    path = export(run, form, kept_file(folder, evaluation), say=say)
    opened = open_file(path, THREADS)
    return Exported(
        cast(DenseModel, stand_in(opened)), _facts(read_as(Sidecar, sidecar_path(path))), _latency(run, opened)
    )


def _facts(sidecar: Sidecar) -> ExportFacts:
    return ExportFacts(
        files=sidecar.files,
        bytes=sidecar.bytes,
        toolchain=sidecar.toolchain,
        opset=sidecar.opset,
        cpu_flags=sidecar.cpu.flags,
        calibration=sidecar.calibration.images if sidecar.calibration else 0,
        scheme=sidecar.calibration.scheme if sidecar.calibration else "",
        largest=sidecar.parity.largest,
        changed=sidecar.parity.changed,
    )


def _latency(run: Finished, opened: Opened) -> Latency:
    """Of the first image that is evaluated."""
    view = opened.metadata.view
    (image,) = inputs(images_of(run, run.evaluation.split), view, [0], (view.height, view.width))
    model, _ = load_trained(run.folder)
    return beside_pytorch(opened, graph_of(model), image)
