"""The losses that generate the teacher's map from the student's: values by hand, masks, and their parts."""

import math

import pytest
import torch
from torch import nn

from bcd.errors import UserError
from bcd.losses.afdcd import AfDcd, omni_contrast
from bcd.losses.attnfd import AttnFd, refine, unit
from bcd.losses.fgd import Fgd, attention_maps, box_weights
from bcd.losses.masked import masked_max_pool
from bcd.losses.mgd import MaskedGenerator, Mgd
from bcd.losses.reviewkd import Fusion, ReviewKd, ValidBatchNorm, hierarchical_context_loss
from bcd.losses.vid import Vid


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


SHAPES = (2, 4, 6, 8), (2, 6, 6, 8)
SINGLE = {
    "mgd": lambda: Mgd(*SHAPES),
    "mgd-channel": lambda: Mgd(*SHAPES, mask="channel", mask_ratio=0.3),
    "fgd": lambda: Fgd(*SHAPES),
    "vid": lambda: Vid(*SHAPES),
    "attnfd": lambda: AttnFd(*SHAPES),
    "afdcd": lambda: AfDcd(*SHAPES, groups=3, pool=2, patch=2),
}


def row(*pixels):
    """A (1, C, 1, W) map from one tuple of channels per pixel."""
    return torch.tensor(pixels, dtype=torch.float64).T[None, :, None, :]


def maps(channels=(4, 6), size=(6, 8), n=2, seed=0):
    g = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(n, c, *size, generator=g, dtype=torch.float64) for c in channels)
    return student.requires_grad_(), teacher


def some_valid(n=2, size=(6, 8)):
    return torch.rand(n, *size, generator=torch.Generator().manual_seed(1)) > 0.3


def gradients(loss, student, teacher, valid):
    """Value and gradients (of the student first) under one random state."""
    torch.manual_seed(0)
    student = student.detach().requires_grad_()
    value = loss(student, teacher, valid=valid)
    return value.detach(), torch.autograd.grad(value, [student, *loss.parameters()])


@pytest.mark.parametrize("name", SINGLE)
def test_invalid_pixels_are_irrelevant_to_the_student_and_to_what_is_learned(name):
    loss = SINGLE[name]().double()
    student, teacher = maps()
    valid = some_valid()
    value, expected = gradients(loss, student, teacher, valid)
    assert expected[0].abs().sum() > 0
    hole = ~valid.unsqueeze(1)
    for poison in (-1e30, math.inf, math.nan):
        poisoned = student.detach().masked_fill(hole, poison), teacher.masked_fill(hole, -poison)
        again, found = gradients(loss, *poisoned, valid)
        assert again == value and all(map(torch.equal, found, expected))


@pytest.mark.parametrize("name", SINGLE)
def test_nothing_valid_is_zero_and_still_reaches_every_parameter(name):
    loss = SINGLE[name]().double()
    value, found = gradients(loss, *maps(), torch.zeros(2, 6, 8, dtype=torch.bool))
    assert value == 0 and all(gradient.eq(0).all() for gradient in found)


@pytest.mark.parametrize("name", SINGLE)
def test_map_sizes_may_change_between_calls(name):
    loss = SINGLE[name]().double()
    for size in ((6, 8), (5, 3), (1, 1), (1, 9), (17, 4)):
        student, teacher = maps(size=size)
        value, found = gradients(loss, student, teacher, None)
        assert value.isfinite() and all(gradient.isfinite().all() for gradient in found)


@pytest.mark.parametrize(("kind", "options"), [(Mgd, {"mask_ratio": 0.0}), (Fgd, {}), (Vid, {}), (AttnFd, {})])
def test_padding_is_no_padding(kind, options):
    # Not so for random masks, and where averages depend on the map's size.
    student, teacher = maps()
    padded = [nn.functional.pad(x, (0, 3, 0, 2), value=9.0) for x in (student, teacher)]
    valid = nn.functional.pad(torch.ones(2, 6, 8, dtype=torch.bool), (0, 3, 0, 2))
    loss = kind(*SHAPES, **options).double()
    torch.testing.assert_close(loss(*padded, valid=valid), loss(student, teacher), rtol=1e-12, atol=0)


# --- mgd


def copying_generator(loss, factor):
    """Makes the 3x3 convolutions look at their pixel only, so that the generator is factor * relu(input)."""
    for convolution, weight in ((loss.generate.first, 1.0), (loss.generate.second, factor)):
        nn.init.zeros_(convolution.bias)
        nn.init.zeros_(convolution.weight)
        convolution.weight.data[:, :, 1, 1] = weight


