"""Golden cases of the losses on logits."""

from parity import Case

from bcd.losses.channel import cwd
from bcd.losses.logits import kd


def _kd(temperature: float, factor: float = 1.0):
    return lambda g: factor * kd(g["student"], g["teacher"], temperature=temperature)


CASES = [
    Case("kd", "kd_cirkd_T1", _kd(1.0)),
    Case("cwd", "cwd_mmrazor_tau1", lambda g: 5.0 * cwd(g["student"], g["teacher"])),
]
