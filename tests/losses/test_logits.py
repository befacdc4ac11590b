"""The losses on logits: values by hand, masking, and where the official codes are not followed."""

import math

import pytest
import torch
import torch.nn.functional as F
from support.parity import GOLDEN, Golden
from support.parity_logits import CASES

from bcd.errors import UserError
from bcd.losses.bpkd import bpkd_body, bpkd_edge, edge_share
from bcd.losses.channel import cwd
from bcd.losses.dist import dist
from bcd.losses.dkd import dkd
from bcd.losses.logits import NORMALISATIONS, kd

# loss, options, the label fact it reads; maps are half as large as images
LOSSES = {
    **{f"kd-{name}": (kd, {"temperature": 2.0, "normalisation": name}, None) for name in NORMALISATIONS},
    "cwd": (cwd, {"temperature": 2.0}, None),
    "cwd-official": (cwd, {"temperature": 2.0, "official": True}, None),
    "dkd": (dkd, {}, "label"),
    "dkd-official": (dkd, {"official": True}, "label"),
    "dist": (dist, {"temperature": 2.0, "gamma": 2.0}, None),
    "bpkd_edge": (bpkd_edge, {"width": 3}, "image_label"),
    "bpkd_body": (bpkd_body, {"width": 3}, "image_label"),
}
every_loss = pytest.mark.parametrize("name", LOSSES)
KL = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)  # of (3/4, 1/4) from (1/2, 1/2)


def row(*pixels):
    """A (1, C, 1, W) map from one tuple of channels per pixel."""
    return torch.tensor(pixels, dtype=torch.float64).T[None, :, None, :]


def labels(*values):
    """A (1, 1, W) label."""
    return torch.tensor(values)[None, None]


def batch(n=2, c=4, h=5, w=7, seed=0):
    """student, teacher, valid and label of a map; the label's image is its nearest enlargement by 2."""
    g = torch.Generator().manual_seed(seed)
    student, teacher = (2 * torch.randn(n, c, h, w, generator=g, dtype=torch.float64) for _ in range(2))
    label = torch.randint(c, (n, h, w), generator=g)
    label[:, 0, :3] = 255
    valid = (torch.rand(n, h, w, generator=g) > 0.3) & (label != 255)
    return student, teacher, valid, label


def run(name, student, teacher, valid, label):
    loss, options, fact = LOSSES[name]
    facts = {"label": label, "image_label": label.repeat_interleave(2, 1).repeat_interleave(2, 2)}
    student = student.detach().requires_grad_()
    value = loss(student, teacher, valid=valid, **options, **({fact: facts[fact]} if fact else {}))
    (gradient,) = torch.autograd.grad(value, student)
    return value.detach(), gradient


@every_loss
@pytest.mark.parametrize("poison", [-1e30, math.inf, math.nan])
def test_invalid_pixels_do_not_count(name, poison):
    student, teacher, valid, label = batch()
    value, gradient = run(name, student, teacher, valid, label)
    hole = ~valid.unsqueeze(1)
    again, gradient_again = run(
        name, student.masked_fill(hole, poison), teacher.masked_fill(hole, poison), valid, label
    )
    assert value > 1e-3 and value == again and torch.equal(gradient, gradient_again)
    assert gradient.masked_select(hole).eq(0).all()


@every_loss
def test_padding_and_empty_images_do_not_count(name):
    student, teacher, valid, label = batch()
    value, gradient = run(name, student[:1], teacher[:1], valid[:1], label[:1])
    valid[1] = False
    student, teacher = (F.pad(x, (0, 3, 0, 2), value=9.0) for x in (student, teacher))
    valid, label = F.pad(valid, (0, 3, 0, 2)), F.pad(label, (0, 3, 0, 2), value=255)
    padded, padded_gradient = run(name, student, teacher, valid, label)
    torch.testing.assert_close(padded, value, rtol=1e-12, atol=0)
    torch.testing.assert_close(padded_gradient[:1, :, :5, :7], gradient, rtol=1e-10, atol=1e-14)
    value, gradient = run(name, student, teacher, torch.zeros_like(valid), label)
    assert value == 0 and gradient.eq(0).all()


@pytest.mark.parametrize("name", ["kd-skd", "dkd", "dist", "bpkd_edge", "bpkd_body"])
def test_other_channel_counts_are_refused(name):
    student, teacher, valid, label = batch()
    with pytest.raises(UserError, match="4 channels and the teacher's 3"):
        run(name, student, teacher[:, :3], valid, label)


