"""Sheets of images: samples, reconstructions, and what the latent space holds.

`sheet` composes them all. Samples and reconstructions are drawn of every run, `PICTURES` of those that are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vae.data import ImageData
from vae.evaluate import ACTIVE_VARIANCE, BATCH
from vae.objective import gaussian_kl
from vae.trained import TrainedVAE

N_COLUMNS = 10
MAX_ROWS = 20
GAP = 2
SHOWN = 56  # an image is enlarged by a whole factor to about so many pixels
LINE = 16  # pixels, of a line of small text

ROWS = 10  # of the sheets of PICTURES
TRAVERSED = torch.linspace(-3, 3, 13)  # standard deviations of the prior
STEPS = torch.linspace(0, 1, 11)  # of an interpolation
NEIGHBOURS = 8
COMPARED = 300  # images whose nearest training images give the typical distance
CHUNK = 4096  # training images compared at once
SCATTERED = 3000  # points of a scatter plot


def sheet(
    rows: Tensor,
    labels: Sequence[str],
    columns: Sequence[str] = (),
    captions: Sequence[Sequence[str]] = (),
    note: str = "",
) -> Image.Image:
    """A sheet of images, a label before each row.

    Args:
        rows: (R, N, C, H, W), values clipped to [0, 1].
        labels: one a row.
        columns: one a column, above it; cut where they are wider.
        captions: R rows of N, each under its image.
        note: a paragraph under the sheet.
    """
    n_rows, n_columns, _, height, width = rows.shape
    factor = max(1, round(SHOWN / height))
    font, small = ImageFont.load_default(size=14), ImageFont.load_default(size=12)
    left = 8 + max(round(font.getlength(label)) for label in labels) + 8 if any(labels) else GAP
    top = GAP + LINE * bool(columns)
    h, w = height * factor + GAP + LINE * bool(captions), width * factor + GAP
    right = left + n_columns * w
    lines = _wrapped(note, small, right - 2 * GAP)
    canvas = Image.new("RGB", (right, top + n_rows * h + LINE * len(lines) + GAP * bool(lines)), "white")
    draw = ImageDraw.Draw(canvas)

    def centred(text: str, column: int, y: int) -> None:
        middle = left + column * w + width * factor / 2
        draw.text((middle, y), _cut(text, small, w), fill="black", font=small, anchor="ma")

    levels = (rows.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 1, 3, 4, 2).cpu().numpy()  # (R, N, H, W, C)
    for n, heading in enumerate(columns):
        centred(heading, n, 1)
    for r in range(n_rows):
        draw.text((8, top + r * h + height * factor // 2), labels[r], fill="black", font=font, anchor="lm")
        for n in range(n_columns):
            pixels = levels[r, n]
            image = Image.fromarray(np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels)
            image = image.resize((width * factor, height * factor), Image.Resampling.NEAREST)
            canvas.paste(image, (left + n * w, top + r * h))
            if captions:
                centred(captions[r][n], n, top + r * h + height * factor)
    for i, line in enumerate(lines):
        draw.text((GAP, top + n_rows * h + GAP + LINE * i), line, fill="black", font=small)
    return canvas


def _cut(text: str, font: Any, width: float) -> str:
    """As much of the text as fits into so many pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}..") > width:
        text = text[:-1]
    return f"{text}.."


