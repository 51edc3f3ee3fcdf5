"""How much z tells about the class: a linear classifier on z, trained on training images and tested on held-out ones.

The probe is a multinomial logistic regression with scikit-learn's default penalty, ½|W|² against the summed cross
entropy. It sees one sample of each posterior, not its mean: after a collapse the means still differ by a little that
the noise hides from the decoder, and a probe could enlarge it. The encoder receives the label wherever it was trained
with it, so a probe above chance then shows that z repeats the label.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vae.metrics.posterior import encoded
from vae.metrics.registry import Family, Metric, Subject

if TYPE_CHECKING:
    from torch import Tensor

MAX_IMAGES = 20_000  # that the probe is trained on
STEPS = 500  # of L-BFGS, at most
TOLERANCE = 1e-5  # of the gradient of the mean loss, a tenth of scikit-learn's

probe = Family("probe", version=1, on_request=True)


@probe.computes(
    Metric(
        "probe_accuracy",
        "",
        "share of held-out images whose class a linear probe finds in z; chance: probe_chance; null without labels",
        "",
        "probe accuracy",
    ),
    Metric(
        "probe_chance",
        "",
        "share of held-out images of the most frequent training class: the accuracy of a probe that sees nothing",
        "",
        "chance level of the probe",
    ),
)
def accuracy(subject: Subject) -> dict[str, float]:
    import torch

    from vae.seeding import generator

    data = subject.data
    if data.n_classes < 2:
        return {}
    noise = generator(subject.config.seed, "probe")
    z, y = {}, {}
    for split, n in (("train", MAX_IMAGES), ("test", len(data.test_x))):
        labels = subject.images(split)[1]
        index = torch.randperm(len(labels), generator=generator(0, f"probe {split}"))[:n]  # (N,)
        mu, logvar = encoded(subject, split, index)  # (N, k) each
        z[split] = mu + (0.5 * logvar).exp() * torch.randn(mu.shape, generator=noise).double()
        y[split] = labels[index]
    if not all(own.isfinite().all() for own in z.values()):
        return {}
    weight, bias = logistic_regression(z["train"], y["train"], data.n_classes)
    right = (z["test"] @ weight + bias).argmax(dim=1) == y["test"]  # (M,)
    usual = y["train"].bincount().argmax()
    return {
        "probe_accuracy": right.double().mean().item(),
        "probe_chance": (y["test"] == usual).double().mean().item(),
    }


def logistic_regression(x: Tensor, y: Tensor, n_classes: int) -> tuple[Tensor, Tensor]:
    """The weights (k, classes) and biases (classes,) that minimize sum of -ln softmax(x·W + b)[y] + ½|W|².

    Args:
        x: (N, k) float64.
        y: (N,) integers below n_classes.
    """
    import torch

    weight = torch.zeros(x.shape[1], n_classes, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(n_classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=STEPS, tolerance_grad=TOLERANCE, tolerance_change=0.0, line_search_fn="strong_wolfe"
    )

    def mean_loss() -> Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(x @ weight + bias, y) + 0.5 * weight.square().sum() / len(x)
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(mean_loss)  # pyright: ignore[reportArgumentType]
    return weight.detach(), bias.detach()
