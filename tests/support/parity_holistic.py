"""Golden cases of holistic distillation."""

import math

import torch
from support.parity import Case, Golden
from torch import Tensor, nn

from bcd.losses.critic import Critic
from bcd.losses.holistic import critic_loss, generator_loss, gradient_penalty


def _penalty(g: Golden) -> Tensor:
    critic = nn.Sequential(nn.Conv2d(5, 6, 3, stride=2, padding=1), nn.Tanh(), nn.Conv2d(6, 1, 3))
    ours = {"c1.weight": "0.weight", "c1.bias": "0.bias", "c2.weight": "2.weight", "c2.bias": "2.bias"}
    g.load(critic, {f"gp.D.{official}": name for official, name in ours.items()})
    return gradient_penalty(critic, g["student"], g["teacher"], g.hyper["lambda_gp"])


def _official_names() -> dict[str, str]:
    """Official name -> ours, of the critic's parameters and its `u`."""
    names = {"preprocess_additional.weight": "scale", "preprocess_additional.bias": "shift"}
    for layer, at in zip(("l1", "l2", "l3", "l4"), (0, 2, 4, 7), strict=True):
        parts = {"weight_bar": "weight", "bias": "bias", "weight_u": "u"}
        names |= {f"{layer}.0.module.{official}": f"layers.{at}.{ours}" for official, ours in parts.items()}
    for attention, at in (("attn1", 6), ("attn2", 9)):
        names[f"{attention}.gamma"] = f"layers.{at}.gamma"
        for part in ("query", "key", "value"):
            names |= {f"{attention}.{part}_conv.{p}": f"layers.{at}.{part}.{p}" for p in ("weight", "bias")}
    return names | {f"last.0.{p}": f"layers.10.{p}" for p in ("weight", "bias")}


def _by_formula(name: str, shape: torch.Size) -> Tensor:
    """The weights of the file, which holds their formula (meta.hyper.weights) instead of their values."""
    if name.startswith("preprocess"):
        return torch.full(shape, float(name.endswith("weight")))
    if name.endswith("gamma"):
        return torch.full(shape, 0.5)
    i = torch.arange(shape.numel(), dtype=torch.float64)
    phase = sum(map(ord, name)) % 97
    if name.endswith("_u"):
        u = torch.sin(0.7 * i + phase) + 0.1
        return (u / u.norm()).float().reshape(shape)
    values = torch.sin(0.7313 * i * (1 + (i % 7) / 10) + phase) / math.sqrt(math.prod(shape[1:]))
    return values.float().reshape(shape)


def _critic(g: Golden) -> Tensor:
    critic = Critic(channels=5)
    ours = dict(critic.named_parameters()) | dict(critic.named_buffers())
    names = _official_names()
    assert sorted(names.values()) == sorted(ours)
    g.data |= {f"param/{official}": _by_formula(official, ours[name].shape) for official, name in names.items()}
    return generator_loss(g.load(critic, names)(g["student"]))


CASES = [
    Case("holistic", "adv_D_hinge", lambda g: critic_loss(g["d_student"], g["d_teacher"], "hinge")),
    Case("holistic", "adv_G_wgan-gp", lambda g: generator_loss(g["d_student"])),
    Case("holistic", "adv_gradient_penalty", _penalty),
    Case("holistic", "adv_sagan_discriminator", _critic, tolerance=1e-7),
]