def _wrapped(text: str, font: Any, width: float) -> list[str]:
    """Lines of at most so many pixels, broken at blanks."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def sample_rows(model: TrainedVAE, n_columns: int = N_COLUMNS) -> tuple[Tensor, list[str]]:
    """Samples from the prior and their row labels, (R, N, C, H, W): a row a class, a column one z throughout.

    Where the decoder takes no label, ten rows of other latents each.
    """
    seen = model.arch.decoder_repeat > 0
    if seen:
        labels = list(model.classes[:MAX_ROWS])
        rows = [model.sample(c, n=n_columns) for c in range(len(labels))]
        return torch.stack(rows), labels
    images = model.sample(n=N_COLUMNS * n_columns)
    return images.reshape(N_COLUMNS, n_columns, *images.shape[1:]), [""] * N_COLUMNS


def reconstruction_rows(model: TrainedVAE, data: ImageData, n_columns: int = N_COLUMNS) -> tuple[Tensor, list[str]]:
    """Held-out images above their reconstructions from z = mu, (4, N, C, H, W), evenly spread over the classes."""
    picked = _spread(data.test_y, 2 * n_columns)
    n = len(picked)
    x, y = data.test_x[picked].float() / 255, data.test_y[picked]
    x_hat = model.reconstruct(x, y).cpu()
    if n < 2 * n_columns:
        return torch.stack([x, x_hat]), ["input", "output"]
    half = n_columns
    return torch.stack([x[:half], x_hat[:half], x[half:], x_hat[half:]]), ["input", "output"] * 2


def _spread(y: Tensor, n: int) -> Tensor:
    """Indices of at most n images, evenly spread over the classes and in their order."""
    by_class = torch.argsort(y, stable=True)
    n = min(n, len(by_class))
    return by_class[torch.linspace(0, len(by_class) - 1, n).long()]


# --- Pictures of one trained model, drawn when they are asked for.


def posteriors(model: TrainedVAE, data: ImageData) -> tuple[Tensor, Tensor]:
    """mu of the held-out images, (M, k), and the KL of each dimension as a mean over them, (k,) nats."""
    parts = [
        model.encode(data.test_x[i : i + BATCH], data.test_y[i : i + BATCH]) for i in range(0, len(data.test_x), BATCH)
    ]
    mu, logvar = (torch.cat(part).cpu() for part in zip(*parts, strict=True))  # (M, k) each
    return mu, gaussian_kl(mu, logvar).mean(dim=0)


def traversals(model: TrainedVAE, data: ImageData) -> Image.Image:
    """A row for each active dimension, the one of most KL first, at most ROWS: it goes from -3 to 3, the others stay.

    The others stay at the mu of a held-out image, the same for every model. Active: see evaluate.ACTIVE_VARIANCE;
    without any, the dimension of most KL is shown.
    """
    mu, kl = posteriors(model, data)
    active = mu.var(dim=0, correction=0) > ACTIVE_VARIANCE  # (k,)
    order = sorted(range(len(kl)), key=lambda i: (not active[i], -kl[i].item()))
    shown = order[: min(ROWS, max(1, int(active.sum())))]
    some = _spread(data.test_y, 5)
    at = some[len(some) // 4, None]  # (1,): well inside a class, where classes come sorted
    x, y = data.test_x[at].float() / 255, data.test_y[at]  # (1, C, H, W), (1,)
    z = mu[at].repeat(len(shown), len(TRAVERSED), 1)  # (R, T, k)
    for r, i in enumerate(shown):
        z[r, :, i] = TRAVERSED
    images = model.decode(z.flatten(0, 1), y.expand(z[..., 0].numel())).cpu()
    start = torch.cat([x, model.decode(mu[at], y).cpu()]).expand(len(shown), -1, -1, -1, -1)  # (R, 2, C, H, W)
    rows = torch.cat([start, images.reshape(len(shown), len(TRAVERSED), *x.shape[1:])], dim=1)
    return sheet(
        rows,
        [f"z[{i}]   {kl[i]:.2f} nats" for i in shown],
        columns=["input", "z = mu", *(f"{v:g}" for v in TRAVERSED.tolist())],
        note="Each row sets one latent dimension from -3 to 3 standard deviations of the prior; the others stay at the "
        "mu of the input. Beside it its KL, in nats per held-out image; the dimension of most KL comes first. "
        f"{int(active.sum())} of {len(kl)} dimensions are active, {len(shown)} are shown.",
    )


def interpolations(model: TrainedVAE, data: ImageData) -> Image.Image:
    """Images decoded on the straight line between the mu of two held-out images, ROWS pairs.

    Both ends are of one class where the decoder takes the label.
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
    return sheet(
        rows,
        [p if p == q else f"{p} to {q}" for p, q in zip(*names, strict=True)],
        columns=["input", *(f"{t:g}" for t in STEPS.tolist()), "input"],
        note="Decoded on the straight line from the mu of the left held-out image (0) to that of the right one (1)"
        + (", with the label of both." if labelled else "."),
    )


def manifold(model: TrainedVAE, data: ImageData) -> Image.Image:
    """The latent plane: images decoded at the quantiles of the prior, z[0] to the right and z[1] upwards.

    A grid for each of at most ROWS classes where the decoder takes the label.

    Raises:
        ValueError: unless z_dim is 2.
    """
    if model.arch.z_dim != 2:
        raise ValueError(f"z_dim is {model.arch.z_dim}, and a plane has 2")
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
    return sheet(
        rows,
        [""] * len(rows),
        captions=[names[r * n_columns : (r + 1) * n_columns] for r in range(len(rows))] if any(classes) else (),
        note=f"z[0] from {q[0]:.2f} to {q[-1]:.2f} to the right, z[1] likewise upwards, in {side} steps of equal "
        "probability under the prior.",
    )


