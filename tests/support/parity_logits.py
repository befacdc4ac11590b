"""Golden cases of the losses on logits."""

import torch
from support.parity import Case, Golden
from torch import Tensor

from bcd.losses.channel import cwd
from bcd.losses.dist import dist
from bcd.losses.dkd import dkd
from bcd.losses.logits import kd


def _temperature(g: Golden) -> float:
    return next((g.hyper[name] for name in ("temperature", "tau", "T") if name in g.hyper), 1.0)


def _maps(g: Golden) -> tuple[Tensor, Tensor]:
    """Student and teacher; rows (N, C) become maps of one pixel."""
    return tuple(x if x.dim() == 4 else x[..., None, None] for x in (g["student"], g["teacher"]))


def _kd(normalisation: str = "cirkd"):
    return lambda g: kd(*_maps(g), temperature=_temperature(g), normalisation=normalisation)


def _cwd(**options):
    return lambda g: g.hyper.get("loss_weight", 1.0) * cwd(*_maps(g), temperature=_temperature(g), **options)


def _cwd_conv(g: Golden) -> Tensor:
    """CIRKD divides by the student's channels before its 1x1 convolution, we by the channels compared."""
    conv = g.load(torch.nn.Conv2d(16, 32, 1, bias=False), {"conv.weight": "weight"})
    return 32 / 16 * cwd(conv(g["student"]), g["teacher"], temperature=_temperature(g))


def _cwd_cross_entropy(g: Golden) -> Tensor:
    """The cross entropy in the place of the divergence: the same but for the teacher's entropy, a constant."""
    teacher = (g["teacher"] / _temperature(g)).flatten(2).softmax(-1)
    entropy = _temperature(g) ** 2 * torch.special.entr(teacher).sum(-1).mean()
    return g.hyper["weight"] * (_cwd()(g) + entropy)


def _dkd(g: Golden) -> Tensor:
    return dkd(*_maps(g), label=g["labels"][:, None, None], **g.hyper)


def _dist(beta: str = "beta", gamma: str = "gamma"):
    return lambda g: dist(*_maps(g), temperature=_temperature(g), beta=g.hyper[beta], gamma=g.hyper[gamma])


CASES = [
    Case("kd", "kd_cirkd_T1", _kd()),
    Case("kd", "kd_cirkd_T1_extreme", _kd()),
    Case("kd", "kd_cirkd_T4", _kd()),
    Case("kd", "kd_cirkd_T4_f16", _kd()),
    Case("kd", "kd_mdistiller_T4", _kd()),
    Case("kd", "kd_repdistiller_T4", _kd()),
    Case("kd", "kd_mmrazor_batchmean_T2", _kd("mmrazor-batchmean")),
    Case("kd", "kd_torchdistiller_T4", _kd("torchdistiller")),
    Case("kd", "kd_skd_pixelwise", _kd("skd")),
    Case("kd", "cwd_torchdistiller_spatial_kl_T2", _kd()),  # its norm over channels is pixel-wise distillation
    Case("cwd", "cwd_cirkd_logits_T4", _cwd()),
    Case("cwd", "cwd_cirkd_extreme", _cwd(official=True)),
    Case("cwd", "cwd_cirkd_feat_conv_T4", _cwd_conv),
    Case("cwd", "cwd_mmrazor_extreme", _cwd()),
    Case("cwd", "cwd_mmrazor_tau1", _cwd()),
    Case("cwd", "cwd_pppppM_tau1_w3", _cwd_cross_entropy),
    Case("cwd", "cwd_torchdistiller_channel_T3", _cwd()),
    Case("dkd", "dkd_mdistiller", _dkd),
    Case("dist", "dist_official", _dist()),
    Case("dist", "dist_official_f16", _dist()),
    Case("dist", "dist_mmrazor_tau4", _dist("inter_loss_weight", "intra_loss_weight")),
]
