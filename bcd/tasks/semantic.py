"""Semantic segmentation: cross-entropy, whole-image or sliding evaluation, per-image counts."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bcd import metrics
from bcd.config.schema.models import AnyModel, SegmentationModel
from bcd.config.schema.recipes import SegmentationRecipe, Sliding
from bcd.data.semantic.split import Split, evenly_spaced, open_split
from bcd.data.semantic.stream import Batch, cached, eval_batches, stream
from bcd.data.semantic.transforms import Augment, Size
from bcd.label import IGNORE
from bcd.models import build, flops
from bcd.models.base import DenseModel
from bcd.models.layers import resize
from bcd.runs.spec import Evaluation, SegmentationEvaluation, Training
from bcd.tasks.class_weights import class_weights
from bcd.tasks.cross_entropy import cross_entropy, ohem_cross_entropy
from bcd.tasks.task import Evaluated, channels, numbers, require_finite

EVALUATION_BATCH = 8
# Pixels of one forward pass of evaluation, as far as images are smaller: activations of more leave a CPU's caches, and
# an image takes longer.
EVALUATION_PIXELS = 360_000
PANEL_IMAGES = 8  # predictions kept for panels, evenly spaced over the split


class SemanticTask:
    """See `bcd.tasks.task.Task`."""

    def __init__(self, training: Training, data: Path, *, in_memory: bool):
        if not isinstance(training.recipe, SegmentationRecipe):
            raise TypeError(f"segmentation needs a SegmentationRecipe, not a {type(training.recipe).__name__}")
        self.training, self.recipe, self.data = training, training.recipe, training.data
        self.view = training.recipe.view
        self.classes = len(self.data.classes)
        self._mean, self._std = channels(self.data.mean), channels(self.data.std)
        self._root, self._in_memory = data, in_memory
        self._splits: dict[str, Split] = {}
        self._weights: Tensor | None = None

    def build(self, model: AnyModel) -> DenseModel:
        if not isinstance(model, SegmentationModel):
            raise TypeError(f"segmentation needs a SegmentationModel, not a {type(model).__name__}")
        return build(model, self.classes, self.data.classes)

    def batches(self, start: int, *, rank: int, world: int, workers: int) -> Iterator[Batch]:
        split, recipe, view = self._read_split("train"), self.recipe, self.view
        labelled = self._labelled(split)
        augment = Augment(
            crop=(view.crop[0], view.crop[1]),
            scale=(view.scale[0], view.scale[1]),
            resize=view.resize,
            flip=recipe.flip,
            photometric=view.photometric,
            cat_max_ratio=view.cat_max_ratio,
            mean=self._mean,
            std=self._std,
        )
        return stream(
            split.read,
            labelled,
            sorted(set(range(len(split))) - set(labelled)),
            batch=recipe.batch,
            unlabelled_batch=recipe.unlabelled_batch,
            seed=self.training.seed,
            augment=augment,
            start=start,
            steps=recipe.steps,
            rank=rank,
            world=world,
            workers=workers,
        )

    def _read_split(self, name: str) -> Split:
        """The split, opened once: the learners of a group are evaluated on the same decoded images."""
        if name not in self._splits:
            split = open_split(self._root, self.data, name)
            self._splits[name] = Split(split.samples, cached(split.read)) if self._in_memory else split
        return self._splits[name]

    def losses(self, model: DenseModel, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of the labelled images at image size, over pixels that are not ignored: all, or the hard ones,
        weighed alike or by class.

        The auxiliary head's has the recipe's `aux_weight` (0.4 in PSPNet, Zhao et al. 2017, section 3.3).
        """
        outputs = model(batch.image)
        label = batch.label[: batch.labelled]
        losses = {"task": self._cross_entropy(outputs["logits"][: batch.labelled], label)}
        if "aux" in outputs:
            losses["aux"] = self.recipe.aux_weight * self._cross_entropy(outputs["aux"][: batch.labelled], label)
        return losses

    def _cross_entropy(self, logits: Tensor, label: Tensor) -> Tensor:
        weights = self._class_weights(logits.device)
        if self.recipe.ohem is None:
            return cross_entropy(logits, label, weights)
        return ohem_cross_entropy(logits, label, self.recipe.ohem.threshold, self.recipe.ohem.min_kept, weights)

    def _class_weights(self, on: torch.device) -> Tensor | None:
        if self.recipe.class_weights == "none":
            return None
        if self._weights is None:
            split = self._read_split("train")
            labels = (split.read(i)[1] for i in self._labelled(split))
            self._weights = torch.from_numpy(class_weights(self.recipe.class_weights, labels, self.data.classes)).to(on)
        return self._weights

    def _labelled(self, split: Split) -> list[int]:
        return evenly_spaced(len(split), self.data.labelled or len(split))

    def forward(self, model: DenseModel, batch: Batch, taps: Collection[str]) -> Batch:
        model(batch.image)
        return batch

    def sample(self) -> Batch:
        height, width = self.view.crop
        empty = torch.zeros(1, height, width, dtype=torch.int64)
        return Batch(torch.zeros(1, 3, height, width), empty, empty == 0, 1, ["blank"])

    def cost(self, model: DenseModel) -> tuple[int, list[int]]:
        return flops(model, (self.view.crop[0], self.view.crop[1])), list(self.view.crop)

    def taps(self, model: DenseModel) -> dict[str, str]:
        return model.taps

    def evaluate(
        self, model: DenseModel, evaluation: Evaluation, on: torch.device, images: int | None = None
    ) -> Evaluated:
        """Counts of every image of the split, or of `images`, and the label maps predicted for the panel images."""
        if not isinstance(evaluation, SegmentationEvaluation):
            raise TypeError(f"segmentation needs a SegmentationEvaluation, not a {type(evaluation).__name__}")
        split = self._read_split(evaluation.split)
        chosen_images = evenly_spaced(len(split), min(images or len(split), len(split)))
        shown = set(evenly_spaced(len(chosen_images), min(PANEL_IMAGES, len(chosen_images))))
        counts: list[dict[str, np.ndarray]] = []
        names: list[str] = []
        predictions: dict[str, np.ndarray] = {}
        model.to(on).eval()
        batches = eval_batches(
            split.read, chosen_images, mean=self._mean, std=self._std, resize=evaluation.resize,
            batch=EVALUATION_BATCH,
        )  # fmt: skip
        for image, labels, batch_names in batches:
            at_once = max(1, EVALUATION_PIXELS // image[0, 0].numel())
            parts = [predict(model, part.to(on), labels[0].shape, evaluation.sliding) for part in image.split(at_once)]
            require_finite(torch.cat([logits for logits, _ in parts]), batch_names)
            chosen = torch.cat([ids for _, ids in parts]).cpu().numpy().astype(np.uint8)
            for one, label, name in zip(chosen, labels, batch_names, strict=True):
                if len(names) in shown:
                    predictions[f"{len(names)}"] = one
                counts.append(metrics.image_counts(one, label, classes=self.classes, ignore=IGNORE))
                names.append(name)
        rows = metrics.stack(counts)
        return Evaluated(names, rows, predictions, numbers(metrics.summarise(rows)))


@torch.no_grad()
def predict(model: nn.Module, image: Tensor, size: Size, sliding: Sliding | None) -> tuple[Tensor, Tensor]:
    """Largest logits, float (N, *size), and their class ids, int64, of `image` (N, 3, H, W).

    They are those of the whole image, or averaged over overlapping windows. NaN wins over any logit.

    size: of the label, to which logits of another size are brought before a class is chosen.
    sliding: windows are moved inwards at the borders, and the logits of
    overlapping windows are averaged (mmsegmentation's `slide` mode).
    """
    logits = _slide(model, image, sliding.crop, sliding.stride) if sliding else model(image)["logits"]
    if logits.shape[2:] != size:
        logits = resize(logits, size)
    best = logits.max(1)  # the ids as argmax, which is much slower on a CPU
    return best.values, best.indices


def _slide(model: nn.Module, image: Tensor, crop: Sequence[int], stride: Sequence[int]) -> Tensor:
    (crop_h, crop_w), (stride_h, stride_w) = crop, stride
    height, width = image.shape[2:]
    total: Tensor | None = None
    count: Tensor | None = None
    for top in _starts(height, crop_h, stride_h):
        for left in _starts(width, crop_w, stride_w):
            window = (slice(None), slice(None), slice(top, top + crop_h), slice(left, left + crop_w))
            logits = model(image[window])["logits"]
            if total is None or count is None:
                total = logits.new_zeros(image.shape[0], logits.shape[1], height, width)
                count = logits.new_zeros(1, 1, height, width)
            total[window] += logits
            count[window] += 1
    assert total is not None and count is not None  # an image has at least one window
    return total / count


def _starts(length: int, crop: int, stride: int) -> list[int]:
    if length <= crop:
        return [0]
    return sorted({min(start, length - crop) for start in range(0, length - crop + stride, stride)})
