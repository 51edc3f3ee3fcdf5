"""Pictures of a trained model: samples, reconstructions, and what its latent space holds.

Each function returns a `Sheet` (or a `Scatter`): `traversals(model, data).draw().save("traversals.png")`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from vae.conventions import ACTIVE_VARIANCE
from vae.data import ImageData
from vae.priors import gaussian_kl
from vae.sheet import Scatter, Sheet
from vae.trained import TrainedVAE

BATCH = 1000
N_COLUMNS = 10
MAX_ROWS = 20

ROWS = 10  # of the sheets of SHEETS
TRAVERSED = torch.linspace(-3, 3, 13)  # standard deviations of the prior
STEPS = torch.linspace(0, 1, 11)  # of an interpolation
NEIGHBOURS = 8
COMPARED = 300  # images whose nearest training images give the typical distance
CHUNK = 4096  # training images compared at once
SCATTERED = 3000  # points of a scatter plot


def levels(images: Tensor) -> np.ndarray:
    """Images in [0, 1], clipped, as bytes of the same shape."""
    return (images.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def samples(model: TrainedVAE) -> Sheet:
    """Samples from the prior, one row per class and one z per column.

    If the decoder takes no label, there are ten rows, and each image has a z of its own.
    """
    if model.arch.decoder_repeat:
        labels = list(model.classes[:MAX_ROWS])
        return Sheet(levels(torch.stack([model.sample(c, n=N_COLUMNS) for c in range(len(labels))])), labels)
    images = model.sample(n=N_COLUMNS * N_COLUMNS)
    return Sheet(levels(images.unflatten(0, (N_COLUMNS, N_COLUMNS))), [""] * N_COLUMNS)


def reconstructions(model: TrainedVAE, data: ImageData) -> Sheet:
    """At most 20 held-out images, evenly over the classes, above their reconstructions from z = mu."""
    picked = spread(data.test_y, 2 * N_COLUMNS)
    x = data.test_x[picked]  # (n, C, H, W) uint8
    pairs = np.stack([x.numpy(), levels(model.reconstruct(x, data.test_y[picked]))])  # (2, n, C, H, W)
    if len(picked) == 2 * N_COLUMNS:
        pairs = np.concatenate([pairs[:, :N_COLUMNS], pairs[:, N_COLUMNS:]])  # (4, N_COLUMNS, C, H, W)
    return Sheet(pairs, ["input", "output"] * (len(pairs) // 2))


def spread(y: Tensor, n: int) -> Tensor:
    """Indices of at most n images, evenly spread over the classes and in their order."""
    by_class = torch.argsort(y, stable=True)
    n = min(n, len(by_class))
    return by_class[torch.linspace(0, len(by_class) - 1, n).long()]


def posteriors(model: TrainedVAE, data: ImageData) -> tuple[Tensor, Tensor]:
    """mu of the held-out images, (M, k), and the mean KL of each dimension over them, (k,) nats."""
    batches = zip(data.test_x.split(BATCH), data.test_y.split(BATCH), strict=True)
    parts = [model.encode(x, y) for x, y in batches]
    mu, logvar = (torch.cat(part).cpu() for part in zip(*parts, strict=True))  # (M, k) each
    return mu, gaussian_kl(mu, logvar).mean(dim=0)


def traversals(model: TrainedVAE, data: ImageData) -> Sheet:
    """One row for each active dimension in order of descending KL, at most ROWS, which moves from -3 to 3.

    The others stay at the mu of a held-out image, the same for every model. If no dimension is active
    (ACTIVE_VARIANCE), the one of most KL is shown.
    """
    mu, kl = posteriors(model, data)
    active = mu.var(dim=0, correction=0) > ACTIVE_VARIANCE  # (k,)
    order = sorted(range(len(kl)), key=lambda i: (not active[i], -kl[i].item()))
    shown = order[: min(ROWS, max(1, int(active.sum())))]
    some = spread(data.test_y, 5)
    at = some[len(some) // 4, None]  # (1,): well inside a class, where classes come sorted
    x, y = data.test_x[at].float() / 255, data.test_y[at]  # (1, C, H, W), (1,)
    z = mu[at].repeat(len(shown), len(TRAVERSED), 1)  # (R, T, k)
    for r, i in enumerate(shown):
        z[r, :, i] = TRAVERSED
    images = model.decode(z.flatten(0, 1), y.expand(z[..., 0].numel())).cpu()
    start = torch.cat([x, model.decode(mu[at], y).cpu()]).expand(len(shown), -1, -1, -1, -1)  # (R, 2, C, H, W)
    rows = torch.cat([start, images.reshape(len(shown), len(TRAVERSED), *x.shape[1:])], dim=1)
    return Sheet(
        levels(rows),
        [f"z[{i}]   {kl[i]:.2f} nats" for i in shown],
        columns=["input", "z = mu", *(f"{v:g}" for v in TRAVERSED.tolist())],
        note="Each row moves one latent dimension from -3 to 3 standard deviations of the prior. The others stay at "
        "the mu of the input. Row labels give the dimension's KL in nats per held-out image, largest first. "
        f"{int(active.sum())} of {len(kl)} dimensions are active, {len(shown)} are shown.",
    )


def interpolations(model: TrainedVAE, data: ImageData) -> Sheet:
    """Images decoded on the straight line between the mu of two held-out images, ROWS pairs.

    If the decoder takes the label, both ends are of one class.
    """
    labelled = model.arch.decoder_repeat > 0
    order = torch.argsort(data.test_y, stable=True)
    groups = [m for c in range(data.n_classes) if len(m := order[data.test_y[order] == c])] if labelled else [order]
    per = max(1, ROWS // len(groups))
    picked = torch.stack([m[torch.linspace(0, len(m) - 1, 2 * per).long()] for m in groups[:ROWS]])  # (groups, 2·per)
    a, b = (end.flatten() for end in picked.split(per, dim=1))  # (R,) each
    mu = [model.encode(data.test_x[end], data.test_y[end])[0].cpu() for end in (a, b)]  # (R, k) each
    z = torch.lerp(mu[0][:, None], mu[1][:, None], STEPS[:, None])  # (R, T, k)
    images = model.decode(z.flatten(0, 1), data.test_y[a].repeat_interleave(len(STEPS))).cpu()
    x = [data.test_x[end, None].float() / 255 for end in (a, b)]  # (R, 1, C, H, W) each
    rows = torch.cat([x[0], images.reshape(len(a), len(STEPS), *x[0].shape[2:]), x[1]], dim=1)
    names = [[data.classes[c] for c in data.test_y[end].tolist()] for end in (a, b)]
    return Sheet(
        levels(rows),
        [p if p == q else f"{p} to {q}" for p, q in zip(*names, strict=True)],
        columns=["input", *(f"{t:g}" for t in STEPS.tolist()), "input"],
        note="Images decoded along the line from the mu of the left held-out image (0) to that of the right one (1)"
        + (", with the label that both share." if labelled else "."),
    )


def manifold(model: TrainedVAE, data: ImageData) -> Sheet:
    """The latent plane: images decoded at the quantiles of the prior, z[0] to the right and z[1] upwards.

    If the decoder takes the label, there is a grid for each of at most ROWS classes.

    Raises:
        ValueError: unless z_dim is 2.
    """
    if model.arch.z_dim != 2:
        raise ValueError(f"z_dim is {model.arch.z_dim}; a plane needs 2")
    classes = model.classes[:ROWS] if model.arch.decoder_repeat else ("",)
    n_columns = min(5, len(classes))
    most, width = (10, 300) if len(classes) > 1 else (20, 640)  # pixels of a grid
    side = max(4, min(most, width // model.arch.image_shape[2]))
    q = torch.special.ndtri((torch.arange(side) + 0.5) / side)  # the middles of parts of equal probability
    z = torch.cartesian_prod(q.flip(0), q).flip(1)  # (side², 2): z[0] runs fastest, z[1] falls from row to row
    tiles = []
    for c in range(len(classes)):
        images = model.decode(z, torch.full((len(z),), c)).cpu()
        images = images.reshape(side, side, *model.arch.image_shape).permute(2, 0, 3, 1, 4)  # (C, side, H, side, W)
        tiles.append(images.flatten(3, 4).flatten(1, 2))  # (C, side·H, side·W)
    tiles += [torch.ones_like(tiles[0])] * (-len(tiles) % n_columns)
    rows = torch.stack(tiles).unflatten(0, (-1, n_columns))
    names = [*classes, *[""] * (len(tiles) - len(classes))]
    return Sheet(
        levels(rows),
        [""] * len(rows),
        captions=[names[r * n_columns : (r + 1) * n_columns] for r in range(len(rows))] if any(classes) else (),
        note=f"z[0] goes from {q[0]:.2f} (left) to {q[-1]:.2f} (right), and z[1] likewise from bottom to top, in "
        f"{side} steps of equal probability under the prior.",
    )


def latents(model: TrainedVAE, data: ImageData) -> Scatter:
    """mu of held-out images over the two dimensions of most KL, coloured by class.

    Raises:
        ValueError: if z_dim is 1.
    """
    if model.arch.z_dim < 2:
        raise ValueError("z_dim is 1; a plane needs 2")
    mu, kl = posteriors(model, data)
    i, j = sorted(torch.argsort(kl, descending=True, stable=True)[:2].tolist())
    picked = spread(data.test_y, SCATTERED)
    # Shuffled, because points drawn class by class would hide those of the first classes.
    picked = picked[torch.randperm(len(picked), generator=torch.Generator().manual_seed(0))]
    which = "" if model.arch.z_dim == 2 else f", the two of {model.arch.z_dim} dimensions with the largest KL"
    return Scatter(
        mu[picked][:, [i, j]].numpy(),
        data.test_y[picked].numpy(),
        classes=data.classes[:MAX_ROWS],
        n_classes=data.n_classes,
        axes=[f"mu of z[{i}] ({kl[i]:.2f} nats)", f"mu of z[{j}] ({kl[j]:.2f} nats)"],
        title=f"{len(picked):,} held-out images{which}\ndashed: 1 and 2 standard deviations of the prior",
    )


def styles(model: TrainedVAE, data: ImageData) -> Sheet:
    """Class against style: one row per z of a held-out image, one column per class (Kingma et al. 2014, figure 1).

    Raises:
        ValueError: if the decoder takes no label.
    """
    if not model.arch.decoder_repeat:
        raise ValueError("the decoder does not receive the label, so there are no classes to draw")
    picked = spread(data.test_y, ROWS)
    x, y = data.test_x[picked], data.test_y[picked]
    classes = model.classes[:MAX_ROWS]
    z = model.encode(x, y)[0]  # (R, k)
    images = model.decode(z.repeat_interleave(len(classes), dim=0), torch.arange(len(classes)).repeat(len(z))).cpu()
    rows = images.reshape(len(z), len(classes), *images.shape[1:])
    return Sheet(
        levels(torch.cat([x[:, None].float() / 255, rows], dim=1)),
        [""] * len(z),
        columns=["input", *classes],
        note="Each row decodes one z, the mu of the held-out image on the left, with the label of every class in turn.",
    )


def nearest(x: Tensor, images: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The n images nearest to each x by squared error: errors (B, n), ascending, and indices (B, n).

    Args:
        x: (B, C, H, W) in [0, 1].
        images: (N, C, H, W) uint8.
    """
    flat = x.flatten(1)  # (B, D)
    best, index = torch.empty(len(x), 0), torch.empty(len(x), 0, dtype=torch.int64)
    for start in range(0, len(images), CHUNK):
        chunk = images[start : start + CHUNK].flatten(1).float() / 255  # (n, D)
        error = flat.square().sum(1, keepdim=True) + chunk.square().sum(1) - 2 * flat @ chunk.T  # (B, n)
        error = torch.cat([best, error], dim=1)
        at = torch.cat([index, torch.arange(start, start + len(chunk)).expand(len(x), -1)], dim=1)
        best, order = error.topk(min(n, error.shape[1]), largest=False)
        index = at.gather(1, order)
    # The products above lose the last digits, by which a copy is recognized.
    exact = (images[index].flatten(2).float() / 255 - flat[:, None]).square().sum(dim=2)  # (B, n)
    exact, order = exact.sort(dim=1, stable=True)
    return exact, index.gather(1, order)


