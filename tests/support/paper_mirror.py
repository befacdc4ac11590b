"""A mirror for the suite `paper-smoke`: links to a mirror of real samples, and small files in the official layout.

Such files are made for the datasets that it lacks: Cityscapes is behind a login, Pascal Context's images are large.

    PYTHONPATH=tests python tests/support/paper_mirror.py --mirror ../shared/mirror --out DIR
    BCD_MIRROR=DIR snakemake --config suite=paper-smoke
"""

import argparse
import csv
import io
from pathlib import Path

import numpy as np
from PIL import Image
from support.dataset_layouts import lines, mat, pack, png

from bcd.data.acquire import mirror
from bcd.data.formats import pascal_context
from bcd.files import sha256_file

COLUMNS = ("archive", "bytes", "sha256", "notes")
NOTE = "made up, in the official layout"
BLOCK = 16  # pixels of one patch of a made-up image
TRAIN, VAL = 4, 3


def patches(rng: np.random.Generator, size: tuple[int, int], values: int) -> tuple[np.ndarray, np.ndarray]:
    """An image uint8 (H, W, 3) of noisy, coloured patches, and the value of each pixel's patch, uint16 (H, W)."""
    rows, columns = (side // BLOCK for side in size)
    label = rng.integers(0, values, (rows, columns)).astype(np.uint16).repeat(BLOCK, 0).repeat(BLOCK, 1)
    colours = rng.integers(32, 224, (values, 3))
    return (colours[label] + rng.integers(-32, 32, (*size, 3))).astype(np.uint8), label


def encoded(image: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return buffer.getvalue()


def cityscapes(rng: np.random.Generator) -> dict[str, dict[str, bytes]]:
    """Archive -> files, with every label id 0..33."""
    images, masks = {}, {}
    for split, count, city in (("train", TRAIN, "aachen"), ("val", VAL, "ulm")):
        for i in range(count):
            image, label = patches(rng, (128, 256), 34)
            frame = f"{split}/{city}/{city}_{i:06}_000019"
            images[f"leftImg8bit/{frame}_leftImg8bit.png"] = encoded(image, "PNG")
            masks[f"gtFine/{frame}_gtFine_labelIds.png"] = png(label)
    folder = "cityscapes"
    return {f"{folder}/leftImg8bit_trainvaltest.zip": images, f"{folder}/gtFine_trainvaltest.zip": masks}


def context(rng: np.random.Generator) -> dict[str, dict[str, bytes]]:
    """Archive -> files, with the labels 0..459."""
    voc = "VOCdevkit/VOC2010"
    names = [f"{number}: {pascal_context.LABELS.get(number, f'other{number}')}" for number in range(1, 460)]
    images, labels = {}, {"labels.txt": lines(*names)}
    for split, first, count in (("train", 0, TRAIN), ("val", TRAIN, VAL)):
        frames = [f"2008_{i:06}" for i in range(first, first + count)]
        images[f"{voc}/ImageSets/Main/{split}.txt"] = lines(*frames)
        for frame in frames:
            image, label = patches(rng, (128, 192), 460)
            images[f"{voc}/JPEGImages/{frame}.jpg"] = encoded(image, "JPEG")
            labels[f"trainval/{frame}.mat"] = mat(LabelMap=label)
    folder = "pascal-context"
    return {f"{folder}/VOCtrainval_03-May-2010.tar": images, f"{folder}/trainval.tar.gz": labels}


def write(real: Path, out: Path) -> None:
    """Make `out` a mirror with everything that `real` lists, by links, and the archives above."""
    out.mkdir(parents=True, exist_ok=True)
    with open(real / mirror.LISTING, newline="", encoding="utf-8") as file:
        rows = [{column: row[column] for column in COLUMNS} for row in csv.DictReader(file)]
    for folder in {Path(row["archive"]).parts[0] for row in rows}:
        link = out / folder
        link.unlink(missing_ok=True)
        link.symlink_to((real / folder).resolve())
    rng = np.random.default_rng(0)
    for name, files in (cityscapes(rng) | context(rng)).items():
        path = out / name
        pack(path, files)
        rows.append({"archive": name, "bytes": path.stat().st_size, "sha256": sha256_file(path), "notes": NOTE})
    with open(out / mirror.LISTING, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mirror", type=Path, required=True, help="mirror of real samples, with a MANIFEST.csv")
    parser.add_argument("--out", type=Path, required=True, help="folder of the mirror to make")
    options = parser.parse_args()
    write(options.mirror, options.out)
