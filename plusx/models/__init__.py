"""Networks: residual, plain and classic. They take normalised images [B, 3, H, W] and return logits [B, classes]."""

from plusx.models.registry import create_model, default_rate, list_models, minimum_size

__all__ = ["create_model", "default_rate", "list_models", "minimum_size"]
