"""Our data and metrics against detectron2's DatasetMapper and COCOEvaluator; skipped where it is not installed."""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from support.project import SHARED

from bcd.config.schema.recipes import Resize
from bcd.data.objects.split import Objects
from bcd.data.objects.stream import object_eval_batches, object_stream
from bcd.metrics.detection import detection_rows, summarise_detection

GOLDEN = SHARED / "golden"
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
OPTIONS = PLAIN | {"batch": 1, "seed": 0, "pad": 1, "steps": 1, "masks": True}
# Wide, tall, square; enlarged, shrunk, and limited by the long side.
CASES = [((37, 53), 64, 200), ((91, 45), 30, 200), ((50, 50), 33, 200), ((40, 121), 48, 90), ((121, 40), 48, 90)]

pytestmark = pytest.mark.skipif(find_spec("detectron2") is None, reason="detectron2 is not installed")


def sample(height: int, width: int) -> tuple[np.ndarray, list[dict]]:
    """An image and annotations: polygons of two parts, a run-length code, a crowd, and a speck without a pixel."""
    rng = np.random.default_rng(height)
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    drawn = np.zeros((height, width), np.uint8, order="F")
    drawn[5:20, 7:30] = rng.integers(0, 2, (15, 23))
    triangles = [[2.25, 3.5, 17.75, 4.0, 9.5, 21.25], [20.0, 20.5, 33.25, 22.0, 25.0, 29.75]]
    code = coco_mask.encode(drawn)
    speck = [[12.0, 12.0, 12.25, 12.0, 12.25, 12.25]]
    parts = [
        (0, [2.25, 3.5, 31.0, 26.25], triangles, 0),
        (1, [7.0, 5.0, 23.0, 15.0], code, 0),
        (2, [0.0, 0.0, 10.0, 10.0], code, 1),
        (1, [12.0, 12.0, 0.25, 0.25], speck, 0),
        (2, [20.0, 25.5, width - 18.0, height - 24.5], [[20.0, 25.5, width + 2.0, 26.0, width - 3.0, height + 1.0]], 0),
    ]
    keys = "category_id", "bbox", "segmentation", "iscrowd"
    return image, [dict(zip(keys, part, strict=True)) for part in parts]


def read_as(image: np.ndarray, annotations: list[dict]):
    boxes = np.array([entry["bbox"] for entry in annotations], np.float32)
    boxes[:, 2:] += boxes[:, :2]
    objects = Objects(
        boxes,
        np.array([entry["category_id"] for entry in annotations]),
        np.array([entry["iscrowd"] for entry in annotations], bool),
        [entry["segmentation"] for entry in annotations],
    )
    return lambda index: (image, objects, "image")


def mapped(file: Path, annotations: list[dict], augmentations: list, *, train: bool) -> dict:
    from detectron2.data import DatasetMapper
    from detectron2.structures import BoxMode

    mapper = DatasetMapper(
        train,
        augmentations=augmentations,
        image_format="RGB",
        use_instance_mask=True,
        instance_mask_format="bitmask",
    )
    entries = [entry | {"bbox_mode": BoxMode.XYWH_ABS} for entry in annotations]
    return mapper({"file_name": str(file), "annotations": entries})


@pytest.mark.parametrize("flip", [0.0, 1.0])
@pytest.mark.parametrize(("size", "short_side", "longest"), CASES)
def test_training_images_and_objects(size, short_side, longest, flip, tmp_path):
    from detectron2.data import transforms

    image, annotations = sample(*size)
    Image.fromarray(image).save(tmp_path / "image.png")
    changes = [transforms.ResizeShortestEdge([short_side], longest, "choice"), transforms.RandomFlip(prob=flip)]
    expected = mapped(tmp_path / "image.png", annotations, changes, train=True)
    resize = Resize(short_sides=[short_side], max_long_side=longest)
    (ours,) = object_stream(read_as(image, annotations), [0], resize=resize, flip=flip, **OPTIONS)
    assert torch.equal(ours.image[0], expected["image"].float())
    (target,) = ours.targets
    instances = expected["instances"]
    assert 0 < len(target.boxes) < len(annotations)
    assert torch.equal(target.boxes, instances.gt_boxes.tensor)
    assert torch.equal(target.classes, instances.gt_classes)
    assert torch.equal(target.masks.bool(), instances.gt_masks.tensor)


