"""An exported student in the place of its PyTorch model, so that no metric is written twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

from bcd.config.schema.exports import Export
from bcd.export.build import Options, export
from bcd.export.finished import Finished
from bcd.export.formats import exporter
from bcd.export.runtime import as_model, open_file
from bcd.export.sidecar import Sidecar, sidecar_path
from bcd.models.base import DenseModel
from bcd.runs import store
from bcd.runs.record import ExportFacts, read_as
from bcd.runs.spec import Evaluation, RunSpec, digest

THREADS = 1  # as a training job has, so that jobs do not disturb each other


def exported_model(
    folder: Path, spec: RunSpec, root: Path, evaluation: Evaluation, form: Export, say: Callable[[str], None]
) -> tuple[DenseModel, ExportFacts]:
    """A finished segmentor as a runtime runs it, and what its file is; the file is kept in the run's folder.

    folder: the run's, in the store. root: the folder of its dataset.

    Raises UserError where the format's extra is not installed, and for a file that is not what PyTorch is.
    """
    options = Options(
        format=form.format,
        precision=form.precision,
        dynamic=form.dynamic,
        calibration=form.calibration or None,
        seed=form.seed,
    )
    record = store.record(folder)
    assert record is not None  # its evaluation begins with that
    run = Finished(folder, spec, spec.hash, root, evaluation, record.weights.sha256)
    suffix = exporter(form.format).SUFFIXES[0]
    path = export(run, options, folder / f"export-{digest(form.model_dump())}{suffix}", force=True, say=say)
    sidecar = read_as(Sidecar, sidecar_path(path))
    facts = ExportFacts(
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
    return cast(DenseModel, as_model(open_file(path, THREADS))), facts  # of which evaluation only asks for logits
