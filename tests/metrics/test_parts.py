"""The parts of rows: what a metric says of one class, or of one image, is what it says of data that has no others."""

import numpy as np
import pytest

from bcd.metrics import detection_rows, image_counts, per_class, stack, summarise, summarise_detection
from bcd.metrics.parts import TOGETHER, by_class, by_image, class_count, class_metric, rows_of_class

CLASSES, IMAGES = 3, TOGETHER + 5  # more images than are looked at together
same = pytest.approx


@pytest.fixture(scope="module")
def semantic():
    draw = np.random.default_rng(0)
    counts = []
    for _ in range(IMAGES):
        label = np.kron(draw.integers(0, CLASSES, (4, 4)), np.ones((5, 5))).astype(np.uint8)
        noise = draw.integers(0, CLASSES, label.shape)
        counts.append(
            image_counts(np.where(draw.random(label.shape) < 0.3, noise, label).astype(np.uint8), label, classes=4)
        )
    return stack(counts)  # the fourth class is nowhere


@pytest.fixture(scope="module")
def scene():
    """COCO's truth and results: boxes moved a little, some missed, some of another class, with scores that may tie."""
    draw = np.random.default_rng(1)
    truth = {
        "images": [{"id": i, "height": 200, "width": 200} for i in range(IMAGES)],
        "categories": [{"id": k} for k in range(CLASSES + 1)],  # nothing is of the last
        "annotations": [],
    }
    results = []
    for i in range(IMAGES):
        for _ in range(draw.integers(0, 6)):
            side, (x, y) = draw.uniform(10, 120), draw.uniform(0, 80, 2)
            kind = int(draw.integers(CLASSES))
            box = {"image_id": i, "category_id": kind, "bbox": [x, y, side, side]}
            truth["annotations"].append(box | {"area": side * side, "iscrowd": 0})
            if draw.random() < 0.8:
                moved = [x + draw.normal(0, side / 12), y, side, side]
                seen = kind if draw.random() < 0.8 else int(draw.integers(CLASSES))
                results.append(box | {"category_id": seen, "bbox": moved, "score": round(float(draw.random()), 1)})
    return truth, results


def rows_of(truth, results):
    return detection_rows(truth, results, [image["id"] for image in truth["images"]], ("box",))


def only(scene, kind):
    truth, results = scene
    of_kind = [[one for one in some if one["category_id"] == kind] for some in (truth["annotations"], results)]
    return rows_of(truth | {"categories": [{"id": kind}], "annotations": of_kind[0]}, of_kind[1])


def test_classes_are_counted(semantic, scene):
    assert class_count(semantic) == class_count(rows_of(*scene)) == CLASSES + 1


def test_a_class_of_segmentation_is_per_class(semantic):
    found = by_class(summarise, ["miou", "biou", "conn", "frag"], 4)(semantic)
    for metric in ("miou", "biou", "conn", "frag"):
        assert [found[class_metric(metric, k)] for k in range(4)] == same(per_class(semantic, metric), nan_ok=True)
    assert np.isnan(found[class_metric("miou", 3)])


def test_a_class_of_detection_is_that_of_data_without_the_others(scene):
    rows, draw = rows_of(*scene), np.random.default_rng(2)
    weights = draw.multinomial(IMAGES, np.full(IMAGES, 1 / IMAGES), 7)
    metrics = ["ap", "ap50", "ap_s", "ap_l"]
    each, replicates = (by_class(summarise_detection, metrics, CLASSES + 1)(rows, some) for some in (None, weights))
    for kind in range(CLASSES):
        alone = only(scene, kind)
        for metric in metrics:
            at = class_metric(metric, kind)
            assert each[at] == same(summarise_detection(alone)[metric], nan_ok=True)
            assert replicates[at] == same(summarise_detection(alone, weights)[metric], nan_ok=True)
    assert np.isnan(each[class_metric("ap", CLASSES)])
    assert 0 < summarise_detection(rows)["ap"] == same(np.mean([each[class_metric("ap", k)] for k in range(CLASSES)]))


def test_no_detection_of_a_class_is_an_ap_of_0(scene):
    truth, results = scene
    rows = rows_of(truth, [one for one in results if one["category_id"] != 1])
    assert rows_of_class(rows, 1)["box.score"].shape == (IMAGES, 0)
    assert summarise_detection(rows_of_class(rows, 1))["ap"] == 0


@pytest.mark.parametrize("metric", ["miou", "aacc", "conn", "frag"])
def test_an_image_of_segmentation_by_itself(semantic, metric):
    alone = [summarise({name: values[[i]] for name, values in semantic.items()})[metric] for i in range(IMAGES)]
    assert by_image(summarise, metric, semantic) == same(np.array(alone), nan_ok=True)


def test_an_image_of_detection_by_itself(scene):
    truth, results = scene
    found = by_image(summarise_detection, "ap50", rows_of(truth, results))
    for i in (0, 3, TOGETHER, IMAGES - 1):
        own = [[one for one in some if one["image_id"] == i] for some in (truth["annotations"], results)]
        alone = rows_of(truth | {"images": truth["images"][i : i + 1], "annotations": own[0]}, own[1])
        assert found[i] == same(summarise_detection(alone)["ap50"], nan_ok=True)
    assert np.isnan(found).any() and np.isfinite(found).any()  # some have no object
