"""Names of classes, and colours, from the files that tools write beside masks."""

from __future__ import annotations

import csv
import io
import re
from pathlib import PurePosixPath

from bcd.data.tree import Tree

VOID = ("void", "ignore", "ignored", "unlabelled", "unlabeled", "unlabeled area", "don't care", "dontcare")
PLAIN = ("classes.txt", "codes.txt", "labels.txt", "names.txt")
ROW = re.compile(r"\s*(\d+)[\s,]+(\d+)[\s,]+(\d+)\s+(\S.*?)\s*")


def coloured(files: Tree) -> tuple[str, dict[str, str]] | None:
    """The file that says which colour is which class, and colour -> class; None where there is none.

    CVAT's labelmap.txt (`name:r,g,b:...`), a class_dict.csv (columns name, r, g, b), or CamVid's label_colors.txt
    (`r g b name`).
    """
    readers = {"labelmap.txt": _labelmap, "class_dict.csv": _class_dict, "label_colors.txt": _label_colors}
    for path in sorted(files.paths):
        read = readers.get(PurePosixPath(path).name)
        if read and (found := read(files.read(path).decode("utf-8-sig", errors="replace"))):
            return path, found
    return None


def plain(files: Tree) -> tuple[str, list[str]] | None:
    """The file that has the name of one class a line, and the names; None where there is none."""
    for path in sorted(files.paths):
        if PurePosixPath(path).name in PLAIN:
            lines = [line.strip() for line in files.read(path).decode("utf-8-sig", errors="replace").splitlines()]
            if names := [line for line in lines if line]:
                return path, names
    return None


def _labelmap(text: str) -> dict[str, str]:
    rows = [line.split(":") for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return {row[1].replace(",", " "): row[0] for row in rows if len(row) > 1 and re.fullmatch(r"\d+,\d+,\d+", row[1])}


def _class_dict(text: str) -> dict[str, str]:
    rows = [{key.strip().lower(): value.strip() for key, value in row.items() if key and value}
            for row in csv.DictReader(io.StringIO(text))]  # fmt: skip
    return {f"{row['r']} {row['g']} {row['b']}": row["name"] for row in rows if {"name", "r", "g", "b"} <= row.keys()}


def _label_colors(text: str) -> dict[str, str]:
    rows = [ROW.fullmatch(line) for line in text.splitlines()]
    return {" ".join(row.group(1, 2, 3)): row[4] for row in rows if row}