@pytest.mark.parametrize(("size", "short_side", "longest"), CASES)
def test_evaluation_images(size, short_side, longest, tmp_path):
    from detectron2.data import transforms

    image, annotations = sample(*size)
    Image.fromarray(image).save(tmp_path / "image.png")
    changes = [transforms.ResizeShortestEdge([short_side, short_side], longest, "choice")]
    expected = mapped(tmp_path / "image.png", annotations, changes, train=False)
    resize = Resize(short_sides=[short_side - 5, short_side], max_long_side=longest)
    ((ours, sizes, originals, _),) = object_eval_batches(
        read_as(image, annotations), [0], resize=resize, pad=32, **PLAIN
    )
    height, width = sizes[0]
    assert originals == [size]
    assert torch.equal(ours[0, :, :height, :width], expected["image"].float())


@pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"golden data not found at {GOLDEN}")
@pytest.mark.parametrize("name", ["coco_synthetic", "coco_many"])
@pytest.mark.parametrize("fast", [False, True])
def test_average_precision(name, fast, tmp_path):
    """Box and mask AP of the same predictions, in percent, by its fast evaluation and by the official one.

    For masks detectron2 removes the boxes from the results, so that a detection's area is that of its mask.
    """
    from detectron2.data import MetadataCatalog
    from detectron2.evaluation import COCOEvaluator
    from detectron2.evaluation.coco_evaluation import instances_to_coco_json

    golden = json.loads((GOLDEN / f"{name}.json").read_text())
    truth, sizes = golden["gt"], {image["id"]: (image["height"], image["width"]) for image in golden["gt"]["images"]}
    (tmp_path / "truth.json").write_text(json.dumps({"info": {}, "licenses": []} | truth))
    MetadataCatalog.get(str(tmp_path)).set(json_file=str(tmp_path / "truth.json"))
    evaluator = COCOEvaluator(str(tmp_path), ("bbox", "segm"), distributed=False, use_fast_impl=fast)
    evaluator.reset()
    results = []
    for image_id, size in sizes.items():
        found = as_instances([entry for entry in golden["dt"] if entry["image_id"] == image_id], size)
        evaluator.process([{"image_id": image_id}], [{"instances": found}])
        results += instances_to_coco_json(found, image_id)
    theirs = evaluator.evaluate()
    MetadataCatalog.pop(str(tmp_path))
    boxless = [{key: value for key, value in entry.items() if key != "bbox"} for entry in results]
    ours = summarise_detection(detection_rows(truth, results, list(sizes), ("box",)))
    ours |= summarise_detection(detection_rows(truth, boxless, list(sizes), ("mask",)))
    names = {"AP": "ap", "AP50": "ap50", "AP75": "ap75", "APs": "ap_s", "APm": "ap_m", "APl": "ap_l"}
    for their_name, our_name in names.items():
        assert ours[our_name] == pytest.approx(theirs["bbox"][their_name], abs=1e-9, nan_ok=True)
        assert ours[f"{our_name}_mask"] == pytest.approx(theirs["segm"][their_name], abs=1e-9, nan_ok=True)


def as_instances(entries: list[dict], size: tuple[int, int]):
    from detectron2.structures import Boxes, Instances

    corners = np.array([entry["bbox"] for entry in entries], np.float32).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    masks = [coco_mask.decode(entry["segmentation"]).astype(bool) for entry in entries]
    return Instances(
        size,
        pred_boxes=Boxes(torch.from_numpy(corners)),
        scores=torch.tensor([entry["score"] for entry in entries]),
        pred_classes=torch.tensor([entry["category_id"] for entry in entries], dtype=torch.int64),
        pred_masks=torch.from_numpy(np.array(masks).reshape(-1, *size)),
    )