def test_mgd_by_hand():
    loss = Mgd((1, 1, 1, 3), (1, 1, 1, 3), mask_ratio=0.0).double()
    copying_generator(loss, 2.0)
    student, teacher = row((1,), (-3,), (2,)), row((0,), (0,), (1,))
    assert loss(student, teacher).item() == pytest.approx(4 + 0 + 9)
    assert loss(student.repeat(2, 1, 1, 1), teacher.repeat(2, 1, 1, 1)).item() == pytest.approx(13)  # per image
    assert loss(student, teacher, valid=torch.tensor([[[True, True, False]]])).item() == pytest.approx(4)


def test_mgd_hides_the_asked_share():
    for mask, expected in (("pixel", (3, 1, 40, 50)), ("channel", (3, 2000, 1, 1))):
        generator = MaskedGenerator(2000 if mask == "channel" else 1, 2000 if mask == "channel" else 1, 0.75, mask)
        kept = generator._kept(torch.zeros(3, 1, 40, 50))
        assert kept.shape == expected and kept.double().mean().item() == pytest.approx(0.25, abs=0.02)


def test_mgd_sees_nothing_of_hidden_pixels():
    loss = Mgd((1, 1, 1, 3), (1, 1, 1, 3), mask_ratio=1.0).double()
    student = row((1,), (-3,), (2,)).requires_grad_()
    loss(student, row((0,), (0,), (1,))).backward()
    assert student.grad.eq(0).all()


@pytest.mark.parametrize("options", [{"mask": "block"}, {"mask_ratio": 1.5}])
def test_mgd_refuses(options):
    with pytest.raises(UserError, match="mask"):
        Mgd(*SHAPES, **options)


# --- fgd


def test_fgd_by_hand():
    # |s| = |t| = 1 everywhere, so both attentions are 1; the contexts start as the identity.
    teacher, student = torch.ones(1, 1, 1, 4).double(), row((1,), (-1,), (1,), (-1,))
    # Columns 0 and 1, rows 0 and (beyond the border) 1: two pixels of weight 1/4; the other two are background.
    boxes = [torch.tensor([[0.0, 0.0, 0.25, 1.0]])]
    value = Fgd(student.shape, teacher.shape).double()(student, teacher, boxes=boxes)
    assert value.item() == pytest.approx(1e-3 * (4 / 4) + 5e-4 * (4 / 2) + 5e-6 * 8)


def test_fgd_attention_by_hand():
    features = row((0, -3), (1, 0))
    pixels, channels = attention_maps(features, torch.ones(1, 1, 2, dtype=torch.bool), 0.5)
    assert pixels.flatten().tolist() == pytest.approx([2 * math.e**2 / (1 + math.e**2), 2 / (1 + math.e**2)])
    assert channels.flatten().tolist() == pytest.approx([2 / (1 + math.e**2), 2 * math.e**2 / (1 + math.e**2)])
    wider = torch.cat([features, row((0, 0))], dim=3)  # an invalid third pixel changes none of it
    again, same = attention_maps(wider, torch.tensor([[[True, True, False]]]), 0.5)
    torch.testing.assert_close(again[..., :2], pixels)
    torch.testing.assert_close(same, channels)
    assert again[..., 2] == 0


def test_fgd_boxes():
    valid = torch.ones(2, 4, 4, dtype=torch.bool)
    valid[0, 0, 0] = False
    boxes = [torch.tensor([[0.1, 0.1, 0.4, 0.4], [0.0, 0.0, 1.0, 1.0]]), torch.zeros(0, 4)]
    weights = box_weights(boxes, valid)
    expected = torch.full((4, 4), 1 / 25)  # the large box, its inclusive last row and column outside
    expected[:3, :3] = 1 / 9  # the smaller box wins
    expected[0, 0] = 0
    torch.testing.assert_close(weights[0], expected)
    assert weights[1].eq(0).all() and box_weights(None, valid).eq(0).all()


def test_fgd_is_zero_where_student_and_teacher_agree():
    _, teacher = maps()
    student = teacher.clone().requires_grad_()
    value = Fgd(teacher.shape, teacher.shape).double()(student, teacher, boxes=[torch.tensor([[0, 0, 0.5, 0.5]])] * 2)
    value.backward()
    assert value == 0 and student.grad.eq(0).all()


# --- reviewkd


def test_hierarchical_context_loss_by_hand():
    student, teacher = torch.tensor([1.0, 3.0]).view(1, 1, 2, 1), torch.zeros(1, 1, 2, 1)
    assert hierarchical_context_loss([student], [teacher]).item() == pytest.approx((5 + 0.5 * 4) / 1.5)
    valid = torch.tensor([True, False]).view(1, 2, 1)
    assert hierarchical_context_loss([student], [teacher], [valid]).item() == pytest.approx(1)
    pair = [student] * 2, [teacher] * 2
    assert hierarchical_context_loss(*pair).item() == pytest.approx(2 * 7 / 1.5)  # a sum over the taps


