"""Measuring a separator on one mixture: separate, put in order, compare, beside oracles."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unbraid.dsp.stft import StftConfig
from unbraid.errors import DataError
from unbraid.evaluation.items import Item, Protocol
from unbraid.evaluation.measures import Comparison, find_measure, measure_all
from unbraid.evaluation.oracles import ORACLES, oracle_estimates
from unbraid.evaluation.results import ItemResult, SourceResult, Values
from unbraid.evaluation.wiener import wiener_filtered
from unbraid.objectives.assignment import (
    assign_freely,
    assign_within_equal_prompts,
    gather_sources,
)
from unbraid.objectives.measures import si_sdr_db, snr_db
from unbraid.types import equal_prompt_groups, stem_names

#: Separates an item's mixture into one source per prompt, with its channels and its length; or
#: into more, where the separator does not say which is which.
#: Most look at the mixture alone; one that reads finished stems needs the item's name.
Separate: TypeAlias = Callable[[Item, tuple[str, ...]], Float[Tensor, "source channel time"]]


def measure_item(
    item: Item, separate: Separate, protocol: Protocol, *, with_oracles: bool = True
) -> tuple[ItemResult, Float[Tensor, "source channel time"]]:
    """Separate one mixture and measure what comes out.

    Args:
        item: The mixture and its sources.
        separate: The separator; called once, or once per distinct prompt.
        protocol: By which rules. Its channels, rate, length and pieces were seen to already.
        with_oracles: Measure the oracles' masks too.

    Returns:
        The result, and the estimates in the order of the references.

    Raises:
        DataError: If there are fewer estimates than references.
    """
    started = time.perf_counter()
    estimates = _separated(item, separate, protocol)
    elapsed_s = time.perf_counter() - started
    if len(estimates) < len(item.prompts):
        raise DataError(
            f"{item.name}: has {len(item.prompts)} sources, but the model gives {len(estimates)}; "
            "measure on mixtures of fewer."
        )
    if protocol.wiener:
        estimates = wiener_filtered(estimates, item.mixture.samples)
    estimates = in_best_order(estimates, item, protocol.measures[0])
    mixture = item.mixture.samples.expand_as(item.references)
    of_estimate = _measured(item, estimates, protocol, protocol.measures)
    of_mixture = _measured(item, mixture, protocol, protocol.measures)
    of_oracles = _oracles(item, protocol) if with_oracles else {}
    silent = ~item.references.flatten(1).any(dim=1)
    sources = tuple(
        SourceResult(
            stem=stem,
            prompt=prompt,
            is_silent=bool(silent[position]),
            estimate=of_estimate[position],
            mixture=of_mixture[position],
            oracles={name: values[position] for name, values in of_oracles.items()},
        )
        for position, (stem, prompt) in enumerate(
            zip(stem_names(item.prompts), item.prompts, strict=True)
        )
    )
    result = ItemResult(
        item.name, item.part, item.group, item.mixture.duration_s, elapsed_s, sources
    )
    return result, estimates


def in_best_order(
    estimates: Float[Tensor, "estimate channel time"], item: Item, measure: str
) -> Float[Tensor, "source channel time"]:
    """The estimates in the order that suits the references best, inside equal prompts.

    Where there are more estimates than references, any of them may answer any reference and
    the rest is left out. The order is decided by SNR where the leading measure is one that hears
    levels, and by SI-SDR for all others; silent references take what the others leave.
    """
    groups = equal_prompt_groups(item.prompts)
    is_free = len(estimates) > len(item.prompts)
    if not is_free and all(len(group) == 1 for group in groups):
        return estimates
    ratio_db = snr_db if measure in _BY_LEVEL else si_sdr_db
    pairwise = torch.zeros(1, len(estimates), len(item.prompts))
    everything = tuple(range(len(item.prompts)))
    for group in (everything,) if is_free else groups:
        for estimate in range(len(estimates)) if is_free else group:
            for reference in group:
                pairwise[0, estimate, reference] = ratio_db(
                    estimates[estimate], item.references[reference]
                ).mean()
    if is_free:
        chosen = assign_freely(-pairwise)
    else:
        chosen = assign_within_equal_prompts(-pairwise, _numbers(item.prompts))
    return gather_sources(estimates.flatten(1)[None], chosen)[0].unflatten(1, estimates.shape[1:])


_BY_LEVEL = ("snr_db", "sdr_v4_db", "csdr_db")


def _numbers(prompts: Sequence[str]) -> Int[Tensor, "1 source"]:
    distinct = list(dict.fromkeys(prompts))
    return torch.tensor([[distinct.index(prompt) for prompt in prompts]])


def _separated(
    item: Item, separate: Separate, protocol: Protocol
) -> Float[Tensor, "source channel time"]:
    if not protocol.single_prompt:
        return separate(item, item.prompts)
    estimates = torch.zeros_like(item.references)
    for group in equal_prompt_groups(item.prompts):
        asked = tuple(item.prompts[position] for position in group)
        estimates[list(group)] = separate(item, asked)
    return estimates


def _measured(
    item: Item,
    estimates: Float[Tensor, "source channel time"],
    protocol: Protocol,
    names: Sequence[str],
) -> list[dict[str, float]]:
    comparison = Comparison(
        estimates, item.references, item.mixture.samples, item.mixture.sample_rate
    )
    measured = measure_all(names, comparison)
    if protocol.ceiling_db is None:
        return measured
    return [_under_ceiling(values, protocol.ceiling_db) for values in measured]


def _under_ceiling(values: Values, ceiling_db: float) -> dict[str, float]:
    return {
        name: min(value, ceiling_db) if name.endswith("_db") and not math.isnan(value) else value
        for name, value in values.items()
    }


def _oracles(item: Item, protocol: Protocol) -> dict[str, list[dict[str, float]]]:
    """What ideal masks reach, by the measures that need no further package: those are slow."""
    names = [name for name in protocol.measures if not find_measure(name).extra]
    config = None
    if protocol.oracle_stft is not None:
        config = StftConfig(*protocol.oracle_stft, window="hann")
    reached = {}
    for oracle in ORACLES if names else ():
        estimates = oracle_estimates(
            oracle, item.references, item.mixture.samples, item.mixture.sample_rate, config
        )
        reached[oracle] = _measured(item, estimates, protocol, names)
    return reached