def latents(model: TrainedVAE, data: ImageData) -> Image.Image:
    """mu of held-out images over the two dimensions of most KL, coloured by class, with the prior's circles.

    Raises:
        ValueError: if z_dim is 1.
    """
    if model.arch.z_dim < 2:
        raise ValueError("z_dim is 1, and a plane has 2")
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Circle

    mu, kl = posteriors(model, data)
    i, j = sorted(torch.argsort(kl, descending=True, stable=True)[:2].tolist())
    picked = _spread(data.test_y, SCATTERED)
    # Class by class the last would hide the first.
    picked = picked[torch.randperm(len(picked), generator=torch.Generator().manual_seed(0))]
    named = data.classes[:MAX_ROWS]
    colours = mpl.colormaps["tab10" if len(named) <= 10 else "tab20"].colors  # type: ignore[attr-defined]
    y = data.test_y[picked].tolist()
    figure = Figure(figsize=(7, 5.6), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    ax = figure.subplots()
    ax.scatter(*mu[picked][:, [i, j]].T.numpy(), s=9, alpha=0.7, linewidths=0,
               c=[colours[c] if c < len(named) else (0.8, 0.8, 0.8) for c in y])  # fmt: skip
    for radius in (1, 2):
        ax.add_patch(Circle((0, 0), radius, fill=False, linestyle="--", edgecolor="0.4"))
    if len(named) > 1:
        handles = [ax.scatter([], [], s=30, color=colours[c], label=name) for c, name in enumerate(named)]
        more = f"\n(grey: {data.n_classes - len(named)} more)" if data.n_classes > len(named) else ""
        figure.legend(handles=handles, title=f"class{more}", loc="outside right center", frameon=False)
    ax.set_aspect("equal", adjustable="datalim")
    ax.set_xlabel(f"mu of z[{i}] ({kl[i]:.2f} nats)")
    ax.set_ylabel(f"mu of z[{j}] ({kl[j]:.2f} nats)")
    which = "" if model.arch.z_dim == 2 else f", the two dimensions of most KL of {model.arch.z_dim}"
    prior = "dashed: 1 and 2 standard deviations of the prior"
    ax.set_title(f"{len(picked):,} held-out images{which}\n{prior}", fontsize=9)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def styles(model: TrainedVAE, data: ImageData) -> Image.Image:
    """Class against style: the z of a held-out image a row, a class a column (Kingma et al. 2014, figure 1).

    Raises:
        ValueError: if the decoder takes no label.
    """
    if not model.arch.decoder_repeat:
        raise ValueError("the decoder takes no label, and so has no classes to draw a style in")
    picked = _spread(data.test_y, ROWS)
    x, y = data.test_x[picked], data.test_y[picked]
    classes = model.classes[:MAX_ROWS]
    z = model.encode(x, y)[0]  # (R, k)
    images = model.decode(z.repeat_interleave(len(classes), dim=0), torch.arange(len(classes)).repeat(len(z))).cpu()
    rows = images.reshape(len(z), len(classes), *images.shape[1:])
    return sheet(
        torch.cat([x[:, None].float() / 255, rows], dim=1),
        [""] * len(z),
        columns=["input", *classes],
        note="One z a row, the mu of the held-out image on the left, decoded with the label of each class.",
    )


def nearest(x: Tensor, images: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The n nearest of some images by squared error in [0, 1] pixels: errors (B, n), ascending, and indices (B, n).

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
    # The products above lose the last digits, which is what a copy would be seen by.
    exact = (images[index].flatten(2).float() / 255 - flat[:, None]).square().sum(dim=2)  # (B, n)
    exact, order = exact.sort(dim=1, stable=True)
    return exact, index.gather(1, order)


def neighbours(model: TrainedVAE, data: ImageData) -> Image.Image:
    """Samples, each beside its nearest training images, with the distances: does the model copy?

    Under them the typical distance of samples, of held-out images, and of reconstructions of these: the last are as
    smooth as samples are, and smooth images lie nearer to all others.
    """
    conditional = model.arch.decoder_repeat > 0
    y = torch.arange(ROWS) * min(ROWS, len(model.classes)) // ROWS  # (R,)
    samples = model.sample(y).clamp(0, 1).cpu()  # (R, C, H, W)
    error, index = nearest(samples, data.train_x, NEIGHBOURS)
    found = data.train_x[index].float() / 255  # (R, n, C, H, W)

    picked = _spread(data.test_y, COMPARED)
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
    return sheet(
        torch.cat([samples[:, None], found], dim=1),
        [model.classes[c] if conditional else "" for c in y.tolist()],
        columns=["sample", "nearest", *(f"{i + 1}." for i in range(1, index.shape[1]))],
        captions=[["", *(f"{e:.3g}" for e in row)] for row in error.tolist()],
        note="Under a training image its squared error to the sample. Typical squared error to the nearest training "
        f"image, the median (5 to 95 %) of {len(x)}: "
        + "; ".join(f"{name} {m:.3g} ({low:.3g} to {high:.3g})" for name, (m, low, high) in typical.items())
        + ". Samples of a model that copies lie far nearer than its reconstructions.",
    )


PICTURES: dict[str, Callable[[TrainedVAE, ImageData], Image.Image]] = {
    "traversals": traversals,
    "interpolations": interpolations,
    "manifold": manifold,
    "latents": latents,
    "styles": styles,
    "neighbours": neighbours,
}
