"""Datasets as tensors in memory, and the facts about a dataset that every trained number is compared with.

`load` reads all images of a dataset as bytes; whoever trains divides by 255. `facts` computes the errors of the
simplest guesses and the spectrum of the covariance, from which the closed form of a linear VAE follows.
"""

from vae.data.dataset_facts import Facts, facts
from vae.data.images import ImageData
from vae.data.registry import load

__all__ = ["Facts", "ImageData", "facts", "load"]
