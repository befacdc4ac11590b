"""The losses as one would write them down from their formulas: no masks, no tiles, plain autograd.

`PLAIN` maps the name of a term to a function of the maps (N, C, H, W) of student and teacher. It gives what the term
gives with its default options where every pixel is valid and labelled. `benchmarks/losses.py` measures both,
`tests/losses/test_plain.py` compares them. `module` is the term's own module: its weights are used, its forward is not.
Three terms are missing, because ours is what one would write anyway but for the masks: mgd, vid and holistic.
"""

from itertools import combinations

import torch
import torch.nn.functional as F


def kl(student, teacher, dim):
    """Sum of KL(softmax of teacher || softmax of student)."""
    return F.kl_div(F.log_softmax(student, dim), F.softmax(teacher, dim), reduction="sum")


def boundary(student, teacher, *, operator="affinity"):
    def strengths(x):
        if operator == "residual":
            surroundings = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
            return (x - surroundings).norm(dim=1) / x.square().sum(1).mean((1, 2), keepdim=True).sqrt()
        across = F.cosine_similarity(x[..., 1:], x[..., :-1], dim=1)
        down = F.cosine_similarity(x[..., 1:, :], x[..., :-1, :], dim=1)
        return 1 - torch.cat([across.flatten(), down.flatten()])

    return F.l1_loss(strengths(student), strengths(teacher))


def context(student, teacher):
    s, t = (F.normalize(x.flatten(2), dim=1) for x in (student, teacher))
    return kl(s.mT @ s / 0.1, t.mT @ t / 0.1, dim=2) / student[:, 0].numel()


def posterior_boundary(student, teacher):
    def energies(x):
        p = F.softmax(x, dim=1)
        around = F.pad(p, (1, 1, 1, 1), mode="replicate")  # no jump across the border
        neighbours = around[..., 1:-1, 2:], around[..., 1:-1, :-2], around[..., 2:, 1:-1], around[..., :-2, 1:-1]
        return sum((neighbour - p).abs() for neighbour in neighbours).flatten(2)

    s, t = energies(student), energies(teacher)
    p, q = ((e + 2e-3) / (e + 2e-3).sum(2, keepdim=True) for e in (s, t))
    return (q * (q / p).log()).sum(2)[t.sum(2) > 2].mean()


def kd(student, teacher):
    return kl(student, teacher, dim=1) / student[:, 0].numel()


def dkd(student, teacher, *, label):
    target = F.one_hot(label, student.shape[1]).bool().flatten(0, 2)
    s, t = (x.permute(0, 2, 3, 1).flatten(0, 2) / 4 for x in (student, teacher))
    p, q = F.softmax(s, dim=1)[target], F.softmax(t, dim=1)[target]
    binary = q * (q / p).log() + (1 - q) * ((1 - q) / (1 - p)).log()
    other_s, other_t = (x[~target].view(len(x), -1) for x in (s, t))
    return 16 * (binary.mean() + 8 * kl(other_s, other_t, dim=1) / len(s))


def dist(student, teacher):
    def correlation(a, b):
        a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
        return ((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + 1e-8)).mean()

    s, t = (F.softmax(x, dim=1).transpose(0, 1).flatten(1) for x in (student, teacher))  # (classes, pixels)
    return 2 - correlation(s.T, t.T) - correlation(s, t)


def cwd(student, teacher, temperature=1.0):
    s, t = student.flatten(2) / temperature, teacher.flatten(2) / temperature
    return temperature**2 * kl(s, t, dim=2) / (len(s) * s.shape[1])


def edges(image_label, logits):
    """Share of each cell in the band of 7 pixels at the edges of each class, like `logits`."""
    masks = F.one_hot(image_label, logits.shape[1]).permute(0, 3, 1, 2).to(logits.dtype)
    dilated, eroded = F.max_pool2d(masks, 7, 1, 3), -F.max_pool2d(-masks, 7, 1, 3)
    return F.adaptive_avg_pool2d(dilated - eroded, logits.shape[2:])


def bpkd_edge(student, teacher, *, image_label):
    share = edges(image_label, student)
    log_s, log_t = (F.log_softmax(share * x / 4, dim=1) for x in (student, teacher))
    divergence = (log_t.exp() * (log_t - log_s)).sum(1, keepdim=True)
    per_class = (share * divergence).sum((2, 3)) / (share > 0).sum((2, 3)).clamp(min=1)
    return 2 * 16 * per_class.sum(1).mean()


def bpkd_body(student, teacher, *, image_label):
    body = 1 - edges(image_label, student)
    return cwd(body * student, body * teacher, temperature=4.0)


