"""Object detection and instance segmentation, whichever engine the model is of: COCO objects in, COCO AP out."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from bcd import metrics
from bcd.config.schema.data import TRAIN
from bcd.config.schema.models import AnyModel, DetectionModel
from bcd.config.schema.recipes import DetectionRecipe
from bcd.data.objects.split import ObjectSplit, open_objects
from bcd.data.objects.stream import ObjectBatch, object_eval_batches, object_stream
from bcd.data.semantic.split import evenly_spaced
from bcd.data.semantic.stream import cached
from bcd.distill.taps import Taps
from bcd.errors import UserError
from bcd.metrics.detection import Result
from bcd.models.base import DenseModel
from bcd.models.complexity import counted
from bcd.models.detection import build_detector
from bcd.models.detection.detector import Detections, Detector, Regions, Targets
from bcd.runs.spec import DetectionEvaluation, Evaluation, Training
from bcd.tasks.task import Evaluated, channels, numbers, require_finite

EVALUATION_BATCH = 8
PANEL_IMAGES = 8  # detections kept for panels, evenly spaced over the split
# The overlap from which on an R-CNN calls a region by the object's class (Girshick 2015, section 2.3).
FOREGROUND_IOU = 0.5


class DetectionTask:
    """See `bcd.tasks.task.Task`."""

    def __init__(self, training: Training, data: Path, *, in_memory: bool):
        if not isinstance(training.recipe, DetectionRecipe):
            raise TypeError(f"detection needs a DetectionRecipe, not a {type(training.recipe).__name__}")
        self.training, self.recipe, self.data = training, training.recipe, training.data
        self.view = training.recipe.view
        self.classes, self.masks = len(self.data.classes), training.task == "instance"
        self._mean, self._std = channels(self.data.mean), channels(self.data.std)
        self._root, self._in_memory = data, in_memory
        self._splits: dict[str, ObjectSplit] = {}

    def build(self, model: AnyModel) -> DenseModel:
        if not isinstance(model, DetectionModel):
            raise TypeError(f"detection needs a DetectionModel, not a {type(model).__name__}")
        return build_detector(model, self.classes, self.data.classes)

    def batches(self, start: int, *, rank: int, world: int, workers: int) -> Iterator[ObjectBatch]:
        """Images with at least one object that is no crowd, as detectron2 trains on (FILTER_EMPTY_ANNOTATIONS)."""
        split, recipe = self._open(TRAIN), self.recipe
        annotated = split.annotated
        if not annotated:
            raise UserError(f"{self._root}: {split.lacking(TRAIN)}")
        labelled = [annotated[i] for i in evenly_spaced(len(annotated), self.data.labelled or len(annotated))]
        return object_stream(
            split.read,
            labelled,
            batch=recipe.batch,
            seed=self.training.seed,
            resize=self.view.resize,
            flip=recipe.flip,
            masks=self.masks,
            pad=self.view.pad,
            start=start,
            steps=recipe.steps,
            rank=rank,
            world=world,
            workers=workers,
            mean=self._mean,
            std=self._std,
        )

    def losses(self, model: DenseModel, batch: ObjectBatch) -> dict[str, Tensor]:
        """The detector's own losses; with the regions of a teacher, also the class scores there, for the tap."""
        losses: dict[str, Tensor] = model(batch.image, batch.sizes, batch.targets, batch.regions)
        return losses

    def forward(self, model: DenseModel, batch: ObjectBatch, taps: Collection[str]) -> ObjectBatch:
        """Feature taps need no more than the pyramid; `logits` need regions, which the batch then holds."""
        if "logits" not in taps:
            _detector(model).features(batch.image)
            return batch
        regions = _detector(model).propose(batch.image, batch.sizes)
        return replace(batch, regions=regions, region_classes=region_classes(regions, batch.targets, self.classes))

    def taps(self, model: DenseModel) -> dict[str, str]:
        return model.taps

    def sample(self) -> ObjectBatch:
        height, width = self._input_size()
        nothing = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
        image, valid = torch.zeros(1, 3, height, width), torch.ones(1, height, width, dtype=torch.bool)
        return ObjectBatch(image, [(height, width)], [nothing], valid, ["blank"], 1)

    def cost(self, model: DenseModel) -> tuple[int, list[int]]:
        """Of detection on a blank image: what a two-stage detector costs beside depends on what it sees."""
        sample = self.sample().to(next(model.parameters()).device)
        training = model.training
        with torch.no_grad():
            macs = counted(lambda: _detector(model).eval().detect(sample.image, sample.sizes, sample.sizes))
        model.train(training)
        return macs, list(self._input_size())

    def evaluate(
        self, model: DenseModel, evaluation: Evaluation, on: torch.device, images: int | None = None
    ) -> Evaluated:
        """Rows of every image of the split, or of `images`, and what is detected in the panel images."""
        if not isinstance(evaluation, DetectionEvaluation):
            raise TypeError(f"detection needs a DetectionEvaluation, not a {type(evaluation).__name__}")
        split, detector = self._open(evaluation.split), cast(Detector, model)  # or one that only detects
        chosen = evenly_spaced(len(split), min(images or len(split), len(split)))
        ids = [split.image_ids[i] for i in chosen]
        shown = set(evenly_spaced(len(ids), min(PANEL_IMAGES, len(ids))))
        results: list[Result] = []
        names: list[str] = []
        predictions: dict[str, np.ndarray] = {}
        model.to(on).eval()
        batches = object_eval_batches(
            split.read, chosen, batch=EVALUATION_BATCH, resize=evaluation.resize, pad=evaluation.pad,
            mean=self._mean, std=self._std,
        )  # fmt: skip
        with torch.no_grad(), Taps(model, {"neck": model.taps["neck"]}) as taps:
            for image, sizes, originals, batch_names in batches:
                detected = detector.detect(image.to(on), sizes, originals)
                require_finite(taps.read()["neck"], batch_names)  # NaN scores are no detections
                for found, name in zip(detected, batch_names, strict=True):
                    if len(names) in shown:
                        predictions |= _arrays(len(names), found)
                    results += coco_results(found, ids[len(names)])
                    names.append(name)
        rows = metrics.detection_rows(split.truth, results, ids, ("box",))
        if self.masks:
            # Without a box, an object counts as small or large by the area of its mask, as in detectron2.
            for entry in results:
                del entry["bbox"]
            rows |= metrics.detection_rows(split.truth, results, ids, ("mask", "boundary"))
        return Evaluated(names, rows, predictions, numbers(metrics.summarise_detection(rows)))

    def _open(self, name: str) -> ObjectSplit:
        """The split, opened once: the learners of a group are evaluated on the same decoded images."""
        if name not in self._splits:
            split = open_objects(self._root, self.data, name, masks=self.masks)
            self._splits[name] = replace(split, read=cached(split.read)) if self._in_memory else split
        return self._splits[name]

    def _input_size(self) -> tuple[int, int]:
        """Height and width of a padded image of the largest training size, in the shape of the limits."""
        short, pad = max(self.view.resize.short_sides), self.view.pad
        height, width = (-(-side // pad) * pad for side in (short, max(short, self.view.resize.max_long_side)))
        return height, width


def _detector(model: DenseModel) -> Detector:
    if not isinstance(model, Detector):
        raise TypeError(f"detection needs a Detector, not a {type(model).__name__}")
    return model


def region_classes(regions: Regions, targets: list[Targets], background: int) -> Tensor:
    """The class of each region of each image in turn, int64 (R,): that of the object it overlaps most, with an IoU of
    at least one half, else `background`."""
    from torchvision.ops import box_iou

    classes = []
    for boxes, target in zip(regions.boxes, targets, strict=True):
        found = torch.full((len(boxes),), background, dtype=torch.int64, device=boxes.device)
        if len(target.boxes) and len(boxes):
            overlap, nearest = box_iou(boxes.float(), target.boxes).max(1)
            found = torch.where(overlap >= FOREGROUND_IOU, target.classes[nearest], found)
        classes.append(found)
    return torch.cat(classes)


def coco_results(found: Detections, image_id: int) -> list[Result]:
    """The detections of one image as entries of a COCO results list."""
    from pycocotools import mask as coco_mask

    corners = found.boxes.cpu().double().numpy()
    sides = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1).tolist()
    entries: list[Result] = [
        {"image_id": image_id, "category_id": category, "bbox": box, "score": score}
        for category, box, score in zip(found.classes.tolist(), sides, found.scores.tolist(), strict=True)
    ]
    if found.masks is not None and entries:
        stack = np.asfortranarray(found.masks.cpu().numpy().transpose(1, 2, 0))
        for entry, code in zip(entries, coco_mask.encode(stack), strict=True):
            entry["segmentation"] = code
    return entries


def _arrays(index: int, found: Detections) -> dict[str, np.ndarray]:
    parts = {"boxes": found.boxes, "scores": found.scores, "classes": found.classes, "masks": found.masks}
    return {f"{index}.{name}": part.cpu().numpy() for name, part in parts.items() if part is not None}
