"""Variational autoencoders and their closed form: the model library under the ablation framework."""
