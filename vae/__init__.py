"""Variational autoencoders and their closed form: the model library under the ablation framework."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vae.trained import load_run

__all__ = ["load_run"]


def __getattr__(name: str) -> Any:
    # Late, so that the settings can be read without importing torch.
    if name == "load_run":
        from vae.trained import load_run

        return load_run
    raise AttributeError(f"module {__name__} has no attribute {name}")
