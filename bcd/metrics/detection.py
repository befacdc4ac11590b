"""COCO matching of detections and objects, kept per image; `bcd.metrics.average_precision` makes metrics of it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import numpy as np

from bcd.errors import UserError
from bcd.metrics.average_precision import AREAS, SUFFIX, THRESHOLDS, bit, summarise_detection
from bcd.metrics.boundary import band_width, boundary

if TYPE_CHECKING:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    from bcd.data.objects.annotations import Annotation, Instances, RunLengths, Segmentation

__all__ = ["KINDS", "MAX_DETECTIONS", "detection_rows", "summarise_detection"]

KINDS = tuple(SUFFIX)
# Of one category in one image.
MAX_DETECTIONS = 100
BOUNDARY_RATIO = 0.02


class Result(TypedDict):
    """A detection in COCO's terms; `bbox` is x, y, width, height."""

    image_id: int
    category_id: int
    score: float
    bbox: NotRequired[Sequence[float]]
    segmentation: NotRequired[Segmentation]


def detection_rows(
    truth: Instances, results: Sequence[Result], image_ids: Sequence[int], kinds: Sequence[str]
) -> dict[str, np.ndarray]:
    """Match detections with objects by the COCO protocol (pycocotools `COCOeval.evaluateImg`).

    Ids of annotations play no part: pycocotools takes an object with id 0 for no match, so objects are numbered
    anew. A detection's area decides whether it is ignored when unmatched. It is that of its box for all kinds, as
    `COCO.loadRes` has it, and that of its mask if it has no box.

    Args:
        truth: COCO instances: images (id, height, width), categories (id), annotations (image_id, category_id, bbox
            xywh, area, iscrowd, segmentation as polygons or run-length code; without masks no segmentation).
        results: COCO results: image_id, category_id, score, bbox xywh and, for masks, a run-length segmentation.
        image_ids: the I images to evaluate, as rows in this order.
        kinds: some of KINDS: IoU of boxes, of masks, or the smaller of mask IoU and Boundary IoU (Cheng et al. 2021,
            dilation ratio 0.02).

    Returns:
        `order` int32 (I,), each image's place by ascending id, in which equal scores are ranked; and for each kind,
        with K categories by ascending id and D the most detections of an image:
        `<kind>.category` int16 (I, D), -1 where there is no detection; `<kind>.score` float64 (I, D), nan there;
        `<kind>.matched` and `<kind>.ignored` int64 (I, D), one bit for each area and IoU threshold, see `bit`;
        `<kind>.positives` int32 (I, K * AREAS), objects to be found.

    Raises:
        UserError: a result or an annotation names an image that is not evaluated or an unknown category, lacks a field
            that a kind needs, is not finite, or has a mask of another size than its image.
        ValueError: no image, an image given twice, or an unknown kind.
    """
    if not len(image_ids) or len(set(image_ids)) != len(image_ids):
        raise ValueError("image_ids must name at least one image, and each once")
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise ValueError(f"unknown kind {unknown[0]!r}; choose from {KINDS}")
    sizes = _sizes(truth, image_ids)
    objects = [annotation for annotation in truth["annotations"] if annotation["image_id"] in sizes]
    categories = {category["id"] for category in truth["categories"]}
    fields = ["bbox" if kind == "box" else "segmentation" for kind in kinds]
    _check("annotation", objects, sizes, categories, ["area", *fields])
    _check("result", results, sizes, categories, ["score", *fields])

    order = np.argsort(np.argsort(image_ids, kind="stable"))
    rows = {"order": order.astype(np.int32)}
    for kind in kinds:
        evaluation = _evaluate(truth, objects, results, list(image_ids), kind)
        rows |= {f"{kind}.{name}": values[order] for name, values in _rows(evaluation).items()}
    return rows


def _sizes(truth: Instances, image_ids: Sequence[int]) -> dict[int, tuple[int, int]]:
    """Height and width of each image to evaluate."""
    known = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    if unknown := [image for image in image_ids if image not in known]:
        raise UserError(f"image {unknown[0]} is not in the annotations; evaluate the split that they describe")
    return {image: known[image] for image in image_ids}


