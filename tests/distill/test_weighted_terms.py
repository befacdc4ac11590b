import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bcd.config.schema.methods import WeightedTerm
from bcd.distill.facts import LABEL_LOGIT, label_logits, resize_nearest
from bcd.distill.taps import observe
from bcd.distill.terms import WeightedTerms, projector, schedule
from bcd.errors import UserError
from bcd.losses import TERMS, Term
from bcd.losses.channel import cwd
from bcd.losses.context import context
from bcd.losses.logits import kd

STUDENT = {"stage1": (2, 4, 8, 12), "stage3": (2, 6, 4, 6), "stage4": (2, 8, 2, 3), "logits": (2, 5, 8, 12)}
TEACHER = {"stage1": (2, 8, 16, 24), "stage3": (2, 9, 4, 6), "stage4": (2, 8, 2, 3), "logits": (2, 5, 8, 12)}


def tensors(shapes, seed, grad=False):
    g = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=g).requires_grad_(grad) for name, shape in shapes.items()}


@pytest.fixture
def student():
    return tensors(STUDENT, 0, grad=True)


@pytest.fixture
def teacher():
    return tensors(TEACHER, 1)


def distil(terms, student, teacher, valid=None, label=None, step=0, total=10):
    weighted = WeightedTerms(terms, STUDENT, TEACHER)
    return weighted, weighted(student, teacher, valid=valid, label=label, step=step, total=total)


@pytest.mark.parametrize(
    ("kind", "warmup", "expected"),
    [
        ("constant", 0, [1, 1, 1, 1, 1]),
        ("linear", 0, [1, 0.75, 0.5, 0.25, 0]),
        ("warmup", 2, [0.5, 1, 1, 1, 1]),
        ("constant", 2, [0.5, 1, 1, 1, 1]),
        ("linear", 2, [0.5, 0.75, 0.5, 0.25, 0]),
    ],
)
def test_schedule(kind, warmup, expected):
    assert [schedule(kind, step, 4, warmup) for step in range(5)] == expected


@given(st.sampled_from(["constant", "linear", "warmup"]), st.integers(1, 1000), st.integers(1, 2000), st.data())
def test_schedule_is_positive_until_the_end(kind, total, warmup, data):
    step = data.draw(st.integers(0, total - 1))
    assert 0 < schedule(kind, step, total, warmup) <= 1


def test_schedule_names_its_kinds():
    with pytest.raises(UserError, match="constant, linear, warmup"):
        schedule("cosine", 0, 10)
    with pytest.raises(UserError, match="warmup"):
        schedule("warmup", 0, 10, 0)


def test_weights_schedules_and_means_over_taps(student, teacher):
    terms = [
        WeightedTerm(term="kd", taps=["logits"], weight=0.5, schedule="linear", options={"temperature": 4.0}),
        WeightedTerm(term="context", taps=["stage3", "stage4"], weight=2.0),
    ]
    _, losses = distil(terms, student, teacher, step=4, total=10)
    assert list(losses) == ["kd", "context"]
    expected = 0.5 * 0.6 * kd(student["logits"], teacher["logits"], temperature=4.0)
    torch.testing.assert_close(losses["kd"], expected)
    each = [context(student[tap], teacher[tap]) for tap in ("stage3", "stage4")]
    torch.testing.assert_close(losses["context"], 2.0 * (each[0] + each[1]) / 2)


def test_keys_are_unique_and_default_taps_are_the_terms(student, teacher):
    terms = [WeightedTerm(term="kd"), WeightedTerm(term="cwd"), WeightedTerm(term="kd", options={"temperature": 4.0})]
    weighted, losses = distil(terms, student, teacher)
    assert list(losses) == ["kd/0", "cwd", "kd/1"] and weighted.taps == ("logits",)
    assert losses["kd/0"] != losses["kd/1"]


def test_an_entry_of_weight_zero_is_left_out(student, teacher):
    weighted, losses = distil(
        [WeightedTerm(term="kd"), WeightedTerm(term="cwd", taps=["stage1"], weight=0.0)], student, teacher
    )
    assert list(losses) == ["kd"] and weighted.taps == ("logits",) and not list(weighted.parameters())
    assert distil([], student, teacher)[1] == {}


