"""Our metrics against numbers that the public implementations produced (source and commit in each file's meta)."""

import json
import math

import numpy as np
import pytest
from support.project import SHARED

from bcd import metrics
from bcd.metrics.boundary import band_width, contour, precision_recall

GOLDEN = SHARED / "golden"
pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason="golden data (../shared/golden) not here")


def golden(name):
    arrays = dict(np.load(GOLDEN / f"{name}.npz"))
    meta = json.loads(arrays.pop("meta").item())
    return arrays, meta["hyper"], meta["results"]


def numbers(values):
    return np.array([math.nan if value is None else value for value in values])


def unpacked(bits, width):
    return np.unpackbits(bits, axis=-1, count=width).astype(bool)


def radius_of(threshold, shape):
    return int(threshold) if threshold >= 1 else math.ceil(threshold * math.hypot(*shape))


def rows_of(arrays, classes, **options):
    options = metrics.MetricOptions(**options)
    return metrics.stack(
        [
            metrics.image_counts(pred, gt, classes=classes, options=options)
            for pred, gt in zip(arrays["pred"], arrays["gt"], strict=True)
        ]
    )


@pytest.mark.parametrize("name", ["miou_cs19", "miou_absent"])
def test_miou(name):
    arrays, hyper, results = golden(name)
    rows = rows_of(arrays, hyper["num_classes"])
    inter, union, label = (rows[key].sum(0) for key in ("miou.num", "miou.den", "macc.den"))
    np.testing.assert_array_equal(inter, arrays["area_intersect"])
    np.testing.assert_array_equal(union, arrays["area_union"])
    np.testing.assert_array_equal(label, arrays["area_label"])
    np.testing.assert_array_equal(union - label + inter, arrays["area_pred"])

    values, per_class = metrics.summarise(rows), metrics.per_class(rows, "miou")
    for release, tolerance in (("mmseg0.30", 1e-11), ("mmseg1.2.2", 1e-6)):
        official = results[release]
        iou, acc = numbers(official["IoU"]), numbers(official["Acc"])
        np.testing.assert_allclose(per_class / 100, iou, rtol=tolerance)
        np.testing.assert_allclose(values["miou"] / 100, np.nanmean(iou), rtol=tolerance)
        np.testing.assert_allclose(values["macc"] / 100, np.nanmean(acc), rtol=tolerance)
        np.testing.assert_allclose(values["aacc"] / 100, official["aAcc"], rtol=tolerance)
        precision, recall = numbers(official["Precision"]), numbers(official["Recall"])
        with np.errstate(invalid="ignore"):
            np.testing.assert_allclose(inter / (union - label + inter), precision, rtol=tolerance)
            np.testing.assert_allclose(inter / label, recall, rtol=tolerance)
            np.testing.assert_allclose(2 * inter / (union + inter), numbers(official["Dice"]), rtol=tolerance)
    for metric, printed in (("miou", "mIoU"), ("macc", "mAcc"), ("aacc", "aAcc")):
        assert round(values[metric], 2) == pytest.approx(results["mmseg1.2.2_summary_percent"][printed], abs=1e-4)

    cirkd = results["cirkd_hist"]
    assert values["miou"] / 100 == pytest.approx(cirkd["mIoU"], abs=1e-9)
    assert values["aacc"] / 100 == pytest.approx(cirkd["pixAcc"], abs=1e-9)
    assert np.nanmean(per_class[1:]) / 100 == pytest.approx(cirkd["mIoU_no_back"], abs=1e-9)
    # CIRKD's other class scores absent classes 0 where we skip them; its own smoothing costs the last digits.
    skipped_as_zero = np.nan_to_num(per_class).mean() / 100
    assert skipped_as_zero == pytest.approx(results["cirkd_SegmentationMetric"]["mIoU"], abs=1e-6)


@pytest.mark.parametrize("ratio", ["0.005", "0.02", "0.05"])
def test_boundary_iou(ratio):
    arrays, _, results = golden("boundary_iou_blobs")
    official = results[ratio]
    d = band_width(arrays["gt"].shape[1:], float(ratio))
    assert d == official["dilation"]
    for i, (gt, pred) in enumerate(zip(arrays["gt"], arrays["pred"], strict=True)):
        for side, mask in (("gt", gt), ("pred", pred)):
            band = unpacked(arrays[f"{side}_boundary_{ratio}"][i], mask.shape[1])
            np.testing.assert_array_equal(metrics.boundary(mask, d), band)
        assert metrics.boundary_iou(gt, pred, float(ratio)) == pytest.approx(official["boundary_iou"][i], abs=1e-12)
        rows = rows_of({"pred": [pred], "gt": [gt]}, 2, boundary_ratio=float(ratio))
        iou = rows["biou.num"][0, 1] / rows["biou.den"][0, 1]
        assert iou == pytest.approx(official["boundary_iou"][i], abs=1e-12)
        assert metrics.per_class(rows, "miou")[1] / 100 == pytest.approx(official["mask_iou"][i], abs=1e-12)
        assert iou == pytest.approx(official["boundary_iou_pycocotools"][i], abs=1e-12)


def test_boundary_f_contours():
    arrays, _, _ = golden("boundary_f_binary")
    for gt, bits in zip(arrays["gt"], arrays["gt_bmap"], strict=True):
        np.testing.assert_array_equal(contour(gt), unpacked(bits, gt.shape[1]))


@pytest.mark.parametrize("threshold", ["0.008", "3.0", "0.03"])
def test_boundary_f(threshold):
    arrays, _, results = golden("boundary_f_binary")
    official, void = results[threshold], arrays["void"]
    radius = radius_of(float(threshold), void.shape)
    for i, (gt, pred) in enumerate(zip(arrays["gt"], arrays["pred"], strict=True)):
        f = metrics.boundary_f(gt, pred, radius)
        assert f == pytest.approx(official["davis2017"][i], abs=1e-12)
        assert f == pytest.approx(official["davis2016"][i], abs=1e-12)
        known_gt, known_pred = np.where(void, 0, gt), np.where(void, 0, pred)
        f = metrics.boundary_f(known_gt, known_pred, radius)
        precision, _ = precision_recall(contour(known_gt), contour(known_pred), radius)
        assert f == pytest.approx(official["davis2017_void"][i], abs=1e-12)
        assert [f, precision] == pytest.approx(official["gscnn_F_precision"][i], abs=1e-12)


@pytest.mark.parametrize("threshold", ["0.00088", "0.00375", "3.0", "5.0"])
def test_boundary_f_of_classes(threshold):
    arrays, hyper, results = golden("boundary_f_gscnn_multiclass")
    official, classes = results[threshold], hyper["num_classes"]
    radius = radius_of(float(threshold), arrays["gt"].shape[1:])
    rows = rows_of(arrays, classes, bf=(radius,))
    total, present = rows[f"bf{radius}.num"].sum(0), rows[f"bf{radius}.den"].sum(0)
    # GSCNN scores a class absent from both maps 1 and counts it; we leave it out.
    images = len(arrays["gt"])
    total = total + (images - present)
    np.testing.assert_allclose(total, official["Fpc"], atol=1e-12)
    np.testing.assert_allclose(np.full(classes, images), official["Fc"])
    np.testing.assert_allclose(total / images, official["per_class"], atol=1e-12)
    assert (total / images).mean() == pytest.approx(official["F_score"], abs=1e-12)
