"""CIRKD and IFVD: values by hand, plain forms, the memory's state, and the official quirks next to the defaults."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from support import parity_cirkd
from support.parity import GOLDEN, Golden

from bcd import distributed
from bcd.errors import UserError
from bcd.losses.cirkd import POOL_FROM, cirkd_batch, cross_image_kl, unit
from bcd.losses.cirkd_memory import CirkdMemory
from bcd.losses.ifvd import ifvd


def maps(n=2, h=5, w=7, channels=(4, 6), seed=0):
    g = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(n, c, h, w, generator=g, dtype=torch.float64) for c in channels)
    return student.requires_grad_(), teacher


def labels(n=2, h=5, w=7, classes=3, seed=1):
    """Classes 0 .. classes - 1 and some ignored pixels."""
    g = torch.Generator().manual_seed(seed)
    label = torch.randint(0, classes, (n, h, w), generator=g)
    return label.masked_fill(torch.rand(n, h, w, generator=g) < 0.2, 255)


def row(*pixels):
    """A (1, C, 1, W) map from one tuple of channels per pixel."""
    return torch.tensor(pixels, dtype=torch.float64).T[None, :, None, :]


def gradient_of(value, student):
    return torch.autograd.grad(value, student)[0]


def plain_cirkd(student, teacher, valid, temperature):
    """The definition, pair by pair with whole relation matrices."""
    s, t = (
        [F.normalize(x[:, keep], dim=0) for x, keep in zip(f, valid, strict=True) if keep.any()]
        for f in (student, teacher)
    )
    total = student.sum() * 0
    for i in range(len(s)):
        for j in range(len(s)):
            log_student, log_teacher = (F.log_softmax(f[i].T @ f[j] / temperature, dim=1) for f in (s, t))
            total = total + F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
    return total / max(1, len(s) ** 2)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5), st.integers(1, 40), st.integers(0, 2**31))
def test_cirkd_tiles_equal_the_plain_form(n, h, w, rows, seed):
    student, teacher = maps(n, h, w, seed=seed)
    valid = torch.rand(n, h, w, generator=torch.Generator().manual_seed(seed)) > 0.4
    plain = plain_cirkd(student, teacher, valid, 0.5)
    plain_gradient = gradient_of(plain, student)
    counts = valid.flatten(1).sum(1).tolist()
    tiled = cross_image_kl(*(unit(x.permute(0, 2, 3, 1)[valid]) for x in (student, teacher)), counts, 0.5, rows=rows)
    for value in (tiled, cirkd_batch(student, teacher, valid=valid, temperature=0.5)):
        torch.testing.assert_close(value, plain, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(gradient_of(value, student), plain_gradient, rtol=1e-10, atol=1e-10)


def test_cirkd_by_hand():
    student, teacher = row((1, 0), (0, 4)), row((2, 0), (3, 0))  # cosine 0 and 1
    assert cirkd_batch(student, teacher, temperature=1.0).item() == pytest.approx(math.log((math.e + 1) / 2) - 0.5)


def test_large_maps_are_pooled_over_their_valid_pixels():
    student, teacher = maps(2, POOL_FROM, POOL_FROM + 2, channels=(2, 3))  # the last cells are two pixels wide
    valid = torch.zeros(2, POOL_FROM, POOL_FROM + 2, dtype=torch.bool)
    valid[:, :4, -4:] = True  # half a cell and a whole one
    cells = (f[:, :, :4, -4:].unflatten(3, (2, 2)).mean((2, 4)).unsqueeze(2) for f in (student, teacher))
    poisoned = (f.masked_fill(~valid.unsqueeze(1), math.nan) for f in (student, teacher))
    torch.testing.assert_close(cirkd_batch(*poisoned, valid=valid), cirkd_batch(*cells))


def memory(**options):
    torch.manual_seed(0)
    options = dict(classes=3, pixel_memory=20, region_memory=4, pixel_contrast=9, region_contrast=6) | options
    return CirkdMemory((2, 4, 5, 7), (2, 6, 5, 7), **options).double()


def test_memory_loss_by_hand():
    module = memory(
        classes=1, pixel_memory=16, region_memory=2, pixel_contrast=16, region_contrast=2, region_weight=0.5
    )
    module.pixel_queue.zero_()[..., 0] = 1  # equal keys: no divergence
    module.region_queue[0] = torch.eye(2, 6)
    student, teacher = torch.eye(6, dtype=torch.float64)[2:3], torch.eye(6, dtype=torch.float64)[:1]
    module.temperature, module.kd_temperature = 0.5, 2.0  # logits (1, 0) and (0, 0) after both temperatures
    p = math.e / (1 + math.e)
    expected = 0.5 * 4 * (p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p)))
    assert module.compare(student, teacher).item() == pytest.approx(expected, rel=1e-12)


def plain_compare(module, student, teacher):
    total = 0
    for queue, slots in ((module.pixel_queue, module.pixel_slots), (module.region_queue, module.region_slots)):
        keys = queue[:, torch.randperm(queue.shape[1])[:slots]].flatten(0, 1)
        s, t = (F.log_softmax(x @ keys.T / module.temperature, dim=1) for x in (student, teacher))
        total = total + F.kl_div(s, t, reduction="batchmean", log_target=True)
    return total


def test_memory_loss_equals_the_plain_form():
    (student, teacher), label = maps(), labels()
    module, anchors = memory(), label != 255
    wanted = [student, *module.parameters()]
    torch.manual_seed(1)
    value = module(student, teacher, label=label)
    gradients = torch.autograd.grad(value, wanted)
    state = torch.random.get_rng_state()
    module = memory()
    torch.manual_seed(1)
    module.remember(unit(teacher.permute(0, 2, 3, 1)), label.where(anchors, -1))
    projected = F.normalize(module.head(student.permute(0, 2, 3, 1)[anchors]), dim=1)
    plain = plain_compare(module, projected, F.normalize(teacher.permute(0, 2, 3, 1)[anchors], dim=1))
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.testing.assert_close(value, plain, rtol=1e-12, atol=0)
    for got, expected in zip(gradients, torch.autograd.grad(plain, [student, *module.parameters()]), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("official", [False, True])
def test_memory_takes_the_pixels_of_the_class(official):
    _, teacher = maps(1, 2, 3)
    label = torch.tensor([[[-1, -1, 0], [-1, 2, 2]]])
    module = memory(official=official)
    before = module.pixel_queue.clone()
    features = unit(teacher.permute(0, 2, 3, 1))
    module.remember(features, label)
    features = features.flatten(0, 2)
    # The official code takes as many pixels as the class has from the start of the image.
    first, pair = (features[:1], features[:2]) if official else (features[2:3], features[4:6])
    torch.testing.assert_close(module.pixel_queue[0, :1], first)
    assert {tuple(f) for f in module.pixel_queue[2, :2].tolist()} == {tuple(f) for f in pair.tolist()}
    torch.testing.assert_close(module.region_queue[2, 0], F.normalize(features[4] + features[5], dim=0))
    assert module.pixel_next.tolist() == [1, 0, 2] and module.region_next.tolist() == [1, 0, 1]
    assert torch.equal(module.pixel_queue[1], before[1]) and torch.equal(module.pixel_queue[2, 2:], before[2, 2:])


@pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"golden data not found at {GOLDEN}")
def test_memory_of_the_official_code_is_compared_alike():
    """The memory that the official code ended with, loaded and not added to, gives its loss."""
    golden = Golden("cirkd_memory")
    module, label = parity_cirkd.memory(golden), parity_cirkd.label(golden)
    for official, name in parity_cirkd.QUEUES.items():
        getattr(module, name).copy_(golden.data[f"state_after/{official}"])
    slots = iter(golden.data[key].long() for key in ("random/010_randperm", "random/011_randperm"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randperm", lambda *_, **__: next(slots))
        patch.setattr(module, "remember", lambda *_: None)
        value = module(golden["student"], golden["teacher"], label=label)
    assert value.item() == pytest.approx(golden.data["loss"].item(), rel=1e-12)


def test_memory_overflow_takes_the_last_slots():
    module = memory()
    module.pixel_next[1], module.region_next[1] = 15, 3
    before = module.pixel_queue.clone()
    features = F.normalize(torch.randn(1, 2, 3, 6, dtype=torch.float64), dim=3)
    module.remember(features, torch.full((1, 2, 3), 1))
    assert torch.equal(module.pixel_queue[1, :14], before[1, :14])
    torch.testing.assert_close(module.pixel_queue[1, 14:].sum(0), features.sum((0, 1, 2)))
    assert module.pixel_next[1] == 0 and module.region_next[1] == 0


def test_memory_holds_still_in_eval_mode():
    module = memory().eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    module(*maps(), label=labels())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize("poison", [7.0, math.inf, math.nan])
def test_memory_ignores_invalid_and_unlabelled_pixels(poison):
    (student, teacher), label = maps(), labels()
    valid = torch.rand(label.shape, generator=torch.Generator().manual_seed(3)) > 0.3
    results = []
    for fill in (0.0, poison):
        module = memory()
        hole = ~valid.unsqueeze(1)
        s, t = student.detach().masked_fill(hole, fill).requires_grad_(), teacher.masked_fill(hole, -fill)
        torch.manual_seed(1)
        value = module(s, t, valid=valid, label=label.where(valid, 200))
        results.append([value.detach(), gradient_of(value, s), *module.buffers()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert results[0][1][(~valid | (label == 255)).unsqueeze(1).expand_as(student)].eq(0).all()
    assert results[0][1].abs().sum() > 0


def test_memory_without_labels():
    (student, teacher), nothing = maps(), torch.full((2, 5, 7), 255)
    module = memory()
    queues = module.pixel_queue.clone(), module.region_queue.clone()
    value = module(student, teacher, label=nothing)
    gradients = torch.autograd.grad(value, [student, *module.parameters()])
    assert value == 0 and all(g.eq(0).all() for g in gradients)
    assert torch.equal(queues[0], module.pixel_queue) and torch.equal(queues[1], module.region_queue)
    assert memory(official=True)(student, teacher, label=nothing).isnan()


def test_memory_of_a_single_pixel():
    student, teacher = maps(1, 1, 1)
    value = memory()(student, teacher, label=torch.zeros(1, 1, 1, dtype=torch.int64))
    assert value > 0 and gradient_of(value, student).isfinite().all()


def test_memory_must_hold_one_image():
    with pytest.raises(UserError, match="at least 16"):
        memory(pixel_memory=15)


def test_processes_remember_the_images_of_all(monkeypatch):
    """Three processes, the second without labels and the third a twin of the first."""
    teacher, label = unit(torch.randn(2, 5, 7, 6)), labels()
    alone, joint = memory().float(), memory().float()
    for _ in range(2):
        torch.manual_seed(1)
        alone.remember(teacher, label.where(label != 255, -1))
    monkeypatch.setattr(distributed, "world", lambda: 3)
    monkeypatch.setattr(distributed, "gather", lambda own: [own, torch.zeros_like(own), own])
    torch.manual_seed(1)
    joint.remember(teacher, label.where(label != 255, -1))
    assert all(torch.equal(a, b) for a, b in zip(alone.buffers(), joint.buffers(), strict=True))


def plain_ifvd(student, teacher, label, counted):
    def cosine(f):
        centre = f.clone()
        for b in range(len(f)):
            for c in label[b][counted[b]].unique():
                keep = (label[b] == c) & counted[b]
                centre[b, :, keep] = f[b, :, keep].mean(1, keepdim=True)
        return F.cosine_similarity(f, centre, dim=1)

    return ((cosine(student) - cosine(teacher)).square() * counted).sum() / counted.sum()


def test_ifvd_equals_the_plain_form():
    (student, teacher), label = maps(), labels(classes=19)
    valid = torch.rand(label.shape, generator=torch.Generator().manual_seed(3)) > 0.3
    counted = valid & (label != 255)
    value, plain = ifvd(student, teacher, valid=valid, label=label), plain_ifvd(student, teacher, label, counted)
    torch.testing.assert_close(value, plain, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient_of(value, student), gradient_of(plain, student), rtol=1e-10, atol=1e-14)
    official = ifvd(student, teacher, valid=valid, label=label, official=True)
    torch.testing.assert_close(official * label.numel(), plain * counted.sum())


def test_ifvd_by_hand():
    # Class 4 has cosines 1 / sqrt 2 with its mean in the student, 1 in the teacher. Class 0 is a single pixel.
    student, teacher = row((1, 0), (0, 1), (3, 4), (9, 1)), row((2, 0), (1, 0), (0, 1), (1, 1))
    label = torch.tensor([[[4, 4, 0, 255]]])
    expected = 2 / 3 * (1 - 1 / math.sqrt(2)) ** 2
    assert ifvd(student, teacher, label=label).item() == pytest.approx(expected, rel=1e-12)
    assert ifvd(student, teacher, label=label, official=True).item() == pytest.approx(0.75 * expected, rel=1e-12)


@pytest.mark.parametrize("poison", [7.0, -1e30, math.inf, math.nan])
def test_ifvd_ignores_invalid_pixels(poison):
    (student, teacher), label = maps(), labels()
    valid = torch.rand(label.shape, generator=torch.Generator().manual_seed(3)) > 0.3
    hole = ~valid.unsqueeze(1)
    poisoned = student.detach().masked_fill(hole, poison).requires_grad_()
    value, again = (
        ifvd(student, teacher, valid=valid, label=label),
        ifvd(poisoned, teacher.masked_fill(hole, poison), valid=valid, label=label.where(valid, 3)),
    )
    assert value == again and torch.equal(gradient_of(value, student), gradient_of(again, poisoned))
    nothing = ifvd(student, teacher, label=torch.full_like(label, 255))
    assert nothing == 0 and gradient_of(nothing, student).eq(0).all()


def test_ifvd_holds_few_copies_of_the_features():
    """The official masks keep about two feature maps per class; here it is the same few for any number of classes."""
    kept = []

    def keep(tensor):
        kept.append(tensor)
        return tensor

    student, teacher = maps(1, 16, 16, channels=(32, 32))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        ifvd(student, teacher, label=labels(1, 16, 16, classes=19))
    large = {t.untyped_storage().data_ptr() for t in kept if t.numel() >= student.numel()}
    assert len(large) <= 2
