"""Whether clips that are said to be of one sound are: by what a tagger hears in them.

The clips are parted into the two groups that are least alike. If these are less alike than clips
of one sound are, somebody should listen: whether one clip went astray, or half of them are of
another sound.

Source: R. R. Sokal and C. D. Michener, "A statistical method for evaluating systematic
    relationships", University of Kansas Science Bulletin 38, 1958, for the groups: average
    linkage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from unbraid.checkpoints import load_bundle, resolve_model
from unbraid.dsp.resample import resample
from unbraid.errors import in_brief
from unbraid.mixing.textures import events, textures
from unbraid.models.taggers.htsat import Htsat

#: Groups that are less alike are doubted. Of lessons with clips of one class of effects, one in
#: ten falls below: see ``bench/odd_clips.py``, which also measures what that finds.
UNLIKE = 0.31
#: With two clips there is nothing to tell which one is odd.
FEWEST = 3

# It ships with unbraid, and so hears clips for every model.
_TAGGER_MODEL = "query-mini"
_OTHERS_S = 2.0


@dataclass(frozen=True)
class Parting:
    """Clips in two groups.

    Attributes:
        fewer: Places of the clips in the smaller group, in order.
        more: Places of the others.
        between: Mean likeness of a clip of one group to one of the other.
        within: Mean likeness of two clips of one group, over both groups.
    """

    fewer: tuple[int, ...]
    more: tuple[int, ...]
    between: float
    within: float


def our_tagger() -> Htsat:
    """The tagger that ships with unbraid."""
    tagger = load_bundle(resolve_model(_TAGGER_MODEL)).model.tagger
    assert tagger is not None, f"{_TAGGER_MODEL} has one"
    return tagger


def likeness(
    clips: Sequence[Float[Tensor, "_"]], sample_rate: int, tagger: Htsat
) -> Float[Tensor, "clip other_clip"]:
    """How alike clips are, from -1 to 1.

    It is the mean of two cosines: of the embeddings, and of how sure the tagger is of each of its
    classes, both relative to their means over the sounds of ``mixing.textures``. Of a clip that is
    too long to be heard as a whole the beginning counts.

    Args:
        clips: Mono, none of them empty.
        sample_rate: Of the clips, in Hz.
        tagger: Who listens.
    """
    rate = tagger.sample_rate
    others = textures(_OTHERS_S, rate) | events(_OTHERS_S, rate)
    usual = _heard(list(others.values()), tagger)
    heard = _heard([resample(clip[None], sample_rate, rate)[0] for clip in clips], tagger)
    sides = [
        normalize(clip - other.mean(dim=0), dim=1) for clip, other in zip(heard, usual, strict=True)
    ]
    return torch.stack([side @ side.T for side in sides]).mean(dim=0)


@torch.inference_mode()
def _heard(sounds: Sequence[Tensor], tagger: Htsat) -> tuple[Tensor, Tensor]:
    """Embeddings [clip, dim], and how sure it is of classes [clip, class], in logits."""
    tags = [tagger.eval()(sound[None]) for sound in sounds]
    scores = torch.cat([each.clip_scores for each in tags])
    return torch.cat([each.embedding for each in tags]), scores.logit(eps=1e-5)


def least_alike(alike: Float[Tensor, "clip clip"]) -> Parting:
    """Part clips into two groups: by average linkage, the two that are joined last.

    Args:
        alike: Likeness of each clip to each other one, at least two clips.
    """
    groups = [[place] for place in range(len(alike))]
    # Sums over pairs, from which means follow when groups are joined.
    sums, sizes = alike.double().clone(), torch.ones(len(alike), dtype=torch.float64)
    while len(groups) > 2:
        means = (sums / (sizes[:, None] * sizes)).fill_diagonal_(-torch.inf)
        first, second = sorted(divmod(int(means.argmax()), len(groups)))
        sums[first] += sums[second]
        sums[:, first] += sums[:, second]
        sizes[first] += sizes[second]
        groups[first] += groups.pop(second)
        rest = [place for place in range(len(sizes)) if place != second]
        sums, sizes = sums[rest][:, rest], sizes[rest]
    fewer, more = sorted(map(sorted, groups), key=len)
    pairs = [alike[group][:, group].triu(1) for group in (fewer, more)]
    num_pairs = sum(len(group) * (len(group) - 1) // 2 for group in (fewer, more))
    return Parting(
        tuple(fewer),
        tuple(more),
        float(alike[fewer][:, more].mean()),
        float(sum(part.sum() for part in pairs)) / max(1, num_pairs),
    )


def doubts(
    paths: Sequence[Path], clips: Sequence[Float[Tensor, "_"]], sample_rate: int
) -> list[str]:
    """What is to be said about clips that do not sound like one sound, with the evidence.

    Args:
        paths: What to call the clips.
        clips: Mono, none of them empty.
        sample_rate: Of the clips, in Hz.

    Returns:
        A sentence, or nothing: for fewer than three clips, or where all seem to be alike.
    """
    if len(clips) < FEWEST:
        return []
    parting = least_alike(likeness(clips, sample_rate, our_tagger()))
    if parting.between >= UNLIKE:
        return []
    named = in_brief(str(paths[place]) for place in parting.fewer)
    one = len(parting.fewer) == 1
    others = f"the other {len(parting.more)} clips"
    return [
        f"{named} {'sounds' if one else 'sound'} unlike {others}: the likeness of the two groups "
        f"is {parting.between:.2f} and that within them {parting.within:.2f} on average, where 1 "
        f"is the same. "
        + ("Is it the same sound?" if one else "If these are two sounds, teach a prompt for each.")
    ]
