"""What the models share."""

from __future__ import annotations

from ...core.errors import ParameterError

Shape = tuple[int, ...]


def require_images(name: str, input_shape: Shape) -> None:
    """Refuse inputs that are not images (ParameterError)."""
    if len(input_shape) != 3:
        raise ParameterError(
            f"model {name} works on images (channels, height, width); the data have shape {input_shape}. "
            "Use logistic_regression or mlp"
        )
