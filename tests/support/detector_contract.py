"""What every detector must do, whatever its engine; see `bcd.models.detection.detector.Detector`.

Each check takes `build(seed)`, which makes a small detector of CLASSES classes, in training mode, from that seed.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

import torch
from torch import Tensor
from torchvision.ops import box_iou

from bcd.distill.taps import Taps
from bcd.models.complexity import counted
from bcd.models.detection.detector import REGIONS, Detections, Detector, Sizes, Targets

Build = Callable[[int], Detector]

CLASSES = 3
PADDED = (96, 128)
SIZES: Sizes = [(96, 128), (80, 96)]
ORIGINALS: Sizes = [(192, 256), (75, 90)]


def batch(padding: tuple[int, int] = (0, 0)) -> tuple[Tensor, list[Targets]]:
    """Two images of unlike size with two objects each, coloured rectangles on noise, and how far to pad PADDED."""
    generator = torch.Generator().manual_seed(0)
    height, width = PADDED[0] + padding[0], PADDED[1] + padding[1]
    image = torch.zeros(2, 3, height, width)
    corners = torch.tensor([[[10, 10, 50, 40], [60, 20, 110, 80]], [[8, 30, 40, 70], [50, 8, 90, 48]]])
    classes = torch.tensor([[0, 2], [1, 0]])
    masks = torch.zeros(2, 2, height, width, dtype=torch.uint8)
    for i, (h, w) in enumerate(SIZES):
        image[i, :, :h, :w] = 0.3 * torch.randn(3, h, w, generator=generator)
        for j, (x1, y1, x2, y2) in enumerate(corners[i].tolist()):
            image[i, classes[i, j], y1:y2, x1:x2] += 3
            masks[i, j, y1:y2, x1:x2] = 1
    return image, [Targets(b.float(), c, m) for b, c, m in zip(corners, classes, masks, strict=True)]


def emptied(target: Targets) -> Targets:
    return Targets(target.boxes[:0], target.classes[:0], target.masks[:0])


def require_finite(losses: dict[str, Tensor]) -> None:
    for name, loss in losses.items():
        assert loss.shape == () and loss.dtype == torch.float32 and torch.isfinite(loss), (name, loss)


def require_gradients(model: Detector) -> None:
    """Every parameter has one, as DistributedDataParallel demands."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


def require_within(boxes: Tensor, size: tuple[int, int]) -> None:
    assert boxes.dtype == torch.float32 and boxes.shape[1:] == (4,)
    assert (boxes >= 0).all() and (boxes[:, :2] <= boxes[:, 2:]).all()
    assert (boxes[:, 2:] <= boxes.new_tensor([size[1], size[0]])).all()