@pytest.mark.parametrize(
    ("normalisation", "expected"),
    [  # T = 2, two classes, two valid pixels of divergence KL and 0 in one image
        ("cirkd", 4 * KL / 2),
        ("torchdistiller", KL / 4),
        ("mmrazor-mean", 4 * KL / 4),
        ("mmrazor-batchmean", 4 * KL),
        ("skd", math.log(2)),  # cross entropy with a uniform student
    ],
)
def test_kd_by_hand(normalisation, expected):
    student, teacher = row((0, 0), (0, 0), (5, 1)), row((2 * math.log(3), 0), (0, 0), (3, 9))
    valid = torch.tensor([[[True, True, False]]])
    value = kd(student, teacher, valid=valid, temperature=2.0, normalisation=normalisation).item()
    assert value == pytest.approx(expected, rel=1e-12)


def test_dkd_by_hand():
    # p_t = (2, 1, 1) / 4, so b_t = (1/2, 1/2) and q_t = (1/2, 1/2);
    # p_s = (2, 3, 1) / 6, so b_s = (1/3, 2/3) and q_s = (3/4, 1/4).
    teacher = row((math.log(2), 0, 0), (1, 2, 3))
    student = row((math.log(2), math.log(3), 0), (9, 8, 1))
    target_kl = 0.5 * math.log(1.5) + 0.5 * math.log(0.75)
    other_kl = 0.5 * math.log(2 / 3) + 0.5 * math.log(2)
    for official in (False, True):
        options = {"label": labels(0, 255), "alpha": 3.0, "beta": 2.0, "official": official}
        value = dkd(student, teacher, temperature=1.0, **options).item()
        assert value == pytest.approx(3 * target_kl + 2 * other_kl, rel=1e-12)
        value = dkd(2 * student, 2 * teacher, temperature=2.0, **options).item()
        assert value == pytest.approx(4 * (3 * target_kl + 2 * other_kl), rel=1e-12)


@pytest.mark.parametrize("classes", [1, 2])
def test_dkd_of_few_classes(classes):
    student, teacher, valid, label = batch(c=classes)
    value, gradient = run("dkd", student, teacher, valid, label)
    assert value.isfinite() and gradient.isfinite().all() and (value > 0) == (classes == 2)
    without = dkd(student, teacher, valid=valid, label=label, beta=0.0)
    assert value == pytest.approx(without.item(), rel=1e-12)  # a single other class is certain among the others


def test_dkd_is_finite_and_exact_for_far_apart_logits():
    student, teacher = row((3000, 1, 0)), row((3000, math.log(3) + 1, 0))
    label = labels(0)
    q_teacher = 3 * math.e / (3 * math.e + 1)
    q_student = math.e / (math.e + 1)
    expected = q_teacher * math.log(q_teacher / q_student) + (1 - q_teacher) * math.log(
        (1 - q_teacher) / (1 - q_student)
    )
    assert dkd(student, teacher, label=label, temperature=1.0, beta=1.0).item() == pytest.approx(expected, rel=1e-9)
    assert not dkd(student, teacher, label=label, temperature=1.0, official=True).isclose(
        torch.tensor(8 * expected).double()
    )
    student, teacher = row((0, 3000)), row((1, 0))
    assert dkd(student, teacher, label=label, temperature=1.0).isfinite()
    assert dkd(student, teacher, label=label, temperature=1.0, official=True).isinf()


def test_dist_by_hand():
    # Two classes: the correlation over classes is 1 or -1, that over pixels the same for both.
    p_student, p_teacher = torch.tensor([0.9, 0.6, 0.2]).double(), torch.tensor([0.6, 0.4, 0.3]).double()
    student, teacher = (torch.stack((p, 1 - p)).log()[None, :, None, :] for p in (p_student, p_teacher))
    inter = 1 - (1 - 1 + 1) / 3
    intra = 1 - torch.corrcoef(torch.stack((p_student, p_teacher)))[0, 1].item()
    value = dist(student, teacher, beta=2.0, gamma=3.0).item()
    assert value == pytest.approx(2 * inter + 3 * intra, rel=1e-5)  # EPS beside norms of 0.01
    value = dist(2 * student, 2 * teacher, beta=2.0, gamma=3.0, temperature=2.0).item()
    assert value == pytest.approx(4 * (2 * inter + 3 * intra), rel=1e-5)


def test_dist_sees_only_correlation():
    student, _, _, _ = batch()
    p = student.softmax(1)
    assert dist(student, (0.5 * p + 0.125).log()).item() == pytest.approx(0, abs=1e-6)


