"""Detection metrics against pycocotools and the stored official numbers; run as a script for the table of deviations.

PYTHONPATH=tests python tests/metrics/test_detection_metrics.py   # | file | kind | AP values | precision curves |
"""

import contextlib
import copy
import io
import json
from functools import partial

import faster_coco_eval as fast
import numpy as np
import pytest
from pycocotools import mask as codes
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from support.project import SHARED

from bcd.errors import UserError
from bcd.metrics import average_precision as ap
from bcd.metrics import boundary_iou, load_rows, save_rows
from bcd.metrics.detection import KINDS, detection_rows, summarise_detection
from bcd.report import stats

GOLDEN = SHARED / "golden"
FILES = ("coco_synthetic", "coco_many")
OFFICIAL = {"box": "bbox", "mask": "segm", "boundary": "boundary"}
PARTS = ("ap", "ap50", "ap75", "ap_s", "ap_m", "ap_l")
SIDE = 120
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="golden data (../shared/golden) not here")
# Compiled pycocotools 2.0.11 hands out arrays in a way that numpy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
same = partial(pytest.approx, rel=0, abs=1e-10, nan_ok=True)


def ids(truth):
    return [image["id"] for image in truth["images"]]


def values_of(truth, results, kinds=("box",), **options):
    return summarise_detection(detection_rows(truth, results, ids(truth), kinds), **options)


def curves(rows, kind):
    """Precision at the 101 recalls, float64 (T, R, K, A), -1 without objects; as COCOeval has it."""
    rankings = ap.rank(rows, kind)
    precision = -np.ones((ap.THRESHOLDS, ap.RECALLS.size, len(rankings), ap.AREAS))
    once = np.ones((len(rows["order"]), 1))
    for k, ranking in enumerate(rankings):
        for area in range(ap.AREAS):
            positives = ranking.positives[:, area].sum()
            for t in range(ap.THRESHOLDS) if positives else ():
                true, found = (x[0] for x in ap.hits(ranking, ap.bit(area, t), once))
                best = np.maximum.accumulate((true / (found + np.spacing(1)))[::-1])[::-1]
                first = np.searchsorted(true / positives, ap.RECALLS)
                precision[t, :, k, area] = np.append(best, 0.0)[first]
    return precision


def official(truth, results, kind="box", coco=COCO, evaluator=COCOeval):
    """A library's own way from annotations to numbers: precision (T, R, K, A) and AP AP50 AP75 APs APm APl."""
    with contextlib.redirect_stdout(io.StringIO()):
        objects = coco()
        objects.dataset = copy.deepcopy(truth)
        objects.createIndex()
        evaluation = evaluator(objects, objects.loadRes(copy.deepcopy(results)), OFFICIAL[kind])
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.eval["precision"][..., -1], evaluation.stats[:6]


def in_percent(stats_of_coco):
    return np.where(np.asarray(stats_of_coco) < 0, np.nan, 100 * np.asarray(stats_of_coco, float))


def code(x, y, width, height):
    inside = np.zeros((SIDE, SIDE), np.uint8, order="F")
    inside[y : y + height, x : x + width] = 1
    return codes.encode(inside)


def record(image, category, box, **fields):
    return {"image_id": image, "category_id": category, "bbox": list(box), "segmentation": code(*box), **fields}


def thing(number, image, category, box, crowd=0):
    return record(image, category, box, id=number, area=float(box[2] * box[3]), iscrowd=crowd)


def coco(images, annotations, categories=(0, 1)):
    return {
        "images": [{"id": image, "height": SIDE, "width": SIDE} for image in images],
        "categories": [{"id": category} for category in categories],
        "annotations": annotations,
    }


def draw_box(draw):
    width, height = np.exp(draw.uniform(np.log(6), np.log(SIDE), 2)).astype(int)
    return int(draw.integers(0, SIDE - width)), int(draw.integers(0, SIDE - height)), int(width), int(height)


