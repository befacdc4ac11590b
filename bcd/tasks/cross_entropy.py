"""Cross-entropy of label maps: over all pixels, or over the hard ones (OHEM)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bcd import distributed
from bcd.label import IGNORE


def cross_entropy(logits: Tensor, label: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean of -log p(label) over the pixels of all processes that are not ignored; 0 where there is none.

    With class weights `w` it is the weighted mean, `sum(-w(label) log p(label)) / sum(w(label))`, as torch has it.

    Args:
        logits: float (N, C, H, W), of any range.
        label: int64 (N, H, W), classes 0..C-1 or 255 = ignore.
        weights: float (C,), above 0; None for equal ones.

    Returns:
        float32 scalar, not negative.
    """
    total = F.cross_entropy(logits.float(), label, weights, ignore_index=IGNORE, reduction="sum")
    known = label != IGNORE
    return distributed.global_mean(total, known.sum() if weights is None else weights[label[known]].sum())


def ohem_cross_entropy(
    logits: Tensor, label: Tensor, threshold: float, min_kept: int, weights: Tensor | None = None
) -> Tensor:
    """Cross-entropy by online hard example mining: the mean of -log p(label) over the pixels that are hard.

    A pixel is hard if p(label) < `threshold`. Where a batch has fewer than `min_kept` of these for each image, as many
    of lowest p(label) are taken, or all that are not ignored. The pixels of all images and processes are ranked
    together.

    Sources: Shrivastava, Gupta and Girshick 2016, "Training region-based object detectors with online hard example
    mining" (the idea, for regions); `OHEMPixelSampler` of mmsegmentation (the rule for pixels). Two points differ from
    the latter. Pixels that tie with the last one taken are taken, too, so that `min_kept` holds, where mmsegmentation
    takes none of them. The mean is over the pixels taken, as in the paper, where mmsegmentation divides by all.

    Args:
        logits, label, weights: as of `cross_entropy`; the weights do not change which pixels are hard.
        threshold: probability in 0..1; at 0 `min_kept` alone decides.
        min_kept: pixels of an image, at least 1.

    Returns:
        float32 scalar, not negative; 0 where every pixel is ignored. Its gradient is 0 at pixels that are not taken.
    """
    loss = F.cross_entropy(logits.float(), label, ignore_index=IGNORE, reduction="none")
    taken = _hard(loss.detach(), label != IGNORE, threshold, min_kept)
    # A product and no selection: a NaN must reach the sum, though no comparison takes it for hard.
    if weights is None:
        return distributed.global_mean((loss * taken).sum(), taken.sum())
    share = taken * weights[label.where(taken, 0)]
    return distributed.global_mean((loss * share).sum(), share.sum())


def _hard(loss: Tensor, known: Tensor, threshold: float, min_kept: int) -> Tensor:
    """Which pixels are hard, bool (N, H, W), by their loss -log p, float (N, H, W); `known` pixels have a label."""
    hard = known & (torch.exp(-loss) < threshold)
    wanted = min_kept * len(loss)  # for each process, all of which have as many images
    if distributed.mean_over_all([hard.sum().item()])[0] >= wanted:
        return hard
    losses, wanted = distributed.joined(loss[known]), wanted * distributed.world()
    if losses.numel() <= wanted:
        return known
    return known & (loss >= losses.topk(wanted, sorted=False).values.min())
