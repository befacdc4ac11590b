"""Agreement with the official implementations, on numbers produced by running them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bcd.losses.channel import cwd
from bcd.losses.logits import kd

GOLDEN = Path(__file__).parents[1].parent / "shared" / "golden"
pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"golden data not found at {GOLDEN}")

# file, loss, temperature, and what their value must be multiplied by ours to get (their normalisation or weight)
CASES = [
    ("kd_cirkd_T1", kd, 1.0, 1.0),
    ("kd_cirkd_T1_extreme", kd, 1.0, 1.0),
    ("kd_cirkd_T4", kd, 4.0, 1.0),
    ("kd_cirkd_T4_f16", kd, 4.0, 1.0),
    ("kd_mdistiller_T4", kd, 4.0, 1.0),
    ("kd_mmrazor_batchmean_T2", kd, 2.0, 12 * 16),  # divides by the batch only
    ("kd_torchdistiller_T4", kd, 4.0, 1 / (4**2 * 19)),  # no T^2, and a mean over classes
    ("cwd_torchdistiller_spatial_kl_T2", kd, 2.0, 1.0),  # its norm over channels is pixel-wise distillation
    ("cwd_cirkd_logits_T4", cwd, 4.0, 1.0),
    ("cwd_torchdistiller_channel_T3", cwd, 3.0, 1.0),
    ("cwd_mmrazor_tau1", cwd, 1.0, 5.0),  # its loss weight
    ("cwd_mmrazor_extreme", cwd, 1.0, 1.0),
]
every_case = pytest.mark.parametrize(("name", "loss", "temperature", "factor"), CASES, ids=[c[0] for c in CASES])


def load(name):
    data = np.load(GOLDEN / f"{name}.npz", allow_pickle=False)
    return {key: torch.from_numpy(data[key]) for key in data.files if data[key].dtype.kind in "fiu"}


def run(loss, data, temperature, factor, dtype):
    student = data["student"].to(dtype).requires_grad_()
    value = factor * loss(student, data["teacher"].to(dtype), temperature=temperature)
    value.backward()
    return value.detach().double(), student.grad.double()


def assert_agrees(value, gradient, data, loss_rtol, grad_rtol, loss_atol=1e-12, grad_atol=1e-12):
    assert abs(value - data["loss"]) <= loss_rtol * abs(data["loss"]) + loss_atol
    reference = data["grad_student"].double()
    assert (gradient - reference).abs().max() <= grad_rtol * reference.abs().max() + grad_atol


@every_case
def test_float64(name, loss, temperature, factor):
    data = load(name)
    assert_agrees(*run(loss, data, temperature, factor, torch.float64), data, 1e-9, 1e-8)


@every_case
def test_float32(name, loss, temperature, factor):
    data = load(name)
    assert_agrees(*run(loss, data, temperature, factor, torch.float32), data, 2e-5, 1e-4, 1e-9, 1e-7)


@pytest.mark.parametrize(
    ("dtype", "loss_rtol", "grad_rtol"), [(torch.float16, 2e-3, 1e-2), (torch.bfloat16, 5e-2, 5e-2)]
)
def test_half(dtype, loss_rtol, grad_rtol):
    data = load("kd_cirkd_T4_f16")
    assert_agrees(*run(kd, data, 4.0, 1.0, dtype), data, loss_rtol, grad_rtol)


def test_cwd_after_a_projector():
    """CIRKD divides by the student's channels before its 1x1 convolution, we by the channels compared."""
    data = load("cwd_cirkd_feat_conv_T4")
    student = data["student"].double().requires_grad_()
    weight = data["param/conv.weight"].double().requires_grad_()
    value = cwd(F.conv2d(student, weight), data["teacher"].double(), temperature=4.0) * (32 / 16)
    value.backward()
    assert_agrees(value.detach(), student.grad, data, 1e-9, 1e-8)
    reference = data["grad_param/conv.weight"]
    assert (weight.grad - reference).abs().max() <= 1e-8 * reference.abs().max()


def test_the_safe_form_is_finite_where_the_official_one_is_not():
    data = load("cwd_cirkd_extreme")
    assert data["loss"].isnan()
    value, gradient = run(cwd, data, 1.0, 1.0, torch.float32)
    assert value.isfinite() and gradient.isfinite().all()


def test_hyper_parameters_are_those_of_the_files():
    for name, _, temperature, _ in CASES:
        hyper = json.loads(np.load(GOLDEN / f"{name}.npz")["meta"].item()).get("hyper", {})
        stated = hyper.get("temperature", hyper.get("tau"))
        assert stated is None or stated == temperature, name
