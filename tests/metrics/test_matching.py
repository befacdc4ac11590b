"""Detection rows, bit by bit, against pycocotools' own loops (`support.coco_reference`)."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as codes
from pycocotools.cocoeval import Params
from support.coco_reference import reference_rows

from bcd.metrics import detection_rows, matching, overlap
from bcd.metrics.detection import KINDS

SIDE = 110
# Compiled pycocotools 2.0.11 hands out arrays in a way that numpy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

# Few places and sizes, so that IoUs are equal; areas on both sides of 32 x 32 and 96 x 96.
BOXES = st.tuples(
    st.sampled_from([0, 4, 8, 12]), st.sampled_from([0, 2]), *2 * [st.sampled_from([24, 32, 32, 33, 95, 96, 97])]
)
OBJECTS = st.tuples(st.integers(0, 2), st.integers(0, 1), BOXES, st.booleans(), st.sampled_from([1, 1, 0.9, 1.1]))
DETECTIONS = st.tuples(st.integers(0, 2), st.integers(0, 2), BOXES, st.sampled_from([0.2, 0.5, 0.5, 0.9]))


def drawn(box, hole):
    inside = np.zeros((SIDE, SIDE), np.uint8, order="F")
    x, y, width, height = box
    inside[y : y + height, x : x + width] = 1
    inside[y + 3 : y + 3 + hole, x + 3 : x + 3 + hole] = 0
    return codes.encode(inside)


def entry(image, category, box, hole=5, **fields):
    return {
        "image_id": image, "category_id": category, "bbox": list(map(float, box)), "segmentation": drawn(box, hole),
        **fields,
    }  # fmt: skip


def dataset(images, categories, annotations):
    return {
        "images": [{"id": image, "height": SIDE, "width": SIDE} for image in images],
        "categories": [{"id": category} for category in categories],
        "annotations": annotations,
    }


def assert_same_rows(truth, results, kinds=KINDS):
    image_ids = [image["id"] for image in truth["images"]]
    rows, expected = (function(truth, results, image_ids, kinds) for function in (detection_rows, reference_rows))
    assert list(rows) == list(expected)
    for name, values in expected.items():
        assert rows[name].dtype == values.dtype, name
        np.testing.assert_array_equal(rows[name], values, err_msg=name, strict=True)
    return rows


@given(st.lists(OBJECTS, max_size=7), st.lists(DETECTIONS, max_size=12), st.permutations([30, 10, 20, 40]))
@settings(max_examples=100, deadline=None)
def test_the_rows_are_those_of_pycocotools(objects, detections, images):
    """Ids start at 0 and repeat; the last image is empty, and the last category has no objects."""
    annotations = [
        entry(images[i], c, box, id=n // 2, area=box[2] * box[3] * share, iscrowd=int(crowd and n % 3 == 0))
        for n, (i, c, box, crowd, share) in enumerate(objects)
    ]
    results = [entry(images[i], c, box, score=score) for i, c, box, score in detections]
    assert_same_rows(dataset(images, (0, 1, 2), annotations), results)


@pytest.mark.parametrize("kind", KINDS)
def test_a_crowded_cell(kind):
    """More than a hundred detections, tied in score and overlap, of objects that are small, large, crowds or twins."""
    draw = np.random.default_rng(0)
    near = [(20 + 2 * int(x), 20, 30 + int(w), 32) for x, w in draw.integers(0, 4, (130, 2))]
    annotations = [
        entry(5, 1, box, id=n, area=float(box[2] * box[3]), iscrowd=n % 7 == 3) for n, box in enumerate(near[:25])
    ]
    results = [entry(5, 1, box, score=float(s)) for box, s in zip(near, draw.integers(1, 4, 130) / 4, strict=True)]
    rows = assert_same_rows(dataset([5, 6], [1, 2], annotations), results, [kind])
    assert rows[f"{kind}.matched"].shape == (2, 100) and np.unique(rows[f"{kind}.matched"]).size > 3


@pytest.mark.parametrize("kind", KINDS)
def test_of_two_objects_overlapped_alike_the_last_is_taken(kind):
    """The better detection lies between them; the other one is the right object itself."""
    boxes = {"left": (10, 10, 32, 32), "right": (14, 10, 32, 32)}
    results = [entry(1, 0, (12, 10, 32, 32), score=0.9), entry(1, 0, boxes["right"], score=0.5)]
    matched = {}
    for order in (("left", "right"), ("right", "left")):
        things = [entry(1, 0, boxes[name], id=n, area=1000.0) for n, name in enumerate(order, 1)]
        matched[order[-1]] = assert_same_rows(dataset([1], [0], things), results, [kind])[f"{kind}.matched"][0]
    assert matched["left"][0] == matched["right"][0] and matched["left"][1] > matched["right"][1]


def test_a_threshold_is_reached_by_an_iou_that_equals_it():
    truth = dataset([1], [0], [entry(1, 0, (10, 10, 32, 32), id=1, area=1000.0)])
    rows = assert_same_rows(truth, [entry(1, 0, (10, 10, 32, 16), score=0.5)], ["box"])
    assert rows["box.matched"][0, 0] & 1


def random_case(images, seed, masks):
    """Objects and detections near them, in cells of up to four of each."""
    draw = np.random.default_rng(seed)
    annotations, results = [], []
    for image in range(images):
        category = int(draw.integers(2))
        for _ in range(draw.integers(0, 4)):
            box = np.concatenate([draw.uniform(0, 40, 2), np.exp(draw.uniform(np.log(8), np.log(60), 2))])
            fields = {"image_id": image, "category_id": category}
            area = float(box[2] * box[3] * draw.uniform(0.6, 1))
            annotations.append({**fields, "bbox": box.tolist(), "area": area, "iscrowd": int(draw.random() < 0.1)})
            for _ in range(draw.integers(0, 3)):
                near = np.maximum(box + draw.normal(0, 0.06, 4) * np.tile(box[2:], 2), [0, 0, 2, 2])
                results.append({**fields, "bbox": near.tolist(), "score": round(float(draw.random()), 2)})
    for n, found in enumerate((annotations, results)):
        for one in found if masks else ():
            x, y, width, height = one["bbox"]
            corners = [x, y, x + width, y + n, x + width, y + height, x + width / 3, y + height]
            one["segmentation"] = codes.merge(codes.frPyObjects([corners], SIDE, SIDE))
    return dataset(range(images), (0, 1), [{**one, "id": n} for n, one in enumerate(annotations)]), results


def test_boxes_of_five_thousand_images():
    rows = assert_same_rows(*random_case(5000, seed=0, masks=False), ["box"])
    assert np.unique(rows["box.matched"]).size > 20


@pytest.mark.parametrize("kind", ["mask", "boundary"])
def test_masks_without_boxes(kind, monkeypatch):
    """A few pairs and pixels at a time, so that cells are cut in two."""
    monkeypatch.setattr(overlap, "PAIRS", 3)
    monkeypatch.setattr(overlap, "PIXELS", 2000)
    truth, results = random_case(150, seed=1, masks=True)
    for one in results:
        del one["bbox"]
    rows = assert_same_rows(truth, results, [kind])
    assert np.unique(rows[f"{kind}.matched"]).size > 10


def test_thresholds_and_areas_are_those_of_pycocotools():
    official = Params("bbox")
    np.testing.assert_array_equal(matching.IOUS, official.iouThrs)
    np.testing.assert_array_equal(matching.AREA_RANGES, official.areaRng)