def test_projects_the_student_and_resizes_the_teacher(student, teacher):
    torch.manual_seed(3)
    weighted, losses = distil([WeightedTerm(term="cwd", taps=["stage1"])], student, teacher)
    (weight,) = weighted.parameters()
    assert weight.shape == (8, 4, 1, 1)
    resized = F.interpolate(teacher["stage1"], size=(8, 12), mode="bilinear", align_corners=False)
    torch.testing.assert_close(losses["cwd"], cwd(F.conv2d(student["stage1"], weight), resized))
    losses["cwd"].backward()
    assert weight.grad.abs().sum() > 0 and student["stage1"].grad.abs().sum() > 0


def test_the_teacher_gets_no_gradient(student):
    teacher = tensors(TEACHER, 1, grad=True)
    on_features = ("cwd", "boundary", "context", "at", "fitnet", "pkd")
    on_logits = ("kd", "dist", "posterior_boundary", "csd")
    every = [WeightedTerm(term=name, taps=["stage1"]) for name in on_features] + [
        WeightedTerm(term=name) for name in on_logits
    ]
    _, losses = distil(every, student, teacher)
    sum(losses.values()).backward()
    assert all(t.grad is None for t in teacher.values())
    assert student["stage1"].grad.isfinite().all()


def test_padding_at_image_size_reaches_no_tap(student, teacher):
    valid = torch.ones(2, 32, 48, dtype=torch.bool)
    valid[:, 16:], valid[:, :, 32:] = False, False
    terms = [
        WeightedTerm(term="boundary", taps=["stage1", "stage3"]),
        WeightedTerm(term="context"),
        WeightedTerm(term="cwd"),
    ]
    _, losses = distil(terms, student, teacher, valid=valid)
    gradients = torch.autograd.grad(sum(losses.values()), list(student.values()))
    for gradient in gradients:
        h, w = gradient.shape[2] // 2, gradient.shape[3] * 2 // 3
        assert gradient[:, :, h:].eq(0).all() and gradient[:, :, :, w:].eq(0).all()
        assert gradient.abs().sum() > 0


def test_labels_arrive_at_the_taps_resolution(student, teacher, monkeypatch):
    def agreement(student, teacher, *, valid=None, label=None):
        assert label.shape == valid.shape == student.shape[:1] + student.shape[2:] and label.dtype == torch.int64
        return (student.mean(1) * (label == 1)).sum()

    monkeypatch.setitem(TERMS, "agreement", Term(agreement, taps=("logits",)))
    label = torch.zeros(2, 32, 48, dtype=torch.int64)
    label[:, :16] = 1
    valid = torch.ones(2, 32, 48, dtype=torch.bool)
    _, losses = distil([WeightedTerm(term="agreement", taps=["logits", "stage4"])], student, teacher, valid, label)
    expected = (student["logits"].mean(1)[:, :4].sum() + student["stage4"].mean(1)[:, :1].sum()) / 2
    torch.testing.assert_close(losses["agreement"], expected)


