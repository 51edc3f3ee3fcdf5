"""Pictures as arrays, and drawn from them for people: samples and reconstructions; the gallery only on request."""

from __future__ import annotations

from vae.metrics.registry import Family, Result, Subject

pictures = Family("pictures", version=1, arrays=True)
gallery = Family("gallery", version=1, arrays=True, on_request=True)


@pictures.computes()
def samples_and_reconstructions(subject: Subject) -> Result:
    """samples (R, N, C, H, W) with sample_labels (R,), and inputs and reconstructions (n, C, H, W), all uint8."""
    import numpy as np

    from vae.gallery import reconstructions, samples

    drawn, rebuilt = samples(subject.model), reconstructions(subject.model, subject.data)
    arrays = {
        "samples": drawn.images,
        "sample_labels": np.array(drawn.labels),
        "inputs": np.concatenate(rebuilt.images[0::2]),
        "reconstructions": np.concatenate(rebuilt.images[1::2]),
    }
    return Result(arrays=arrays, images={"samples": drawn.draw(), "reconstructions": rebuilt.draw()})


@gallery.computes()
def sheets(subject: Subject) -> Result:
    """The sheets of vae/gallery.py that apply to the model, as `Sheet.arrays` and `Scatter.arrays` have them."""
    from vae.gallery import SHEETS, applicable

    found = {name: SHEETS[name](subject.model, subject.data) for name in applicable(subject.model)}
    arrays = {key: array for name, sheet in found.items() for key, array in sheet.arrays(name).items()}
    return Result(arrays=arrays, images={name: sheet.draw() for name, sheet in found.items()})