def csd(student, teacher):
    def co_occurrence(x):
        phi = F.softmax(F.avg_pool2d(x, 2).flatten(2) / 4, dim=2)
        return phi @ phi.mT

    return F.mse_loss(co_occurrence(student), co_occurrence(teacher))


def at(student, teacher):
    s, t = (F.normalize(x.square().mean(1).flatten(1)) for x in (student, teacher))
    return F.mse_loss(s, t)


def fitnet(student, teacher):
    return F.mse_loss(student, teacher)


def fgd(student, teacher, *, module, boxes):
    n, channels, h, w = student.shape

    def attention(x):
        pixels = h * w * F.softmax(x.abs().mean(1).flatten(1) / 0.5, dim=1).view(n, h, w)
        return pixels, channels * F.softmax(x.abs().mean((2, 3)) / 0.5, dim=1)

    def related(x, block):
        weight = F.softmax(block.weight(x).flatten(2), dim=2)
        return x + block.transform((x.flatten(2) @ weight.mT).unsqueeze(3))

    inside = student.new_zeros(n, h, w)
    for image, found in enumerate(boxes):
        for x1, y1, x2, y2 in (found * torch.tensor([w, h, w, h])).tolist():
            left, top, right, bottom = int(x1), int(y1), int(-(-x2 // 1)), int(-(-y2 // 1))
            area = inside[image, top : bottom + 1, left : right + 1]
            area.clamp_(min=1 / ((bottom + 1 - top) * (right + 1 - left)))
    outside = (inside == 0).to(student)
    outside = outside / outside.sum((1, 2), keepdim=True).clamp(min=1)

    (pixels_s, channels_s), (pixels_t, channels_t) = attention(student), attention(teacher)
    difference = (student - teacher).square() * pixels_t.unsqueeze(1) * channels_t[:, :, None, None]
    focal = (difference * (1e-3 * inside + 5e-4 * outside).unsqueeze(1)).sum()
    gaps = (pixels_s - pixels_t).abs().sum() + (channels_s - channels_t).abs().sum()
    relation = (related(student, module.student_context) - related(teacher, module.teacher_context)).square().sum()
    return (focal + 5e-4 * gaps + 5e-6 * relation) / n


def pkd(student, teacher):
    def standardised(x):
        return (x - x.mean((0, 2, 3), keepdim=True)) / (x.std((0, 2, 3), keepdim=True) + 1e-6)

    return F.mse_loss(standardised(student), standardised(teacher)) / 2


def normed(x, norm):
    return F.batch_norm(x, None, None, norm.weight, norm.bias, training=True)


def reviewkd(student, teacher, *, module):
    def hierarchical(s, t):
        sides = [side for side in (4, 2, 1) if side < s.shape[2]]
        pooled = [F.mse_loss(F.adaptive_avg_pool2d(s, side), F.adaptive_avg_pool2d(t, side)) for side in sides]
        terms = [F.mse_loss(s, t), *pooled]
        return sum(term / 2**i for i, term in enumerate(terms)) / sum(0.5**i for i in range(len(terms)))

    loss, coarser = 0, None
    for fusion, s, t in reversed(list(zip(module.fusions, student, teacher, strict=True))):
        fused = normed(fusion.reduce(s), fusion.reduce_norm)
        if coarser is not None:
            coarser = F.interpolate(coarser, fused.shape[2:])
            own, other = fusion.attention(torch.cat([fused, coarser], dim=1)).sigmoid().chunk(2, dim=1)
            fused = own * fused + other * coarser
        coarser = fused
        loss = loss + hierarchical(normed(fusion.output(fused), fusion.output_norm), t)
    return loss


def attnfd(student, teacher, *, module):
    gate = module.channel_gate
    s = student * (gate(student.mean((2, 3))) + gate(student.amax((2, 3)))).sigmoid()[:, :, None, None]
    s = s * normed(module.spatial_gate(torch.stack([s.amax(1), s.mean(1)], dim=1)), module.spatial_norm).sigmoid()
    s = normed(module.connector(s), module.connector_norm)
    t = teacher * (teacher.mean((2, 3), keepdim=True) + teacher.amax((2, 3), keepdim=True)).sigmoid()
    t = t * (t.mean(1, keepdim=True) + t.amax(1, keepdim=True)).sigmoid()
    return (s / s.norm() - t / t.norm()).square().sum() / len(s)


def nst(student, teacher):
    s, t = (F.normalize(x.flatten(2), dim=2) for x in (student, teacher))
    return sum(sign * (a @ b.mT).square().mean() for sign, a, b in ((1, s, s), (1, t, t), (-2, s, t)))


def skd(student, teacher, *, pool=2):
    s, t = (F.normalize(F.max_pool2d(x, pool).flatten(2), dim=1) for x in (student, teacher))
    return F.mse_loss(s.mT @ s, t.mT @ t)


def psd(student, teacher):
    size = student[-1].shape[2:]

    def residuals(maps):
        q = [F.normalize(F.adaptive_avg_pool2d(x.square().mean(1), size).flatten(1)) for x in maps]
        return torch.stack([F.normalize(b - a) for a, b in combinations(q, 2)])

    return F.mse_loss(residuals(student), residuals(teacher))


def ifvd(student, teacher, *, label):
    def variation(x):
        centre = torch.zeros_like(x)
        for number in label.unique():
            mask = (label == number).unsqueeze(1)
            mean = (x * mask).sum((2, 3), keepdim=True) / mask.sum((2, 3), keepdim=True).clamp(min=1)
            centre = centre + mask * mean
        return F.cosine_similarity(x, centre, dim=1)

    return F.mse_loss(variation(student), variation(teacher))


def cirkd_batch(student, teacher):
    s, t = (F.normalize(x.flatten(2), dim=1) for x in (student, teacher))
    n, _, pixels = s.shape
    pairs = [(i, j) for i in range(n) for j in range(n)]
    return sum(kl(s[i].T @ s[j] / 0.1, t[i].T @ t[j] / 0.1, dim=1) for i, j in pairs) / (n * n * pixels)


def cirkd_memory(student, teacher, *, module, label):
    teacher = F.normalize(teacher.permute(0, 2, 3, 1), dim=3)
    module.remember(teacher, label)  # the same step in both
    t, s = teacher.flatten(0, 2), F.normalize(module.head(student.permute(0, 2, 3, 1).flatten(0, 2)), dim=1)
    loss = 0
    for queue, slots in ((module.pixel_queue, module.pixel_slots), (module.region_queue, module.region_slots)):
        keys = queue[:, torch.randperm(queue.shape[1])[:slots]].flatten(0, 1).to(s)
        loss = loss + kl(s @ keys.T / 0.1, t @ keys.T / 0.1, dim=1) / len(s)
    return loss


def afdcd(student, teacher, *, module):
    def pieces(x):
        """(patches, pixels of a patch, groups, channels of a group)."""
        x = F.unfold(F.max_pool2d(x, module.pool), module.patch, stride=module.patch)
        x = x.unflatten(1, (module.groups, -1, module.patch**2))
        return x.permute(0, 4, 3, 1, 2).flatten(0, 1)

    generated = module.generate(student, torch.ones_like(student[:, 0], dtype=torch.bool))
    s, t = pieces(generated), pieces(teacher)
    contrast, pixel = 0, torch.arange(s.shape[1])
    for group in range(module.groups):
        distance = (s[:, :, group, None, None] - t[:, None]).abs().sum(-1) / module.temperature
        positive = distance[:, pixel, pixel, group]
        others = distance[..., torch.arange(module.groups) != group].flatten(2)
        compared = torch.cat([positive.unsqueeze(2), others], dim=2)
        contrast = contrast + (positive + torch.logsumexp(-compared, dim=2)).mean()
    return 4e-5 * (generated - teacher).square().sum() / len(student) + 1e-3 * contrast


def spkd(student, teacher):
    def similarity(x):
        return F.normalize(x.flatten(1) @ x.flatten(1).T)

    return F.mse_loss(similarity(student), similarity(teacher))


def rkd(student, teacher):
    def relations(x):
        e = x.mean((2, 3))
        distances = torch.cdist(e, e)
        directions = F.normalize(e.unsqueeze(0) - e.unsqueeze(1), dim=2)
        return distances / distances[distances > 0].mean(), directions @ directions.mT

    (distance_s, angle_s), (distance_t, angle_t) = relations(student), relations(teacher)
    return 25 * F.smooth_l1_loss(distance_s, distance_t) + 50 * F.smooth_l1_loss(angle_s, angle_t)


def pkt(student, teacher):
    def probabilities(x):
        e = x.mean((2, 3))
        e = e / (e.norm(dim=1, keepdim=True) + 1e-7)
        kernel = (1 + e @ e.T) / 2
        return kernel / kernel.sum(1, keepdim=True)

    s, t = probabilities(student), probabilities(teacher)
    return (t * ((t + 1e-7) / (s + 1e-7)).log()).mean()


PLAIN = {
    loss.__name__: loss
    for loss in (
        *(boundary, context, posterior_boundary, kd, dkd, dist, cwd, bpkd_edge, bpkd_body, csd),
        *(at, fitnet, fgd, pkd, reviewkd, attnfd, nst),
        *(skd, psd, ifvd, cirkd_batch, cirkd_memory, afdcd, spkd, rkd, pkt),
    )
}