def test_bpkd_edge_by_hand():
    # The windows of pixels 2 and 3 hold both classes: M = 1 there for both, n_c = 2.
    student = row(*[(0, 0)] * 6)
    teacher = row((5, 0), (5, 0), (2 * math.log(3), 0), (0, 0), (5, 0), (5, 0))
    options = {"image_label": labels(0, 0, 0, 1, 1, 1), "temperature": 2.0, "width": 3}
    assert bpkd_edge(student, teacher, alpha=5.0, **options).item() == pytest.approx(5 * 4 * KL, rel=1e-12)
    valid = torch.tensor([[[True, True, True, False, True, True]]])  # n_c = 1
    assert bpkd_edge(student, teacher, valid=valid, **options).item() == pytest.approx(2 * 4 * 2 * KL, rel=1e-12)


def test_bpkd_of_soft_shares_by_hand():
    # M = 1/2 in both cells of both classes: the edge logits are halved, the KL is weighted by 1/2.
    student, teacher = row((0, 0), (0, 0)), row((2 * math.log(3), 0), (0, 0))
    options = {"image_label": labels(0, 0, 1, 1), "temperature": 1.0, "width": 3}
    assert bpkd_edge(student, teacher, alpha=1.0, **options).item() == pytest.approx(2 * KL / 2 / 2, rel=1e-12)
    assert bpkd_body(student, teacher, **options).item() == pytest.approx(
        KL / 2, rel=1e-12
    )  # the second channel agrees


def test_bpkd_without_edges():
    student, teacher, valid, label = batch()
    for image_label in (torch.full_like(label, 255), torch.zeros_like(label)):
        assert bpkd_edge(student, teacher, valid=valid, image_label=image_label) == 0
        body = bpkd_body(student, teacher, valid=valid, image_label=image_label)
        assert body == cwd(student, teacher, valid=valid, temperature=4.0)
    labelled = bpkd_edge(student[:1], teacher[:1], image_label=label[:1])
    label[1] = 255
    torch.testing.assert_close(bpkd_edge(student, teacher, image_label=label), labelled)


@pytest.mark.parametrize("size", [(13, 18), (5, 7), (1, 1), (26, 36)])
@pytest.mark.parametrize("width", [3, 7])
def test_edge_share_is_dilation_minus_erosion(size, width):
    label = F.interpolate(torch.randint(5, (2, 1, 4, 5)).double(), (13, 18)).long().squeeze(1)
    one_hot = F.one_hot(label, 6).movedim(-1, 1).double()  # class 5 is nowhere
    dilation, erosion = (sign * F.max_pool2d(sign * one_hot, width, 1, width // 2) for sign in (1, -1))
    expected = F.adaptive_avg_pool2d(dilation - erosion, size)
    torch.testing.assert_close(edge_share(label, torch.zeros(2, 6, *size).double(), width), expected)


@pytest.mark.parametrize(
    ("width", "size", "expected"),
    [
        (3, 6, [0, 0, 0, 0, 0, 0]),  # neither the ignored pixels nor the border make an edge
        (5, 6, [0, 0, 0, 0, 0, 0]),
        (7, 6, [0, 1, 0, 0, 1, 0]),  # an edge across them, but not on them
        (7, 3, [1 / 2, 0, 1 / 2]),
        (7, 2, [1 / 2, 1 / 2]),  # shares of the labelled pixels
    ],
)
def test_ignored_pixels_make_no_edge(width, size, expected):
    share = edge_share(labels(0, 0, 255, 255, 1, 1), torch.zeros(1, 2, 1, size).double(), width)
    torch.testing.assert_close(share, torch.tensor(expected).double().expand(1, 2, 1, size))


@pytest.mark.parametrize("width", [1, 4, -3])
def test_edge_width_is_odd(width):
    with pytest.raises(UserError, match="odd number of at least 3"):
        bpkd_edge(row((0, 0)), row((0, 0)), image_label=labels(0), width=width)


golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"golden data not found at {GOLDEN}")


@golden
@pytest.mark.parametrize("case", [case for case in CASES if case.file.endswith("_f16")], ids=str)
@pytest.mark.parametrize(
    ("dtype", "loss", "gradient"), [(torch.float16, 2e-3, 1e-2), (torch.bfloat16, 5e-2, 5e-2)], ids=str
)
def test_half_precision_agrees_with_the_official_double(case, dtype, loss, gradient):
    found = Golden(case.file, dtype).deviations(case.run)
    assert found["loss"] <= loss and found["grad_student"] <= gradient


@golden
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cwd_is_finite_where_the_official_one_is_not(dtype):
    g = Golden("cwd_cirkd_extreme", dtype)
    assert g.data["loss"].isnan()
    value = cwd(g["student"], g["teacher"])
    value.backward()
    assert value.isfinite() and g["student"].grad.isfinite().all()
