"""The rows of `bcd.metrics.detection_rows` by pycocotools' own loops, and Boundary IoU on whole masks."""

import contextlib
import io
from functools import partial

import cv2
import numpy as np
from pycocotools import mask as codes
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from bcd.metrics.average_precision import AREAS, THRESHOLDS, bit
from bcd.metrics.boundary import band_width

DETECTIONS = 100


def reference_rows(truth, results, image_ids, kinds):
    """Objects are numbered from 1, as pycocotools takes an object with id 0 for no match."""
    order = np.argsort(np.argsort(image_ids, kind="stable"))
    rows = {"order": order.astype(np.int32)}
    for kind in kinds:
        evaluation = _evaluated(truth, results, list(image_ids), kind)
        rows |= {f"{kind}.{name}": values[order] for name, values in _rows(evaluation).items()}
    return rows


def _evaluated(truth, results, image_ids, kind):
    objects = [{**o, "id": n, "iscrowd": o.get("iscrowd", 0)} for n, o in enumerate(truth["annotations"], 1)]
    detections = [{**d, "id": n, "area": _area(d)} for n, d in enumerate(results, 1)]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(*(_indexed(truth, entries) for entries in (objects, detections)), "segm")
        evaluation.params.iouType = "bbox" if kind == "box" else "segm"
        evaluation.params.imgIds = image_ids
        evaluation.params.maxDets = [DETECTIONS]
        if kind == "boundary":
            evaluation.computeIoU = partial(_boundary_iou, evaluation)
        evaluation.evaluate()
    return evaluation


def _indexed(truth, annotations):
    coco = COCO()
    coco.dataset = {"images": truth["images"], "categories": truth["categories"], "annotations": annotations}
    coco.createIndex()
    return coco


def _area(detection):
    box = detection.get("bbox")
    return box[2] * box[3] if box is not None and len(box) else float(codes.area(detection["segmentation"]))


def _boundary_iou(evaluation, image, category):
    iou = COCOeval.computeIoU(evaluation, image, category)
    if not len(iou):
        return iou
    objects = evaluation._gts[image, category]
    detections = sorted(evaluation._dts[image, category], key=lambda d: -d["score"])[:DETECTIONS]
    detected, true = ([band(a["segmentation"]) for a in annotations] for annotations in (detections, objects))
    single = np.array([not o["iscrowd"] for o in objects])
    return np.minimum(iou, codes.iou(detected, true, [0] * len(objects)), out=iou, where=single)


def band(code):
    """As Cheng et al. (2021): d erosions of the padded mask by a 3 x 3 square."""
    inside = codes.decode(code)
    padded = cv2.copyMakeBorder(inside, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=band_width(inside.shape, 0.02))
    return codes.encode(np.asfortranarray(inside - eroded[1:-1, 1:-1]))


def _rows(evaluation):
    """Images by ascending id."""
    images, categories = len(evaluation.params.imgIds), len(evaluation.params.catIds)
    # Of each category, area and image: a dict, or None without objects and detections.
    matches = np.array(evaluation.evalImgs, dtype=object).reshape(categories, AREAS, images)
    positives = np.zeros((images, categories, AREAS), np.int32)
    found = [[] for _ in range(images)]
    for k, i in np.argwhere(matches[:, 0].astype(bool)):
        areas = matches[k, :, i]
        positives[i, k] = [np.count_nonzero(area["gtIgnore"] == 0) for area in areas]
        matched, ignored = (_bits([area[name] for area in areas]) for name in ("dtMatches", "dtIgnore"))
        found[i] += zip([k] * len(matched), areas[0]["dtScores"], matched, ignored, strict=True)

    shape = images, max(map(len, found))
    rows = {
        "category": np.full(shape, -1, np.int16),
        "score": np.full(shape, np.nan),
        "matched": np.zeros(shape, np.int64),
        "ignored": np.zeros(shape, np.int64),
    }
    for i, detections in enumerate(found):
        for name, values in zip(rows, zip(*detections, strict=True), strict=False):
            rows[name][i, : len(detections)] = values
    return rows | {"positives": positives.reshape(images, -1)}


def _bits(flags):
    """AREAS arrays (THRESHOLDS, n), non-zero where set, as int64 (n,) masks."""
    places = np.array([1 << bit(area, t) for area in range(AREAS) for t in range(THRESHOLDS)])
    return places @ (np.concatenate(flags) != 0)