def test_valid_batch_norm_is_batch_norm_of_the_valid_pixels():
    features, _ = maps()
    valid = some_valid()
    ours, theirs = ValidBatchNorm(4).double(), nn.BatchNorm2d(4).double()
    for norm in (ours, theirs):
        norm.weight.data = torch.tensor([1.0, 2.0, 0.5, -1.0]).double()
        norm.bias.data = torch.tensor([0.0, 1.0, -1.0, 2.0]).double()
    torch.testing.assert_close(ours(features, torch.ones_like(valid)), theirs(features))
    pixels = features.movedim(1, -1)[valid]
    found = ours(features, valid)
    torch.testing.assert_close(found.movedim(1, -1)[valid], theirs(pixels.T[None, :, :, None])[0, :, :, 0].T)
    assert found.movedim(1, -1)[~valid].eq(0).all()


def review_pair(sizes=((8, 10), (4, 5), (2, 3))):
    students, teachers = zip(*(maps((3 + i, 4 + i), size, seed=i) for i, size in enumerate(sizes)), strict=True)
    return [s.detach() for s in students], list(teachers)


def test_reviewkd_masks_every_tap():
    students, teachers = review_pair()
    loss = ReviewKd([s.shape for s in students], [t.shape for t in teachers], mid_channels=5).double()
    masks = [some_valid(size=s.shape[2:]) for s in students]
    value = loss(students, teachers, valid=masks)
    holes = [~mask.unsqueeze(1) for mask in masks]
    for tap in range(3):
        poisoned = list(students)
        poisoned[tap] = students[tap].masked_fill(holes[tap], math.nan)
        assert loss(poisoned, teachers, valid=masks) == value
    empty = loss(students, teachers, valid=[torch.zeros_like(m) for m in masks])
    assert empty == 0 and all(g.eq(0).all() for g in torch.autograd.grad(empty, list(loss.parameters())))


def test_reviewkd_sizes_may_change_and_one_tap_is_enough():
    students, teachers = review_pair()
    loss = ReviewKd([s.shape for s in students], [t.shape for t in teachers], mid_channels=5).double()
    for sizes in (((8, 10), (4, 5), (2, 3)), ((9, 7), (5, 4), (3, 2)), ((1, 1), (1, 1), (1, 1))):
        assert loss(*review_pair(sizes)).isfinite()
    alone = ReviewKd([students[0].shape], [teachers[0].shape]).double()
    assert alone.fusions[0].attention is None and alone(students[:1], teachers[:1]) > 0


def test_fused_maps_are_zero_at_invalid_pixels():
    (fine, coarse), _ = review_pair(((6, 8), (3, 4)))
    valid = some_valid()
    output, fused = Fusion(3, 4, 5, coarsest=False).double()(fine, coarse, valid)
    assert output.shape == (2, 5, 6, 8) and fused.shape == (2, 4, 6, 8)
    for found in (output, fused):
        assert found.movedim(1, -1)[~valid].eq(0).all() and found.movedim(1, -1)[valid].ne(0).any()


def test_reviewkd_passes_coarse_features_to_finer_taps():
    students, teachers = review_pair()
    students[2].requires_grad_()
    loss = ReviewKd([s.shape for s in students], [t.shape for t in teachers], mid_channels=5).double()
    generated = loss(students, teachers, valid=[None, None, torch.zeros(2, 2, 3, dtype=torch.bool)])
    assert generated > 0 and torch.autograd.grad(generated, students[2])[0].eq(0).all()
    assert torch.autograd.grad(loss(students, teachers), students[2])[0].abs().sum() > 0


# --- vid


def test_vid_by_hand():
    loss = Vid((1, 1, 1, 2), (1, 1, 1, 2)).double()
    for layer in (0, 2, 4):
        nn.init.ones_(loss.regressor[layer].weight)
    student, teacher = row((3,), (-2,)), row((1,), (1,))  # regressed to 3 and 0
    expected = ((4 / 5 + math.log(5)) / 2 + (1 / 5 + math.log(5)) / 2) / 2
    assert loss(student, teacher).item() == pytest.approx(expected, rel=1e-6)  # the initial log scale is a float32
    alone = loss(student, teacher, valid=torch.tensor([[[True, False]]])).item()
    assert alone == pytest.approx((4 / 5 + math.log(5)) / 2, rel=1e-6)


def test_vid_width_is_the_teachers_unless_given():
    assert Vid(*SHAPES).regressor[2].weight.shape == (6, 6, 1, 1)
    assert Vid(*SHAPES, mid_channels=3).regressor[2].weight.shape == (3, 3, 1, 1)


