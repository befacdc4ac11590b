"""Mix Transformers, the backbones of SegFormer (Xie et al., NeurIPS 2021, section 3.1 and table 6)."""

from torch import nn

from bcd.models.layers import Backbone, timm_backbone

MIT = tuple(f"mit_b{size}" for size in range(6))


def mix_transformer(name: str) -> Backbone:
    """A randomly initialised MiT: image `(N, 3, H, W)` to four maps of stride 4, 8, 16, 32.

    `name` is one of `MIT`. timm's Pyramid Vision Transformer V2 of the same number has the same blocks, depths and
    widths. MiT differs by its feed-forward ratio, 4 in every stage, and by the epsilon of its norms. Stochastic depth
    grows to 0.1, as in the published training.
    """
    net = timm_backbone(
        name.replace("mit_", "pvt_v2_"),
        out_indices=(0, 1, 2, 3),
        mlp_ratios=(4, 4, 4, 4),
        drop_path_rate=0.1,
    )
    for module in net.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-6
    return net
