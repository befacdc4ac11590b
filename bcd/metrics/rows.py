"""Per-image rows of counts: stack them, reduce them to metrics (weighted, for a bootstrap), keep them on disk."""

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from bcd.errors import UserError
from bcd.files import atomic_write

Rows = Mapping[str, np.ndarray]
# What numpy and zipfile raise for a file that is no npz, or one of which bytes have changed.
DAMAGED = (
    OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, NotImplementedError, RuntimeError, struct.error,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip
DEFLATED = 1032  # bytes that deflate can make of one, at most


def stack(counts: Sequence[Rows]) -> dict[str, np.ndarray]:
    """Counts of I images, `{name: (C,)}` each, as rows `{name: (I, C)}`.

    Raises:
        ValueError: no image, or the images' counts have different names or sizes.
    """
    if not counts:
        raise ValueError("no image was evaluated")
    if any(image.keys() != counts[0].keys() for image in counts):
        raise ValueError("the images were counted with different options")
    return {name: np.stack([image[name] for image in counts]) for name in counts[0]}


@overload
def summarise(rows: Rows, weights: None = None) -> dict[str, float]: ...


@overload
def summarise(rows: Rows, weights: np.ndarray) -> dict[str, np.ndarray]: ...


def summarise(rows: Rows, weights: np.ndarray | None = None) -> dict[str, float] | dict[str, np.ndarray]:
    """Metrics of a set of images.

    Metric m of class c is sum over images of `m.num` / sum over images of `m.den`. The metric is the mean over
    the classes whose denominator is not zero, nan if there is none. `aacc` sums over the classes first.

    Args:
        rows: `{name: (I, C)}`, see `image_counts` and `stack`.
        weights: (B, I), how often each image counts in each of B replicates; once each if absent.

    Returns:
        `{metric: value}` in percent, but `frag` in pieces; values are floats, or float64 (B,) with weights.
    """
    totals = {name: _total(values, weights) for name, values in rows.items()}
    metrics: dict[str, np.ndarray] = {}
    for name in totals:
        metric, _, part = name.rpartition(".")
        if part != "num":
            continue
        scale = 1.0 if metric == "frag" else 100.0
        num, den = totals[name], totals[f"{metric}.den"]
        metrics[metric] = scale * _class_mean(_ratio(num, den))
        if metric == "macc":
            metrics["aacc"] = scale * _ratio(num.sum(-1), den.sum(-1))
    if weights is None:
        return {metric: float(value) for metric, value in metrics.items()}
    return metrics


def per_class(rows: Rows, metric: str) -> np.ndarray:
    """A metric of each class over all images, float64 (C,), in percent (`frag`: pieces); nan where undefined."""
    ratio = _ratio(_total(rows[f"{metric}.num"], None), _total(rows[f"{metric}.den"], None))
    return ratio if metric == "frag" else 100.0 * ratio


def save_rows(path: Path, rows: Rows, names: Sequence[str]) -> None:
    """Write rows and the images' names to `path` (npz without pickles); equal input gives equal bytes.

    The file appears complete or not at all.

    Raises:
        UserError: the disk is full or the path cannot be written.
        ValueError: not one name for each image.
    """
    if any(len(values) != len(names) for values in rows.values()):
        raise ValueError(f"{len(names)} names for rows of another number of images")
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {"names": np.array(list(names), dtype=np.str_), **rows}
    # numpy's zip entries carry the constant date 1980-01-01; their order is that of the arguments.
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    atomic_write(path, buffer.getvalue())


def load_rows(path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """Rows and image names as `save_rows` wrote them.

    Raises:
        UserError: the file is missing or damaged, or its arrays are not numbers of as many images as it has names.
    """
    try:
        rows = load_arrays(path)
        names = rows.pop("names", np.zeros(()))
        if names.ndim != 1 or names.dtype.kind != "U":
            raise ValueError("it has no names of images")
        for name, values in rows.items():
            if values.dtype.kind not in "biuf" or values.ndim < 1 or len(values) != len(names):
                raise ValueError(f"'{name}' is {values.dtype} {values.shape} for {len(names)} images")
        return rows, names.tolist()
    except ValueError as error:
        raise UserError(f"evaluation rows {path} cannot be read ({error}); evaluate the run again") from error


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an npz file, of which nothing is unpickled.

    Raises:
        ValueError: the file is missing or damaged, in a few words.
    """
    try:
        with Path(path).open("rb") as file, zipfile.ZipFile(file) as archive:
            return {one.filename.removesuffix(".npy"): _array(archive, one) for one in archive.infolist()}
    except DAMAGED as error:
        raise ValueError(str(error) or type(error).__name__) from error


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """An array of an npz file, of which no more memory is asked than its bytes fill."""
    with archive.open(member) as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError(f"{member.filename} is of another version")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        stated = file.tell() + math.prod(shape) * dtype.itemsize
    if stated != member.file_size or stated > DEFLATED * member.compress_size:
        raise ValueError(f"{member.filename} does not have the size that it states")
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _total(values: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Sum over images, (C,), or weighted sums (B, C); float64, in which counts are exact up to 2**53."""
    values = np.asarray(values, np.float64)
    return values.sum(0) if weights is None else np.asarray(weights, np.float64) @ values


def _ratio(num: np.ndarray, den: np.ndarray) -> np.ndarray:
    return np.divide(num, den, out=np.full(np.shape(den), np.nan), where=np.asarray(den) > 0)


def _class_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is not nan; nan if nothing is left."""
    present = ~np.isnan(values)
    return _ratio(np.where(present, values, 0.0).sum(-1), present.sum(-1))