def test_a_loss_with_state_is_built_from_the_shapes(student, teacher, monkeypatch):
    class Regression(nn.Module):
        def __init__(self, student_shape, teacher_shape, *, width=3):
            super().__init__()
            self.inner = nn.Sequential(nn.Conv2d(student_shape[1], width, 1), nn.Conv2d(width, teacher_shape[1], 1))

        def forward(self, student, teacher, *, valid=None, label=None):
            return F.mse_loss(self.inner(student), teacher)

    monkeypatch.setitem(TERMS, "regression", Term(Regression, taps=("stage3",)))
    weighted, losses = distil([WeightedTerm(term="regression", options={"width": 7})], student, teacher)
    assert sum(p.numel() for p in weighted.parameters()) == 6 * 7 + 7 + 7 * 9 + 9
    losses["regression"].backward()
    assert all(p.grad is not None for p in weighted.parameters())
    WeightedTerms(weighted.terms, STUDENT, TEACHER).load_state_dict(weighted.state_dict())


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (WeightedTerm(term="hkd"), "unknown term 'hkd'; choose from boundary, context"),
        (
            WeightedTerm(term="kd", options={"temprature": 2.0}),
            "kd.temprature: unknown key; did you mean",
        ),
        (WeightedTerm(term="kd", options={"temperature": 0}), "kd.temperature: input should be greater than 0"),
        (WeightedTerm(term="boundary", options={"operator": "sobel"}), "boundary.operator: 'sobel' is not allowed"),
        (WeightedTerm(term="context", taps=["stage2"]), "asks for tap 'stage2', but the student offers stage1, stage3"),
        (WeightedTerm(term="boundary"), "'boundary' asks for tap 'stage2'"),
    ],
)
def test_mistakes_are_found_before_training(entry, message):
    with pytest.raises(UserError, match=message):
        WeightedTerms([entry], STUDENT, TEACHER)


def test_the_second_of_two_equal_terms_is_named():
    terms = [WeightedTerm(term="kd"), WeightedTerm(term="kd", options={"temperature": "hot"})]
    with pytest.raises(UserError, match="^kd/1.temperature: input should be a valid number, but got 'hot'"):
        WeightedTerms(terms, STUDENT, TEACHER)


def test_taps_that_are_no_maps_or_that_the_teacher_lacks():
    with pytest.raises(UserError, match="the teacher offers stage1"):
        WeightedTerms([WeightedTerm(term="kd")], STUDENT, {"stage1": TEACHER["stage1"]})
    with pytest.raises(UserError, match=r"\(2, 10, 64\); tap a map"):
        WeightedTerms([WeightedTerm(term="context", taps=["stage3"])], STUDENT | {"stage3": (2, 10, 64)}, TEACHER)


def test_projector_exists_only_where_channels_differ():
    assert isinstance(projector((2, 4, 8, 8), (2, 4, 4, 4)), nn.Identity)
    convolution = projector((2, 4, 8, 8), (2, 6, 4, 4))
    assert convolution.weight.shape == (6, 4, 1, 1) and convolution.bias is None


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 40), st.integers(1, 40))
def test_resize_nearest_takes_the_pixel_under_the_centre(h, w, height, width):
    image = torch.arange(height * width).reshape(1, height, width)
    resized = resize_nearest(image, (h, w))
    centres = [[int((2 * i + 1) * height // (2 * h)) * width + (2 * j + 1) * width // (2 * w) for j in range(w)]
               for i in range(h)]  # fmt: skip
    assert resized.dtype == image.dtype and resized[0].tolist() == centres
    reference = F.interpolate(image[None].double(), size=(h, w), mode="nearest-exact")[0]
    if height % h == 0 and width % w == 0:  # elsewhere torch rounds in float32
        assert torch.equal(resized.double(), reference)


def test_observe_leaves_no_trace():
    class Noise(nn.Module):  # draws in eval mode too
        def forward(self, x):
            return x + torch.randn_like(x)

    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), Noise(), nn.Conv2d(4, 2, 1))
    model[1].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random_state = torch.get_rng_state()
    shapes = observe(model, {"stage1": "1", "logits": "3"}, lambda: model(torch.zeros(1, 3, 8, 9)))
    assert shapes == {"stage1": (1, 4, 6, 7), "logits": (1, 2, 6, 7)}
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert [m.training for m in model] == [True, False, True, True]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_observe_restores_the_model_when_the_pass_fails():
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    with pytest.raises(RuntimeError):
        observe(model, {"logits": "0"}, lambda: model(torch.zeros(1, 5, 8, 8)))
    assert model.training and model[0].training and not model[0]._forward_hooks