def case(seed, *, images=12, dets=12, ties=True, better=0.0):
    """Objects (some crowds) and detections of three categories, the last one without objects.

    Image ids descend, the last image has no object, and with `ties` there are only five different scores.
    """
    draw, noise = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    numbers = list(range(10 * images, 0, -10))
    annotations, results = [], []
    for image in numbers[:-1]:
        for _ in range(draw.integers(1, 6)):
            category, box = int(draw.integers(2)), draw_box(draw)
            annotations.append(thing(len(annotations) + 1, image, category, box, crowd=int(draw.random() < 0.1)))
            if draw.random() < 0.75 + better:
                x, y, width, height = box
                shift = int(draw.integers(0, 2 + min(width, height) // 5) * (1 - better))
                box = max(0, x - shift), y, max(2, width - shift), height
                results.append(record(image, category, box, score=float(noise.beta(4, 2))))
    for image in numbers:
        for _ in range(draw.integers(0, dets)):
            results.append(record(image, int(draw.integers(3)), draw_box(draw), score=float(noise.beta(2, 4))))
    if ties:
        results = [{**result, "score": round(5 * result["score"]) / 5} for result in results]
    return coco(numbers, annotations, (0, 1, 2)), results


def golden(name):
    data = json.loads((GOLDEN / f"{name}.json").read_text())
    return data["gt"], data["dt"], data["results"], np.load(GOLDEN / f"{name}_curves.npz")


def deviations(name, kind):
    """Largest deviations (0..1) of the AP values and of the precision curves from the stored official ones."""
    truth, results, numbers, arrays = golden(name)
    rows = detection_rows(truth, results, ids(truth), (kind,))
    values = np.array(list(summarise_detection(rows).values())) / 100
    expected = np.array([numbers[OFFICIAL[kind]]["stats"][key] for key in ("AP", "AP50", "AP75", "APs", "APm", "APl")])
    key = f"{OFFICIAL[kind]}_precision"
    curve = np.abs(curves(rows, kind) - arrays[key][..., -1]).max() if key in arrays else np.nan
    return np.abs(values - expected).max(), curve


@needs_golden
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FILES)
def test_official_numbers(name, kind):
    value, curve = deviations(name, kind)
    assert value < 1e-9
    assert np.isnan(curve) if kind == "boundary" else curve < 1e-7  # the stored curves are float32


@needs_golden
@pytest.mark.parametrize("name", FILES)
def test_official_ap_of_each_category(name):
    truth, results, numbers, _ = golden(name)
    for kind in KINDS:
        precision = curves(detection_rows(truth, results, ids(truth), (kind,)), kind)[..., 0]
        for k, expected in enumerate(numbers[OFFICIAL[kind]]["per_category_AP"]):
            assert precision[:, :, k].mean() == pytest.approx(-1 if expected is None else expected, abs=1e-9)


@pytest.mark.parametrize(
    "library", [(COCO, COCOeval), (fast.COCO, fast.COCOeval_faster)], ids=["pycocotools", "faster-coco-eval"]
)
@pytest.mark.parametrize("kind", ["box", "mask"])
@pytest.mark.parametrize("seed", range(6))
def test_equals_other_libraries(seed, kind, library):
    truth, results = case(seed, ties=seed % 2 == 0)
    rows = detection_rows(truth, results, ids(truth), (kind,))
    precision, numbers = official(truth, results, kind, *library)
    np.testing.assert_allclose(curves(rows, kind), precision, rtol=0, atol=1e-12)
    np.testing.assert_allclose(list(summarise_detection(rows).values()), in_percent(numbers), rtol=0, atol=1e-10)


def test_at_most_a_hundred_detections_of_a_category_and_image():
    box = (10, 10, 40, 40)
    truth = coco([1], [thing(1, 1, 0, box)])
    wrong = [record(1, 0, (70, 70, 40, 40), score=0.9) for _ in range(100)]
    assert values_of(truth, [*wrong[:99], record(1, 0, box, score=0.1)])["ap"] == pytest.approx(1.0)
    for results in ([*wrong, record(1, 0, box, score=0.1)], [*wrong, record(1, 0, box, score=0.9)]):
        rows = detection_rows(truth, results, [1], ("box",))
        assert summarise_detection(rows)["ap"] == official(truth, results)[1][0] == 0
        assert rows["box.score"].shape == (1, 100)
    others = [record(1, 1, (70, 70, 40, 40), score=0.9) for _ in range(100)]
    assert values_of(truth, [*wrong[:99], *others, record(1, 0, box, score=0.1)])["ap"] == pytest.approx(1.0)


def test_equal_scores_are_ranked_by_image_id_whatever_the_order_of_the_rows():
    truth, results = case(4)
    rows = detection_rows(truth, results, sorted(ids(truth)), ("box",))
    assert summarise_detection(rows) == same(values_of(truth, results))
    shuffled = detection_rows(truth, results, np.random.default_rng(0).permutation(ids(truth)).tolist(), ("box",))
    assert summarise_detection(shuffled) == same(summarise_detection(rows))


def test_no_detections():
    truth, _ = case(0)
    rows = detection_rows(truth, [], ids(truth), KINDS)
    assert rows["box.score"].shape == (len(ids(truth)), 0)
    assert set(summarise_detection(rows).values()) == {0.0}
    weighted = summarise_detection(rows, np.ones((3, len(ids(truth)))))
    assert all((values == np.zeros(3)).all() for values in weighted.values())


@pytest.mark.parametrize("crowd", [False, True])
def test_nothing_to_find_is_not_a_number(crowd):
    box = (5, 5, 50, 50)
    truth = coco([1, 2], [thing(1, 1, 0, box, crowd=1)] if crowd else [])
    results = [record(1, 0, box, score=0.5)]
    assert np.isnan(list(values_of(truth, results, KINDS).values())).all()
    assert np.isnan(summarise_detection(detection_rows(truth, results, [1, 2], ("box",)), np.ones((2, 2)))["ap"]).all()
    assert (official(truth, results)[1] == -1).all()


def test_a_crowd_takes_any_number_of_detections():
    single, crowd = (5, 5, 30, 30), (50, 50, 60, 60)
    truth = coco([1], [thing(1, 1, 0, single), thing(2, 1, 0, crowd, crowd=1)])
    inside = [record(1, 0, (52, 52, 10 + i, 20), score=0.9) for i in range(5)]
    for kind in ("box", "mask"):
        results = [*inside, record(1, 0, single, score=0.5)]
        values = list(values_of(truth, results, (kind,)).values())
        assert values[0] == pytest.approx(100)
        np.testing.assert_allclose(values, in_percent(official(truth, results, kind)[1]), atol=1e-10)


def test_one_perfect_image():
    boxes = [(2, 2, 20, 20), (30, 30, 50, 50), (0, 90, 120, 30)]
    truth = coco([7], [thing(n, 7, n % 2, box) for n, box in enumerate(boxes, 1)])
    results = [record(7, n % 2, box, score=0.5) for n, box in enumerate(boxes, 1)]
    values = values_of(truth, results, KINDS)
    assert {name for name, value in values.items() if np.isnan(value)} == {"ap_l", "ap_l_mask", "ap_l_boundary"}
    assert [value for value in values.values() if not np.isnan(value)] == pytest.approx([100.0] * 15)


def test_object_ids_are_only_names():
    truth, results = case(1)
    expected = values_of(truth, results)
    for annotation in truth["annotations"]:
        annotation["id"] -= 1
    assert values_of(truth, results) == same(expected)
    assert 100 * official(truth, results)[1][0] < expected["ap"]  # pycocotools cannot match the id 0


def test_the_area_of_a_detection_is_that_of_its_box():
    """As in COCO.loadRes; an unmatched detection counts only in its own area range."""
    true, wrong = (5, 5, 20, 20), (40, 40, 40, 40)
    truth = coco([1], [thing(1, 1, 0, true)])
    results = [record(1, 0, wrong, score=0.9), record(1, 0, true, score=0.5)]
    results[0]["segmentation"] = code(40, 40, 10, 10)
    assert values_of(truth, results, ("mask",))["ap_s_mask"] == pytest.approx(100)
    assert 100 * official(truth, results, "mask")[1][3] == pytest.approx(100)
    without_boxes = [{key: value for key, value in result.items() if key != "bbox"} for result in results]
    assert values_of(truth, without_boxes, ("mask",))["ap_s_mask"] == pytest.approx(50)


def test_polygons_and_run_lengths_are_the_same_object():
    x, y, width, height = 20, 30, 40, 50
    truth = coco([1], [thing(1, 1, 0, (x, y, width, height))])
    results = [record(1, 0, (x, y, width - 6, height), score=0.5)]
    expected = values_of(truth, results, KINDS)
    corners = [x, y, x + width, y, x + width, y + height, x, y + height]
    inside = codes.decode(truth["annotations"][0]["segmentation"]).ravel(order="F")
    edges = np.flatnonzero(np.diff(inside, prepend=0, append=0))
    counts = np.diff([0, *edges, inside.size]).tolist()
    for form in ([corners], {"size": [SIDE, SIDE], "counts": counts}):
        truth["annotations"][0]["segmentation"] = form
        assert values_of(truth, results, KINDS) == same(expected)


def test_boundary_needs_mask_and_boundary_to_fit():
    true, found = (10, 10, 100, 100), (14, 10, 96, 100)
    truth, results = coco([1], [thing(1, 1, 0, true)]), [record(1, 0, found, score=0.5)]
    masks = [codes.decode(code(*box)) for box in (true, found)]
    iou = boundary_iou(*masks)
    assert 0.5 < iou < 0.96
    values = values_of(truth, results, ("mask", "boundary"))
    assert values["ap_mask"] == pytest.approx(100)
    assert values["ap_boundary"] == pytest.approx(100 * np.mean(np.linspace(0.5, 0.95, 10) <= iou))


def test_an_empty_mask_matches_nothing():
    truth = coco([1], [thing(1, 1, 0, (10, 10, 50, 50))])
    results = [record(1, 0, (0, 0, 0, 0), score=0.9), record(1, 0, (10, 10, 50, 50), score=0.5)]
    for kind, suffix in ap.SUFFIX.items():
        assert values_of(truth, results, (kind,))[f"ap{suffix}"] == pytest.approx(50)


def test_numpy_numbers_will_do():
    truth, results = case(0, images=3)
    expected = values_of(truth, results, KINDS)
    for entry in (*truth["annotations"], *results):
        entry |= {key: np.float64(entry[key]) for key in ("area", "score") if key in entry}
        entry["bbox"] = np.array(entry["bbox"], np.float64)
    assert values_of(truth, results, KINDS) == same(expected)


def test_inputs_are_left_alone():
    truth, results = case(0, images=3)
    before = copy.deepcopy((truth, results))
    detection_rows(truth, results, ids(truth), KINDS)
    assert (truth, results) == before


def test_recall_points_are_exact():
    for positives in range(1, 401):
        recall = np.arange(positives + 1) / positives
        np.testing.assert_array_equal(ap.recall_points(recall), np.searchsorted(ap.RECALLS, recall, side="right"))


def repeated(truth, results, times):
    """A dataset that holds each image as often as `times` says, its copies next to each other."""
    out, detections = coco([], [], (0, 1, 2)), []
    for image, copies in sorted(zip(ids(truth), times, strict=True)):
        for copy_of in range(copies):
            number = 100 * image + copy_of
            out["images"].append({"id": number, "height": SIDE, "width": SIDE})
            for annotation in truth["annotations"]:
                if annotation["image_id"] == image:
                    out["annotations"].append({**annotation, "image_id": number, "id": 1 + len(out["annotations"])})
            detections += [{**result, "image_id": number} for result in results if result["image_id"] == image]
    return out, detections


@pytest.mark.parametrize("seed", range(3))
def test_weights_repeat_images(seed):
    truth, results = case(seed, ties=False)
    rows = detection_rows(truth, results, ids(truth), ("box",))
    draw = np.random.default_rng(seed)
    weights = draw.multinomial(len(ids(truth)), np.full(len(ids(truth)), 1 / len(ids(truth))), 5)
    values = summarise_detection(rows, weights)
    for b, times in enumerate(weights):
        expected = in_percent(official(*repeated(truth, results, times))[1])
        np.testing.assert_allclose([values[part][b] for part in PARTS], expected, rtol=0, atol=1e-10)


def test_replicates_do_not_depend_on_each_other(monkeypatch):
    truth, results = case(2)
    rows = detection_rows(truth, results, ids(truth), KINDS)
    weights = np.random.default_rng(0).integers(0, 3, (7, len(ids(truth)))).astype(float)
    weights[0], weights[1] = 1, 0
    values, alone = summarise_detection(rows, weights), summarise_detection(rows)
    monkeypatch.setattr(ap, "_CHUNK", 3)
    chunked = summarise_detection(rows, weights)
    for name in values:
        assert values[name].shape == (7,) and np.isnan(values[name][1])
        assert values[name][0] == same(alone[name])
        np.testing.assert_allclose(chunked[name], values[name], rtol=0, atol=1e-10)


def test_only_the_metrics_asked_for():
    truth, results = case(3)
    rows = detection_rows(truth, results, ids(truth), ("box", "mask"))
    every = summarise_detection(rows)
    assert list(every) == [*PARTS, *(f"{part}_mask" for part in PARTS)]
    asked = ["ap75_mask", "ap", "ap_m"]
    assert summarise_detection(rows, metrics=asked) == same({name: every[name] for name in asked})
    with pytest.raises(UserError, match="'ap_boundary' was not evaluated; choose from ap, ap50"):
        summarise_detection(rows, metrics=["ap_boundary"])


def test_rows_are_compact_and_survive_the_disk(tmp_path):
    truth, results = case(0)
    rows = detection_rows(truth, results, ids(truth), KINDS)
    assert {name.partition(".")[2]: values.dtype.name for name, values in rows.items()} == {
        "": "int32",
        "category": "int16",
        "score": "float64",
        "matched": "int64",
        "ignored": "int64",
        "positives": "int32",
    }
    assert {len(values) for values in rows.values()} == {len(ids(truth))}
    save_rows(tmp_path / "rows.npz", rows, [str(image) for image in ids(truth)])
    loaded, _ = load_rows(tmp_path / "rows.npz")
    assert summarise_detection(loaded) == same(summarise_detection(rows))


def rows_of_method(seed, better):
    truth, results = case(5, images=40, better=better)
    draw = np.random.default_rng(seed)
    results = [result for result in results if draw.random() < 0.9]
    return detection_rows(truth, results, ids(truth), ("box",))


def test_comparison_of_two_methods():
    worse, better = ([rows_of_method(seed, gain) for seed in range(3)] for gain in (0.0, 0.25))
    metrics = ("ap", "ap50")
    summarise = partial(summarise_detection, metrics=metrics)
    result = stats.compare(better, worse, metrics=metrics, replicates=2000, summarise=summarise)
    assert list(result) == list(metrics)
    for difference in result.values():
        assert np.isfinite([difference.mean, difference.low, difference.high]).all()
        assert difference.low < difference.mean < difference.high
    assert result["ap"].low > 0 and result["ap"].p < 0.05
    none = stats.compare(worse, worse, metrics=metrics, replicates=50, summarise=summarise)["ap"]
    assert (none.low, none.high, none.p) == (0, 0, 1)


@pytest.mark.parametrize(
    ("change", "kind", "sentence"),
    [
        ({"image_id": 9}, "box", "result 1 of image 9: this image is not evaluated"),
        ({"category_id": 5}, "box", "result 1 of image 1: unknown category 5"),
        ({"score": float("nan")}, "box", "result 1 of image 1: the box or score is not finite"),
        ({"bbox": [0, 0, float("inf"), 1]}, "box", "result 1 of image 1: the box or score is not finite"),
        ({"score": None}, "box", "result 1 of image 1 has no score"),
        ({"bbox": []}, "box", "result 1 of image 1 has no bbox"),
        ({"bbox": [1, 2, 3]}, "mask", "result 1 of image 1: the box is not x, y, width, height"),
        ({"segmentation": None}, "mask", "result 1 of image 1 has no segmentation"),
        ({"segmentation": {"size": [3, 4], "counts": "<"}}, "boundary", "the mask is not 120 x 120 px"),
    ],
)
def test_faulty_results_are_named(change, kind, sentence):
    box = (10, 10, 50, 50)
    truth = coco([1], [thing(1, 1, 0, box)])
    results = [record(1, 0, box, score=0.5), {**record(1, 0, box, score=0.5), **change}]
    with pytest.raises(UserError, match=sentence):
        detection_rows(truth, results, [1], (kind,))


def test_faulty_truth_is_named():
    truth = coco([1], [thing(31, 1, 0, (10, 10, 50, 50))])
    with pytest.raises(UserError, match="image 2 is not in the annotations"):
        detection_rows(truth, [], [1, 2], ("box",))
    truth["annotations"][0]["segmentation"] = []
    with pytest.raises(UserError, match="annotation 31 of image 1 has no segmentation"):
        detection_rows(truth, [], [1], ("mask",))
    assert values_of(truth, [])["ap"] == 0


@pytest.mark.parametrize(("images", "kinds"), [([], ("box",)), ([1, 1], ("box",)), ([1], ("keypoints",))])
def test_callers_errors(images, kinds):
    with pytest.raises(ValueError):
        detection_rows(coco([1], []), [], images, kinds)


if __name__ == "__main__":
    print("| file | kind | AP values | precision curves |\n|---|---|---|---|")
    for name in FILES:
        for kind in KINDS:
            value, curve = deviations(name, kind)
            print(f"| `{name}` | {kind} | {value:.0e} | {'not stored' if np.isnan(curve) else f'{curve:.0e}'} |")
