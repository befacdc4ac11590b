"""What `peers.py` measures, each in a fresh process: `python benchmarks/contenders.py NAME JSON`.

An evaluation prints its own CPU seconds, from lists of dictionaries or label maps to the numbers, how far its memory
rose above them, and a number that all must agree on. A training prints nothing: the whole process is measured.
"""

import contextlib
import io
import json
import resource
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

HEIGHT, WIDTH, CATEGORIES, SEMANTIC_CLASSES = 480, 640, 80, 19
TYPES = {"box": "bbox", "mask": "segm", "boundary": "boundary"}
Records = list[dict[str, Any]]


def drawn(images: int, masks: bool) -> tuple[dict[str, Any], Records]:
    """COCO instances, seven in an image, and five detections near each."""
    from pycocotools import mask

    rng, objects, results = np.random.default_rng(0), [], []
    for image in range(1, images + 1):
        for category in rng.integers(1, CATEGORIES + 1, 7).tolist():
            side = np.exp(rng.uniform(np.log(10), np.log(240), 2))
            corner = rng.uniform(0, [WIDTH, HEIGHT] - side)
            for number in range(6):
                moved = corner + (number > 0) * rng.normal(0, 0.1, 2) * side
                x, y = moved.clip(0, [WIDTH, HEIGHT] - side)
                record = {"image_id": image, "category_id": category, "bbox": [x, y, *side.tolist()]}
                if masks:
                    w, h = side
                    shape = [x + w / 2, y, x + w, y + h / 3, x + w * 0.8, y + h, x + w / 4, y + h * 0.9, x, y + h / 4]
                    record["segmentation"] = mask.frPyObjects([shape], HEIGHT, WIDTH)[0]
                if number:
                    results.append(record | {"score": float(rng.random())})
                else:
                    area = float(mask.area(record["segmentation"])) if masks else float(side.prod())
                    objects.append(record | {"id": len(objects) + 1, "area": area, "iscrowd": 0})
    truth = {
        "images": [{"id": image, "height": HEIGHT, "width": WIDTH} for image in range(1, images + 1)],
        "categories": [{"id": category, "name": str(category)} for category in range(1, CATEGORIES + 1)],
        "annotations": objects,
    }
    return truth, results


def ap_ours(kind: str, truth: dict[str, Any], results: Records) -> Callable[[], float]:
    from bcd.metrics.detection import detection_rows, summarise_detection

    name = {"box": "ap", "mask": "ap_mask", "boundary": "ap_boundary"}[kind]
    ids = [image["id"] for image in truth["images"]]
    return lambda: summarise_detection(detection_rows(truth, results, ids, [kind]), metrics=[name])[name]


def coco_api(kind: str, truth: dict[str, Any], results: Records, api: type, evaluator: type) -> Callable[[], float]:
    """What pycocotools and its descendants are called like."""

    def evaluate() -> float:
        with contextlib.redirect_stdout(io.StringIO()):
            coco = api()
            coco.dataset = truth
            coco.createIndex()
            evaluation = evaluator(coco, coco.loadRes(results), TYPES[kind])
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return 100 * float(evaluation.stats[0])

    return evaluate


def ap_pycocotools(kind: str, truth: dict[str, Any], results: Records) -> Callable[[], float]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    return coco_api(kind, truth, results, COCO, COCOeval)


def ap_faster(kind: str, truth: dict[str, Any], results: Records) -> Callable[[], float]:
    from faster_coco_eval import COCO, COCOeval_faster

    return coco_api(kind, truth, results, COCO, COCOeval_faster)


def ap_official_boundary(kind: str, truth: dict[str, Any], results: Records) -> Callable[[], float]:
    """The code of Cheng et al. (2021), whose folder is on the path; it has the boundaries of the objects made."""
    np.float = float  # it is written for numpy before 1.24
    from boundary_iou.coco_instance_api.coco import COCO
    from boundary_iou.coco_instance_api.cocoeval import COCOeval

    return coco_api(kind, truth, results, lambda: COCO(get_boundary=True), COCOeval)


def ap_torchmetrics(kind: str, truth: dict[str, Any], results: Records) -> Callable[[], float]:
    import torch
    from pycocotools import mask
    from torchmetrics.detection import MeanAveragePrecision

    def tensors(records: Records) -> dict[int, dict[str, Any]]:
        of: dict[int, Records] = {image["id"]: [] for image in truth["images"]}
        for record in records:
            of[record["image_id"]].append(record)
        return {image: tensor(found) for image, found in of.items()}

    def tensor(found: Records) -> dict[str, Any]:
        made = {"labels": torch.tensor([record["category_id"] for record in found])}
        if kind == "mask":
            made["masks"] = torch.from_numpy(mask.decode([r["segmentation"] for r in found])).permute(2, 0, 1).bool()
        else:
            made["boxes"] = torch.tensor([record["bbox"] for record in found])
        return made | ({"scores": torch.tensor([r["score"] for r in found])} if "score" in found[0] else {})

    known, given = tensors(truth["annotations"]), tensors(results)

    def evaluate() -> float:
        metric = MeanAveragePrecision(box_format="xywh", iou_type=TYPES[kind], backend="faster_coco_eval")
        for image in known:
            metric.update([given[image]], [known[image]])
        return 100 * float(metric.compute()["map"])

    return evaluate