# --- attnfd


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_refine_by_hand():
    # Means over pixels (1, 3), maxima (2, 4): gates of the channels; then maximum + mean over channels of each pixel.
    features = row((0, 2), (2, 4))
    a, b = sigmoid(3), sigmoid(7)
    first, second = sigmoid(2 * b + b), sigmoid(4 * b + (2 * a + 4 * b) / 2)
    expected = row((0, 2 * b * first), (2 * a * second, 4 * b * second))
    torch.testing.assert_close(refine(features, torch.ones(1, 1, 2, dtype=torch.bool)), expected)
    negative = torch.cat([-features, row((0, 0))], dim=3)  # a maximum is not taken from blanked pixels
    valid = torch.tensor([[[True, True, False]]])
    torch.testing.assert_close(refine(negative, valid)[..., :2], refine(-features, valid[..., :2]))


def test_unit_survives_zeros_and_large_entries():
    assert unit(torch.zeros(2, 3)).eq(0).all()
    torch.testing.assert_close(unit(torch.tensor([3e30, -4e30])), torch.tensor([0.6, -0.8]))


def test_attnfd_by_hand():
    loss = AttnFd((1, 1, 1, 2), (1, 1, 1, 2)).double()
    nn.init.ones_(loss.connector.weight)
    for gate in (loss.channel_gate[2].weight, loss.channel_gate[2].bias, loss.spatial_gate.weight):
        nn.init.zeros_(gate)
    # Gates of 1/2, and the batch norm of two pixels is (-1, 1); the teacher's first pixel is 0.
    value = loss(row((1e4,), (5e4,)), row((0,), (2,))).item()
    assert value == pytest.approx(0.5 + (1 - math.sqrt(0.5)) ** 2, rel=1e-6)


# --- afdcd


def test_omni_contrast_by_hand():
    # One pixel, two groups of one channel: each piece against the other group's.
    student, teacher = row((0, 0)), row((1, 3))
    value = omni_contrast(student, teacher, torch.ones(1, 1, 1, dtype=torch.bool), 0.5, groups=2, patch=4).item()
    assert value == pytest.approx(math.log1p(math.exp((1 - 3) / 0.5)) + math.log1p(math.exp((3 - 1) / 0.5)))


def plain_contrast(student, teacher, valid, temperature, groups, patch):
    """The definition, piece by piece."""
    n, c, h, w = student.shape
    size, total = c // groups, 0.0
    pixels = [(i, y, x) for i, y, x in valid.nonzero().tolist()]
    for i, y, x in pixels:
        around = [q for q in pixels if q[0] == i and q[1] // patch == y // patch and q[2] // patch == x // patch]
        for g in range(groups):
            own = student[i, g * size : (g + 1) * size, y, x]
            distances = [
                (own - teacher[j, k * size : (k + 1) * size, v, u]).abs().sum() / temperature
                for j, v, u in around
                for k in range(groups)
                if k != g or (v, u) == (y, x)
            ]
            positive = (own - teacher[i, g * size : (g + 1) * size, y, x]).abs().sum() / temperature
            total = total + positive + torch.logsumexp(-torch.stack(distances), 0)
    return total / len(pixels)


@pytest.mark.parametrize("size", [(4, 4), (5, 3)])
def test_omni_contrast_equals_the_plain_form(size):
    student, teacher = maps((6, 6), size)
    valid = some_valid(size=size)
    student, teacher = (x * valid.unsqueeze(1) for x in (student, teacher))
    found = omni_contrast(student, teacher, valid, 0.7, groups=3, patch=2)
    torch.testing.assert_close(found, plain_contrast(student, teacher, valid, 0.7, 3, 2), rtol=1e-12, atol=0)


def test_max_pool_ignores_invalid_pixels():
    features = -torch.arange(1.0, 16.0).view(1, 1, 3, 5)
    valid = torch.ones(1, 3, 5, dtype=torch.bool)
    valid[0, 0, 0] = valid[0, 2, 2:] = valid[0, :, 4] = False
    pooled, cells = masked_max_pool(features * valid.unsqueeze(1), valid, 2)
    assert cells.tolist() == [[[True, True, False], [True, False, False]]]
    assert pooled.tolist() == [[[[-2, -3, 0], [-11, 0, 0]]]]


def test_afdcd_adds_the_contrast_to_mgd():
    student, teacher = maps()
    loss = AfDcd(*SHAPES, feature=0.5, contrast=0.0, groups=3).double()
    mgd = Mgd(*SHAPES).double()
    mgd.load_state_dict(loss.state_dict())
    value, _ = gradients(loss, student, teacher, None)
    reference, _ = gradients(mgd, student, teacher, None)
    assert value == 0.5 * reference
    loss.contrast = 1.0
    assert gradients(loss, student, teacher, None)[0] > value


@pytest.mark.parametrize("groups", [4, 1])
def test_afdcd_names_channels_that_do_not_divide(groups):
    with pytest.raises(UserError, match="divide the teacher's 6 channels"):
        AfDcd(*SHAPES, groups=groups)
