"""Small datasets in their official layouts: files, archives, and a mirror of them that `bcd fetch` can use."""

import csv
import hashlib
import io
import tarfile
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat
from support.project import ROOT

from bcd.config.load import load_params
from bcd.config.schema.data import Dataset, DataUse
from bcd.data import tree
from bcd.data.acquire.look import Look
from bcd.data.acquire.manifest import Manifest
from bcd.data.acquire.obtain import obtain
from bcd.data.semantic.split import Split, open_split

REAL = ROOT.parent / "shared" / "mirror"
SIZE = (6, 8)  # height, width of every image


def png(label: np.ndarray, palette: bool = False) -> bytes:
    """A uint8 (H, W) label map as a grey or a palette image."""
    image, buffer = Image.fromarray(label.astype(np.uint8)), io.BytesIO()
    if palette:
        image.putpalette(list(range(256)) * 3)
    image.save(buffer, "PNG")
    return buffer.getvalue()


def photo(format: str = "JPEG", size: tuple[int, int] = SIZE) -> bytes:
    """A grey image."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((*size, 3), 127, np.uint8)).save(buffer, format)
    return buffer.getvalue()


def mat(**variables) -> bytes:
    """A MATLAB file with these variables; a dict is a struct."""
    buffer = io.BytesIO()
    savemat(buffer, variables, do_compression=True)
    return buffer.getvalue()


def spread(*values: int) -> np.ndarray:
    """A label map of SIZE with these stored values, each at least once: uint16."""
    return np.resize(np.array(values, np.uint16), SIZE)


def lines(*names: str) -> bytes:
    return "".join(f"{name}\n" for name in names).encode()


def pack(path: Path, files: dict[str, bytes]) -> None:
    """Write an archive of the kind that its suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return
    with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def write_mirror(folder: Path, archives: dict[str, dict[str, bytes]]) -> Path:
    """A mirror with these archives (path below it -> their files)."""
    rows = []
    for name, files in archives.items():
        pack(folder / name, files)
        data = (folder / name).read_bytes()
        rows.append([name, len(data), hashlib.sha256(data).hexdigest(), "made for a test"])
    with open(folder / "MANIFEST.csv", "w", newline="") as file:
        csv.writer(file).writerows([["archive", "bytes", "sha256", "notes"], *rows])
    return folder


@cache
def params(name: str) -> Dataset:
    return load_params(ROOT / "params").datasets[name]


def look_of(reader) -> Look:
    """A look at the splits of a format, without one at their images."""

    def facts(root, files):
        return tree.split_facts(tree.listed_in(root, files, root.name), files, reader=reader, splits=reader.SPLITS)

    return Look(facts)


def get(name: str, root: Path, mirror: Path | None) -> Manifest:
    """What `bcd fetch NAME --mirror DIR` does, with the project's params; without a mirror when it is None."""
    return obtain(name, params(name), root, mirror_dir=mirror)


def opened(name: str, root: Path, split: str) -> Split:
    """The split as training reads it, which compares files with the manifest and labels with images and classes."""
    return open_split(root, used(params(name)), split)


def used(dataset: Dataset, **changes) -> DataUse:
    """What a segmentor's run states of a dataset, with some fields changed."""
    stated = {name: getattr(dataset, name) for name in DataUse.model_fields if name != "skip_annotations"}
    return DataUse(**stated | changes)


def data_use(data_format: str, classes: list[str], **changes) -> DataUse:
    """What a run states of a dataset that is made for a test."""
    rest = {"splits": {"train": 1}, "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}
    return DataUse(**{"format": data_format, "classes": classes, **rest, **changes})