def maps(images: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    from semantic_metrics import drawn as label_maps

    pred, label = label_maps((512, 1024), SEMANTIC_CLASSES)
    return ((np.roll(pred, 37 * n, 1), np.roll(label, 37 * n, 1)) for n in range(images))


def semantic_ours(images: int) -> Callable[[], float]:
    from bcd.metrics import image_counts, stack, summarise

    given = list(maps(images))
    return lambda: summarise(stack([image_counts(*each, classes=SEMANTIC_CLASSES) for each in given]))["miou"]


def semantic_torchmetrics(images: int) -> Callable[[], float]:
    import torch
    from torchmetrics.classification import MulticlassJaccardIndex

    given = [tuple(torch.from_numpy(each).long()[None] for each in pair) for pair in maps(images)]

    def evaluate() -> float:
        metric = MulticlassJaccardIndex(SEMANTIC_CLASSES, ignore_index=255)
        for pair in given:
            metric.update(*pair)
        return 100 * float(metric.compute())

    return evaluate


def prepared(steps: int) -> Any:
    """Models, optimiser and batches of ours, for the loops of others."""
    from step import Step, chosen

    return Step(chosen("peers", "kd", {"recipe.steps": steps}))


def train_bare(steps: int) -> None:
    import torch
    import torch.nn.functional as F

    from bcd.train.optimizer import learning_rate

    parts = prepared(steps)
    for step in range(steps):
        batch = next(parts.batches)
        with torch.no_grad():
            soft = parts.teacher(batch.image)["logits"].softmax(1)
        logits = parts.student(batch.image)["logits"]
        distilled = F.kl_div(logits.log_softmax(1), soft, reduction="sum") / batch.label.numel()
        loss = F.cross_entropy(logits, batch.label, ignore_index=255) + distilled
        parts.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parts.student.parameters(), parts.recipe.clip)
        for group in parts.optimizer.param_groups:
            group["lr"] = learning_rate(parts.recipe, step)
        parts.optimizer.step()


def train_torchdistill(steps: int) -> None:
    import torch
    from torchdistill.core.distillation import DistillationBox

    from bcd.train.optimizer import learning_rate

    parts = prepared(steps)

    class Logits(torch.nn.Module):
        def __init__(self, model: torch.nn.Module):
            super().__init__()
            self.model = model

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.model(image)["logits"]

    class Batches(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return steps

        def __getitem__(self, _: int) -> tuple[torch.Tensor, torch.Tensor]:
            batch = next(parts.batches)
            return batch.image, batch.label

    recipe = parts.recipe
    ends = {
        f"{who}_module_{what}": value
        for who in ("student", "teacher")
        for what, value in (("path", "."), ("io", "output"))
    }
    loss = {"key": "KDLoss", "kwargs": {**ends, "temperature": 1.0, "alpha": 1.0, "beta": 1.0, "ignore_index": 255}}
    config = {
        "num_epochs": 1,
        "train_data_loader": {
            "dataset_id": "train",
            "sampler": {"class_or_func": torch.utils.data.SequentialSampler},
            "kwargs": {"batch_size": None},
        },
        "teacher": {"forward_proc": "forward_batch_only", "requires_grad": False},
        "student": {"forward_proc": "forward_batch_only"},
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": {"kd": {"criterion": loss, "weight": 1.0}}}},
        "optimizer": {
            "key": "AdamW",
            "kwargs": {"lr": recipe.lr, "weight_decay": recipe.optimizer.weight_decay, "fused": True},
            "max_grad_norm": recipe.clip,
        },
        "scheduler": {
            "key": "LambdaLR",
            "kwargs": {"lr_lambda": lambda step: learning_rate(recipe, min(step, steps - 1)) / recipe.lr},
            "scheduling_step": 1,
        },
    }
    models = Logits(parts.teacher), Logits(parts.student)
    box = DistillationBox(*models, {"train": Batches()}, config, torch.device("cpu"), None, False, 1.0)
    box.pre_epoch_process(epoch=0)
    for image, label, more in box.train_data_loader:
        box.pre_forward_process()
        box.post_forward_process(loss=box.forward_process(image, label, more))


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def spent() -> float:
    """CPU seconds of this process and of the children that have ended: the official Boundary AP code starts some."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in both)


def main() -> None:
    name, size = sys.argv[1], int(sys.argv[2])
    if name.startswith("train_"):
        globals()[name](size)
        return
    if name.startswith("semantic_"):
        evaluate = globals()[name](size)
    else:
        function, kind = name.rsplit(".", 1)
        evaluate = globals()[function](kind, *drawn(size, kind != "box"))
    before, begin = peak(), spent()
    value = evaluate()
    print(json.dumps({"cpu": spent() - begin, "memory": peak() - before, "value": value}))


if __name__ == "__main__":
    main()