def test_distilling_pulls_the_student_to_the_teacher(teacher):
    torch.manual_seed(0)
    student = tensors(STUDENT, 0, grad=True)
    terms = [
        WeightedTerm(term="kd"),
        WeightedTerm(term="cwd", taps=["stage1"]),
        WeightedTerm(term="boundary", taps=["stage1", "stage3"]),
    ]
    terms += [WeightedTerm(term="context"), WeightedTerm(term="posterior_boundary")]
    weighted = WeightedTerms(terms, STUDENT, TEACHER)
    optimizer = torch.optim.Adam([*student.values(), *weighted.parameters()], lr=0.05)
    history = []
    for _ in range(60):
        losses = weighted(student, teacher, valid=None, label=None, step=0, total=1)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        history.append({name: value.item() for name, value in losses.items()})
    assert all(history[-1][name] < 0.5 * history[0][name] for name in history[0])


def test_labels_in_the_place_of_the_teacher():
    """The control row: pixels without a label are out, and a student that is sure of the labels has no loss."""
    label = torch.tensor([[[0, 1], [2, 255]]])
    sure = label_logits(label, 3)
    assert sure[0, :, 0, 1].tolist() == [0, LABEL_LOGIT, 0] and sure[0, :, 1, 1].eq(0).all()
    shapes = {"logits": (1, 3, 2, 2)}
    weighted = WeightedTerms([WeightedTerm(term="kd", target="label")], shapes, shapes)
    unsure = {"logits": torch.zeros(1, 3, 2, 2)}
    now = {"valid": None, "label": label, "step": 0, "total": 1}
    assert weighted({"logits": sure}, unsure, **now)["kd"] == 0
    one_wrong = {"logits": sure.index_fill(3, torch.tensor([1]), 0.0)}
    three, first_row = (weighted(one_wrong, unsure, **now | {"label": x})["kd"] for x in (label, label[:, :1]))
    assert three > 0 and first_row > three
    with pytest.raises(UserError, match="needs taps: \\[logits\\]"):
        WeightedTerms(
            [WeightedTerm(term="context", target="label")], STUDENT, TEACHER
        )  # whose default taps are features
    with pytest.raises(ValueError, match="the batch has no labels"):
        weighted({"logits": sure}, unsure, step=0, total=1)


def test_a_joint_loss_gets_lists_and_facts_by_name():
    """A joint loss sees all taps in one call, each at its student's size, and the facts that it names."""
    seen = {}

    def probe(student, teacher, *, valid=None, image_label=None, boxes=None, strength: float = 1.0):
        seen.update(teacher=teacher, valid=valid, image_label=image_label, boxes=boxes, strength=strength)
        return sum(s.sum() for s in student)

    term = Term(probe, taps=("stage1", "stage3"), joint=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TERMS, "probe", term)
        weighted = WeightedTerms([WeightedTerm(term="probe", options={"strength": 2.0})], STUDENT, TEACHER)
        student = {tap: torch.ones(shape) for tap, shape in STUDENT.items()}
        teacher = {tap: torch.ones(shape) for tap, shape in TEACHER.items()}
        n = len(student["stage1"])
        valid = torch.ones(n, 64, 64, dtype=torch.bool)
        label = torch.zeros(n, 64, 64, dtype=torch.int64)
        boxes = [torch.zeros(0, 4)] * n
        weighted(student, teacher, valid=valid, label=label, boxes=boxes, step=0, total=1)
    assert [t.shape[2:] for t in seen["teacher"]] == [student[f"stage{i}"].shape[2:] for i in (1, 3)]
    assert [v.shape[1:] for v in seen["valid"]] == [student[f"stage{i}"].shape[2:] for i in (1, 3)]
    assert seen["image_label"] is label and seen["boxes"] is boxes and seen["strength"] == 2.0
    assert term.facts == ("valid", "image_label", "boxes")


def test_a_class_is_told_the_number_of_classes():
    class Bank(torch.nn.Module):
        def __init__(self, student_shape, teacher_shape, *, classes: int, size: int = 2):
            super().__init__()
            self.register_buffer("queue", torch.zeros(classes, size))

    term = Term(Bank, taps=("logits",))
    assert term.reads_classes
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TERMS, "bank", term)
        weighted = WeightedTerms([WeightedTerm(term="bank")], STUDENT, TEACHER, classes=5)
    assert weighted.state_dict()["losses.0.0.loss.queue"].shape == (5, 2)