def _check(
    what: str,
    records: Sequence[Mapping[str, Any]],
    sizes: dict[int, tuple[int, int]],
    categories: set[int],
    fields: Sequence[str],
) -> None:
    """Refuse what pycocotools would drop in silence or fail on without naming the record."""
    for number, record in enumerate(records):
        image, category = record["image_id"], record["category_id"]
        name = f"{what} {record.get('id', number)} of image {image}"
        if image not in sizes:
            raise UserError(f"{name}: this image is not evaluated; give the predictions of the evaluated split")
        if category not in categories:
            raise UserError(
                f"{name}: unknown category {category}; evaluate the model on the dataset it was trained for"
            )
        if missing := [field for field in fields if _is_absent(record.get(field))]:
            raise UserError(f"{name} has no {missing[0]}; add it, or evaluate without the kind that needs it")
        box = () if _is_absent(record.get("bbox")) else record["bbox"]
        if not np.isfinite([*box, record.get("score", 0.0)]).all():
            raise UserError(f"{name}: the box or score is not finite; train again with a lower learning rate")
        code = record.get("segmentation")
        if "segmentation" in fields and isinstance(code, dict) and tuple(code["size"]) != sizes[image]:
            height, width = sizes[image]
            raise UserError(f"{name}: the mask is not {height} x {width} px; give masks in the image's own size")


def _is_absent(value: Any) -> bool:
    return value is None or (isinstance(value, (list, tuple, dict)) and not value)


def _evaluate(
    truth: Instances, annotations: Sequence[Annotation], results: Sequence[Result], image_ids: list[int], kind: str
) -> COCOeval:
    """pycocotools' evaluation with its matches per category, area and image, images by ascending id."""
    from pycocotools.cocoeval import COCOeval

    # COCOeval writes into the annotations that it is given, hence the copies.
    objects = [{**o, "id": n, "iscrowd": int(o.get("iscrowd", 0))} for n, o in enumerate(annotations, 1)]
    detections = [{**d, "id": n, "area": _area(d)} for n, d in enumerate(results, 1)]
    # It also reports progress on the standard output.
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(
            _indexed(truth, objects), _indexed(truth, detections), "bbox" if kind == "box" else "segm"
        )
        evaluation.params.imgIds = image_ids
        evaluation.params.maxDets = [MAX_DETECTIONS]
        if kind == "boundary":
            evaluation.computeIoU = partial(_boundary_iou, evaluation)
        evaluation.evaluate()
    return evaluation


def _indexed(truth: Instances, annotations: Sequence[Mapping[str, object]]) -> COCO:
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = {"images": truth["images"], "categories": truth["categories"], "annotations": annotations}
    coco.createIndex()
    return coco


def _area(detection: Result) -> float:
    from pycocotools import mask

    box = detection.get("bbox")
    if box is not None and len(box):
        return box[2] * box[3]
    return float(mask.area(detection["segmentation"]))


def _boundary_iou(evaluation: COCOeval, image: int, category: int) -> np.ndarray | list:
    """min(mask IoU, Boundary IoU) of detections and objects; mask IoU alone with a crowd, as in the official
    bowenc0221/boundary-iou-api `coco_instance_api/cocoeval.py`."""
    from pycocotools import mask
    from pycocotools.cocoeval import COCOeval

    iou = COCOeval.computeIoU(evaluation, image, category)
    if not len(iou):
        return iou
    objects = evaluation._gts[image, category]
    detections = sorted(evaluation._dts[image, category], key=lambda d: -d["score"])[:MAX_DETECTIONS]
    detected, true = ([_band(a["segmentation"]) for a in annotations] for annotations in (detections, objects))
    single = np.array([not o["iscrowd"] for o in objects])
    band_iou = mask.iou(detected, true, [0] * len(objects))
    return np.minimum(iou, band_iou, out=iou, where=single)


def _band(code: RunLengths) -> RunLengths:
    """Run-length code of the boundary of a mask in run-length code."""
    from pycocotools import mask

    x, y, width, height = mask.toBbox(code).astype(int)
    if not width:
        return code
    inside = mask.decode(code)
    box = np.s_[y : y + height, x : x + width]
    # Outside its box there is no mask, and `boundary` takes the outside of the array for that.
    inside[box] = boundary(inside[box], band_width(inside.shape, BOUNDARY_RATIO))
    return mask.encode(inside)


def _rows(evaluation: COCOeval) -> dict[str, np.ndarray]:
    """The rows of one kind, images by ascending id."""
    images, categories = len(evaluation.params.imgIds), len(evaluation.params.catIds)
    # Of each category, area and image: a dict, or None without objects and detections.
    matches = np.array(evaluation.evalImgs, dtype=object).reshape(categories, AREAS, images)
    positives = np.zeros((images, categories, AREAS), np.int32)
    found: list[list[tuple]] = [[] for _ in range(images)]
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


def _bits(flags: Sequence[np.ndarray]) -> np.ndarray:
    """AREAS arrays (THRESHOLDS, n), non-zero where set, as int64 (n,) masks."""
    places = np.array([1 << bit(area, t) for area in range(AREAS) for t in range(THRESHOLDS)])
    return places @ (np.concatenate(flags) != 0)