@contextmanager
def exact() -> Iterator[None]:
    """Deterministic algorithms, as in training."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def check_losses(build: Build) -> None:
    """Finite, differentiable, and the same at the same seed, with objects and without."""
    image, (first, second) = batch()
    for targets in ([first, second], [first, emptied(second)], [emptied(first), emptied(second)]):
        seen = []
        for _ in range(2):
            model = build(0)
            with exact():
                losses = model(image, SIZES, targets)
                sum(losses.values()).backward()
            require_finite(losses)
            require_gradients(model)
            seen.append([*losses.values(), *(p.grad for p in model.parameters() if p.requires_grad)])
        assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))


def check_half_precision(build: Build) -> None:
    """Under bfloat16 autocast losses and boxes are of float32, and the losses near those without."""
    image, targets = batch()
    expected = sum(float(loss.detach()) for loss in build(0)(image, SIZES, targets).values())
    model = build(0)
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(image, SIZES, targets)
        sum(losses.values()).backward()
    require_finite(losses)
    require_gradients(model)
    assert abs(sum(float(loss.detach()) for loss in losses.values()) - expected) < 0.1 * expected
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for boxes, size in zip(model.eval().propose(image, SIZES).boxes, SIZES, strict=True):
            require_within(boxes, size)
        for found, size in zip(model.detect(image, SIZES, ORIGINALS), ORIGINALS, strict=True):
            require_within(found.boxes, size)


def check_padding(build: Build) -> None:
    """Nothing is proposed or found in the padding, and twice as much of it leaves the losses of like size.

    They cannot stay the same: in both engines anchors in the padding are background, and batch norm sees it.
    """
    totals = []
    for padding in ((0, 0), (32, 64)):
        model = build(0)
        image, targets = batch(padding)
        totals.append(sum(float(loss.detach()) for loss in model(image, SIZES, targets).values()))
        with torch.no_grad():
            proposed = model.eval().propose(image, SIZES).boxes
            found = [each.boxes for each in model.detect(image, SIZES, SIZES)]
        for boxes, size in zip([*proposed, *found], SIZES * 2, strict=True):
            require_within(boxes, size)
    assert 0.5 < totals[1] / totals[0] < 2


def check_taps(build: Build) -> None:
    """Stages and levels have their strides after every method, and `neck` is the finest level."""
    image, targets = batch()
    student, teacher = build(0), build(1).eval()
    levels = [tap for tap in student.taps if tap.startswith("p")]
    strides = {f"stage{i}": 2 ** (i + 1) for i in range(1, 5)} | {tap: 2 ** int(tap[1:]) for tap in levels}
    assert set(student.taps) == {*strides, "neck", "logits"}
    assert student.taps["neck"] == student.taps[min(levels)]
    maps = {tap: student.taps[tap] for tap in strides}
    with torch.no_grad(), Taps(teacher, maps) as taps:
        features = teacher.features(image)
        tensors = taps.read()
        assert list(features) == sorted(levels)
        assert all(torch.equal(features[level], tensors[level]) for level in levels)
        teacher.detect(image, SIZES, ORIGINALS)
        _require_strides(taps.read(), strides)
    with torch.no_grad(), Taps(teacher, teacher.taps) as taps:
        regions = teacher.propose(image, SIZES)
        _require_strides(taps.read(), strides)
    with Taps(student, student.taps) as taps:
        student(image, SIZES, targets, regions)
        _require_strides(taps.read(), strides)


def _require_strides(tensors: dict[str, Tensor], strides: dict[str, int]) -> None:
    for tap, stride in strides.items():
        number, _, *size = tensors[tap].shape
        assert (number, *size) == (2, *(math.ceil(side / stride) for side in PADDED)), (tap, tensors[tap].shape)


def check_regions(build: Build) -> None:
    """A teacher's regions, and another detector's class scores there, with gradients into its backbone."""
    image, targets = batch()
    student, teacher = build(0), build(1).eval()
    with torch.no_grad(), Taps(teacher, {"logits": teacher.taps["logits"]}) as taps:
        regions = teacher.propose(image, SIZES)
        theirs = taps.read()["logits"]
    counts = [len(boxes) for boxes in regions.boxes]
    assert all(0 < count <= REGIONS for count in counts)
    for boxes, size in zip(regions.boxes, SIZES, strict=True):
        require_within(boxes, size)
    with Taps(student, {tap: student.taps[tap] for tap in ("stage1", "logits")}) as taps:
        require_finite(student(image, SIZES, targets, regions))
        tensors = taps.read()
    ours = tensors["logits"]
    assert ours.shape == theirs.shape == (sum(counts), CLASSES + 1)
    assert ours.dtype == theirs.dtype == torch.float32
    assert torch.autograd.grad(ours.softmax(1)[:, 0].sum(), tensors["stage1"])[0].abs().sum() > 0
    if regions.index is not None:
        assert (theirs[:, -1] == 0).all() and (ours[:, -1] == 0).all()
        best = theirs[:, :-1].amax(1).split(counts)
        for index, scores, count in zip(regions.index, best, counts, strict=True):
            assert index.dtype == torch.int64 and len(index.unique()) == count
            assert (scores[:-1] >= scores[1:]).all()


def check_state(build: Build) -> None:
    """A state dict is the whole model: another one that loads it proposes and scores the same."""
    image, _ = batch()
    source, copy = build(0).eval(), build(1).eval()
    copy.load_state_dict(source.state_dict())
    seen = []
    for model in (source, copy):
        with torch.no_grad(), Taps(model, {"logits": model.taps["logits"]}) as taps:
            seen.append([*model.propose(image, SIZES).boxes, taps.read()["logits"]])
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))


def check_cost(build: Build) -> None:
    """Detection on a blank image can be counted, and costs more where the image is larger."""
    model = build(0).eval()
    costs = []
    for size in ((64, 64), (64, 128)):
        with torch.no_grad():
            costs.append(counted(lambda size=size: model.detect(torch.zeros(1, 3, *size), [size], [size])))
    assert 0 < costs[0] < costs[1]


def check_learning(build: Build, *, masks: bool, steps: int = 40, seeds: int = 3) -> None:
    """It learns one batch by heart, and then finds its objects, at the sizes of the original images.

    A single run may miss an object on one machine and find it on another: rounding alone decides that. So the loss is
    compared by its mean over seeds, and overlaps by their mean over seeds and an image's objects, against the same
    models before training. A few misses leave both far on their side; boxes at a wrong scale overlap by 0.1.
    """
    falls, gains, filled = [], [], []
    for seed in range(seeds):
        model = build(seed)
        before, _ = _overlaps(model, masks=masks)
        falls.append(math.log(_learn(model.train(), steps)))
        after, areas = _overlaps(model, masks=masks)
        gains.append(after - before)
        filled += areas
    assert sum(falls) / seeds < math.log(0.6), falls
    assert (torch.stack(gains).mean((0, 2)) > 0.3).all(), gains
    if masks:  # the objects are rectangles, so their masks have about the area of their boxes
        assert 0.6 < median(filled) < 1.3, filled


def _learn(model: Detector, steps: int) -> float:
    """By what factor the loss falls."""
    image, targets = batch()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    totals = []
    for _ in range(steps):
        loss = sum(model(image, SIZES, targets).values())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        totals.append(float(loss.detach()))
    return median(totals[-10:]) / median(totals[:5])


@torch.no_grad()
def _overlaps(model: Detector, *, masks: bool) -> tuple[Tensor, list[float]]:
    """Of each image's objects the best overlap with a box of its class, and how full the masks of good boxes are."""
    image, targets = batch()
    best, filled = [], []
    for each, target, size, original in zip(
        model.eval().detect(image, SIZES, ORIGINALS), targets, SIZES, ORIGINALS, strict=True
    ):
        if not len(each.boxes):
            best.append(torch.zeros(len(target.boxes)))
            continue
        require_detections(each, original, masks=masks)
        scale = torch.tensor([original[1] / size[1], original[0] / size[0]] * 2)
        overlap, chosen = (box_iou(target.boxes * scale, each.boxes) * (target.classes[:, None] == each.classes)).max(1)
        best.append(overlap)
        if masks:
            filled += _filled(each)[chosen[overlap > 0.4]].tolist()
    return torch.stack(best), filled


def require_detections(found: Detections, original: tuple[int, int], *, masks: bool) -> None:
    count = len(found.boxes)
    assert 0 < count <= 100
    require_within(found.boxes, original)
    assert found.scores.shape == found.classes.shape == (count,)
    assert found.scores.dtype == torch.float32 and found.classes.dtype == torch.int64
    assert (found.scores[:-1] >= found.scores[1:]).all() and (found.scores > 0).all() and (found.scores <= 1).all()
    assert (found.classes >= 0).all() and (found.classes < CLASSES).all()
    assert (found.masks is not None) == masks
    if masks:
        assert found.masks.dtype == torch.uint8 and found.masks.shape == (count, *original)
        assert (found.masks <= 1).all()


def _filled(found: Detections) -> Tensor:
    areas = (found.boxes[:, 2:] - found.boxes[:, :2]).prod(1)
    return found.masks.sum((1, 2)) / areas