def neighbours(model: TrainedVAE, data: ImageData) -> Sheet:
    """Samples, each beside its nearest training images, with the distances: does the model copy?

    The note gives the typical distance of samples, of held-out images, and of reconstructions of these. The last are
    as smooth as samples, and smooth images lie nearer to all others.
    """
    conditional = model.arch.decoder_repeat > 0
    y = torch.arange(ROWS) * min(ROWS, len(model.classes)) // ROWS  # (R,)
    drawn = model.sample(y).clamp(0, 1).cpu()  # (R, C, H, W)
    error, index = nearest(drawn, data.train_x, NEIGHBOURS)
    found = data.train_x[index].float() / 255  # (R, n, C, H, W)

    picked = spread(data.test_y, COMPARED)
    x, labels = data.test_x[picked], data.test_y[picked]
    groups = {
        "samples": model.sample(labels, seed=1),
        "held-out images": x.float() / 255,
        "their reconstructions": model.reconstruct(x, labels),
    }
    typical = {
        name: nearest(images.clamp(0, 1).cpu(), data.train_x, 1)[0].quantile(torch.tensor([0.5, 0.05, 0.95])).tolist()
        for name, images in groups.items()
    }
    return Sheet(
        levels(torch.cat([drawn[:, None], found], dim=1)),
        [model.classes[c] if conditional else "" for c in y.tolist()],
        columns=["sample", "nearest", *(f"{i + 1}." for i in range(1, index.shape[1]))],
        captions=[["", *(f"{e:.3g}" for e in row)] for row in error.tolist()],
        note="The number under a training image is its squared error to the sample. Typical squared errors to the "
        f"nearest training image, as the median (5 to 95 %) of {len(x)}: "
        + "; ".join(f"{name} {m:.3g} ({low:.3g} to {high:.3g})" for name, (m, low, high) in typical.items())
        + ". If the model copies, its samples are much nearer than its reconstructions.",
    )


SHEETS: dict[str, Callable[[TrainedVAE, ImageData], Sheet | Scatter]] = {
    "traversals": traversals,
    "interpolations": interpolations,
    "manifold": manifold,
    "latents": latents,
    "styles": styles,
    "neighbours": neighbours,
}


def applicable(model: TrainedVAE) -> list[str]:
    """The names of SHEETS that the model can have."""
    arch = model.arch
    impossible = {"manifold": arch.z_dim != 2, "latents": arch.z_dim < 2, "styles": not arch.decoder_repeat}
    return [name for name in SHEETS if not impossible.get(name)]
