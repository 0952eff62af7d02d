"""Accounting for tensors: every name and shape that was found is one that was expected."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from unbraid.errors import CheckpointError, in_brief


def check_tensors(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], where: str) -> None:
    """Insist that ``found`` has exactly the names and shapes of ``expected``.

    Args:
        found: Name to tensor, as read from a file.
        expected: Name to tensor, as the model wants them.
        where: What was read, for the error message.

    Raises:
        CheckpointError: If a tensor is missing, unknown or of another shape; it names them.
    """
    problems = []
    if missing := sorted(expected.keys() - found.keys()):
        problems.append(f"missing {in_brief(missing)}")
    if unknown := sorted(found.keys() - expected.keys()):
        problems.append(f"not part of the model {in_brief(unknown)}")
    misshapen = [
        f"{name} is {list(found[name].shape)} instead of {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    if misshapen:
        problems.append(f"wrong shape: {in_brief(misshapen)}")
    if problems:
        raise CheckpointError(
            f"{where}: the tensors do not fit the model: {'; '.join(problems)}. "
            "Use the configuration that the weights were saved with."
        )


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of tensors that are not made of ordinary real numbers."""
    return [
        name
        for name, tensor in tensors.items()
        if not tensor.is_floating_point() or not torch.isfinite(tensor).all()
    ]
