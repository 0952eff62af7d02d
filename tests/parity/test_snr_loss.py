"""The training loss against the recorded values of the released implementation."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from unbraid.objectives.losses import SnrLossConfig, thresholded_snr_loss
from unbraid.prompts import STANDARD_PROMPTS, canonical_name


def test_matches_the_released_loss(shared: Path) -> None:
    recorded = load_file(shared / "parity" / "snr_with_zero_refs.safetensors")
    facts = json.loads((shared / "parity" / "snr_with_zero_refs.json").read_text())
    prompts = torch.tensor(
        [[STANDARD_PROMPTS.index(canonical_name(name)) for name in row] for row in facts["prompts"]]
    )
    config = SnrLossConfig(
        max_snr_db=facts["snr_max"], silence_weight=facts["zero_ref_loss_weight"], eps=facts["eps"]
    )
    estimates, references = recorded["estimate"], recorded["reference"]

    by_prompt = thresholded_snr_loss(estimates, references, prompts, config)
    assert by_prompt.item() == pytest.approx(recorded["loss_per_prompt_pit"].item(), rel=1e-5)

    all_equal = torch.zeros_like(prompts)
    over_all = thresholded_snr_loss(estimates, references, all_equal, config)
    assert over_all.item() == pytest.approx(recorded["loss_full_pit"].item(), rel=1e-5)
