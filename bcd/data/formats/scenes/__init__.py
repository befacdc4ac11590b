"""Synthetic street scenes: a small, fully labelled benchmark that needs no download.

Every pixel is labelled, so there is no ignore value. `docs/reference/scenes.md` says what scenes contain and why.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from bcd.data import decode, tree
from bcd.data.formats.scenes.scene import CLASSES, PALETTE, THINGS, Scene, contact_sheet, render
from bcd.data.objects.annotations import Annotation, Instances, load
from bcd.files import writing

__all__ = [
    "CLASSES",
    "PALETTE",
    "THINGS",
    "Scene",
    "annotation_file",
    "coco_annotations",
    "contact_sheet",
    "generate",
    "instances",
    "read_label",
    "render",
    "samples",
]


def generate(
    root: Path,
    *,
    seed: int,
    size: int,
    splits: dict[str, int],
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write `splits` (name to number of scenes) as a dataset of side `size` under directory `root`.

    Files: images/<split>/00000.png (8-bit RGB), labels/<split>/00000.png (8-bit class index),
    instances/<split>/00000.png (16-bit thing id, 0 = stuff) and instances_<split>.json (COCO). Bytes depend
    on the arguments alone. `progress(done, total)` is called after every scene. Raises UserError when the
    disk is full.
    """
    total, done = sum(splits.values()), 0
    for split, count in splits.items():
        folders = {kind: root / kind / split for kind in ("images", "labels", "instances")}
        for folder in folders.values():
            folder.mkdir(parents=True, exist_ok=True)
        annotations: list[Annotation] = []
        for index in range(count):
            scene, name = render(seed, index, size, split=split), f"{index:05d}.png"
            write_png(folders["images"] / name, scene.image[:, :, ::-1])
            write_png(folders["labels"] / name, scene.label)
            write_png(folders["instances"] / name, scene.instance)
            annotations += coco_annotations(scene, image_id=index + 1, first_id=len(annotations) + 1)
            done += 1
            if progress is not None:
                progress(done, total)
        document = {
            "images": [
                {"id": n + 1, "file_name": f"images/{split}/{n:05d}.png", "width": size, "height": size}
                for n in range(count)
            ],
            "categories": [{"id": n, "name": name} for n, name in enumerate(THINGS, start=1)],
            "annotations": annotations,
        }
        path = root / annotation_file(split)
        with writing(path):
            path.write_text(json.dumps(document, sort_keys=True, separators=(",", ":")) + "\n", encoding="utf-8")


def coco_annotations(scene: Scene, *, image_id: int, first_id: int) -> list[Annotation]:
    """COCO annotations of a scene's things: compressed RLE, box (x, y, width, height) and area in pixels."""
    annotations: list[Annotation] = []
    for number, thing in enumerate(scene.things):
        mask = np.asfortranarray(scene.instance == thing["id"], np.uint8)
        code = coco_mask.encode(mask)
        annotations.append(
            {
                "id": first_id + number,
                "image_id": image_id,
                "category_id": THINGS.index(CLASSES[thing["class"]]) + 1,
                "segmentation": {"size": list(mask.shape), "counts": code["counts"].decode("ascii")},
                "bbox": [float(edge) for edge in coco_mask.toBbox(code)],
                "area": int(coco_mask.area(code)),
                "iscrowd": 0,
            }
        )
    return annotations


def write_png(path: Path, image: np.ndarray) -> None:
    """Write an 8- or 16-bit PNG, colour in OpenCV's BGR order; weak compression, for speed."""
    _, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    with writing(path):
        path.write_bytes(data.tobytes())


def samples(files: tree.Tree, split: str) -> list[tree.Sample]:
    """The split's scenes in index order. Raises UserError when a scene lacks its label."""
    found = tree.paired(files, (f"images/{split}/", ".png"), (f"labels/{split}/", ".png"))
    return [replace(sample, name=f"{split}/{sample.name}.png") for sample in found]


def annotation_file(split: str) -> str:
    """Path, below the dataset's folder, of the split's COCO file."""
    return f"instances_{split}.json"


def instances(files: tree.Tree, split: str) -> Instances:
    """The split's COCO file, which names each image by its path; raises UserError for one that was changed."""
    where = annotation_file(split)
    return load(files.read(where), where)


read_label = decode.read_label  # the stored values are the class ids
