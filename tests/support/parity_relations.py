"""Golden cases of the losses on features: attention, hints, and relations of pixels, channels and images."""

import torch.nn.functional as F
from support.parity import Case, Golden
from torch import nn

from bcd.losses.attention import at
from bcd.losses.dsd import csd, psd
from bcd.losses.hint import fitnet
from bcd.losses.nst import nst
from bcd.losses.pairwise import skd
from bcd.losses.pkd import pkd
from bcd.losses.rkd import rkd
from bcd.losses.spkd import spkd


def _both(loss, **options):
    return lambda g: loss(g["student"], g["teacher"], **options)


def _at_resized(g: Golden):
    return at(F.adaptive_avg_pool2d(g["student"], g["teacher"].shape[2:]), g["teacher"], p=4)


def _fitnet(g: Golden):
    conv = g.load(nn.Conv2d(16, 32, 1, bias=False), {"conv.weight": "weight"})
    return fitnet(conv(g["student"]), g["teacher"])


def _dsd(g: Golden):
    student, teacher = g.list("student"), g.list("teacher")
    return psd(student, teacher) + csd(student[-1], teacher[-1])


def _pkd_levels(g: Golden):
    levels = zip(g.list("student"), g.list("teacher"), strict=True)
    return sum(pkd(F.interpolate(s, t.shape[2:], mode="bilinear"), t) for s, t in levels)


CASES = [
    Case("at", "at_cirkd", _both(at)),
    Case("at", "at_official", _both(at)),
    Case("at", "at_repdistiller_resize_p4", _at_resized),
    Case("fitnet", "fitnet_cirkd", _fitnet),
    Case("psd", "dsd_cirkd", _dsd),  # plus csd, as stored
    Case("skd", "skd_pairwise_cirkd", _both(skd)),
    Case("skd", "skd_pairwise_cirkd_ties", _both(skd)),
    Case("skd", "skd_pairwise_irfan_s0.125", _both(skd, scale=0.125, official=True)),
    Case("skd", "skd_pairwise_irfan_s0.5", _both(skd, scale=0.5, official=True)),
    Case("spkd", "spkd_repdistiller", _both(spkd)),
    Case("spkd", "spkd_mdistiller_b1", _both(spkd)),
    Case("rkd", "rkd_repdistiller", lambda g: rkd(g["student"][..., None, None], g["teacher"][..., None, None])),
    Case("nst", "nst_repdistiller", _both(nst)),
    Case("pkd", "pkd_mmrazor", lambda g: 6 * pkd(g["student"], g["teacher"])),
    Case("pkd", "pkd_mmrazor_levels_resize", _pkd_levels),
]
