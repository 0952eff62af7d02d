"""The benchmark that anyone can run: mixtures drawn from a manifest, always the same ones.

A mixture is drawn once and asked about in several ways: all its sources, each prompt by
itself, the prompts in reverse, sources put together under coarser prompts, and one prompt more
whose sound is not there. The mixtures do not depend on the model: they are drawn and
rendered at 48 kHz. Their digest covers the plans and the recordings, byte by byte.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import random
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import torch

from unbraid.data.catalogue import open_pools
from unbraid.data.fixed import fixed_plans
from unbraid.data.manifest import read_manifest
from unbraid.errors import DataError
from unbraid.evaluation.items import Item
from unbraid.mixing.recipe import Clip, MixPlan, MixRecipe, Planner, Scene
from unbraid.mixing.render import ClipReader, render
from unbraid.types import Waveform, equal_prompt_groups

SAMPLE_RATE = 48_000
SEED = 2026
#: Mixtures of each scene, unless asked otherwise.
PER_SCENE = 16

#: What is mixed. Every prompt is in here, two to five sources, and several granularities.
SCENES = (
    Scene(("speech", "sfx-mix")),
    Scene(("speech", "music-mix")),
    Scene(("sfx-mix", "music-mix")),
    Scene(("speech", "sfx")),
    Scene(("sfx", "music-mix")),
    Scene(("speech", "speech")),
    Scene(("sfx", "sfx")),
    Scene(("vocals", "other")),
    Scene(("drums", "bass")),
    Scene(("speech", "sfx-mix", "music-mix")),
    Scene(("speech", "speech", "sfx-mix")),
    Scene(("vocals", "drums", "other")),
    Scene(("vocals", "drums", "bass", "other")),
    Scene(("speech", "speech", "sfx-mix", "music-mix")),
    Scene(("speech", "sfx", "sfx", "music-mix")),
    Scene(("speech", "vocals", "drums", "bass", "other")),
    Scene(("speech", "speech", "sfx", "sfx", "music-mix")),
)

#: Levels as in training, and everything else as it was recorded.
RECIPE = MixRecipe(
    crop_s=6.0,
    composed_probability=0.5,
    same_song_probability=1.0,
    common_bandwidth_probability=0.0,
    clip_weight_exponent=0.5,
)

#: Ways of asking about a mixture.
Question = Literal["all", "single", "reversed", "coarser", "absent"]
QUESTIONS: tuple[Question, ...] = get_args(Question)

#: What may be asked together under one coarser prompt.
_COARSER = {
    "music-mix": ("vocals", "drums", "bass", "other"),
    "sfx-mix": ("sfx",),
}
#: Prompts that hold, or may hold, the sound of others: their absence would not be plain.
_RELATED = {
    "speech": ("vocals",),
    "vocals": ("speech", "music-mix"),
    "sfx": ("sfx-mix",),
    "sfx-mix": ("sfx",),
    "music-mix": ("vocals", "drums", "bass", "other"),
    **dict.fromkeys(("drums", "bass", "other"), ("music-mix",)),
}


#: Prompts that are asked, and the sources of the mixture that each should bring out.
_Asked: TypeAlias = list[tuple[str, tuple[int, ...]]]


@dataclass(frozen=True, eq=False)
class Pool:
    """The mixtures, as plans, and how their recordings are read.

    Attributes:
        plans: Scene → plans.
        read_clip: Reads the recordings that the plans name, at ``SAMPLE_RATE``.
        digest: SHA-256 of the plans and of the recordings that they use.
    """

    plans: Mapping[str, tuple[MixPlan, ...]]
    read_clip: ClipReader
    digest: str

    def num_items(self, question: Question) -> int:
        """How many mixtures are asked about in this way."""
        plans = (plan for each in self.plans.values() for plan in each)
        return sum(_asked(_names(plan), question, "") is not None for plan in plans)

    def items(self, question: Question, only: Container[str] | None = None) -> Iterator[Item]:
        """The mixtures and what is asked about them; some cannot be asked about in this way.

        Args:
            question: How to ask.
            only: Names of the mixtures that are wanted; None for all.
        """
        for scene, plans in self.plans.items():
            for number, plan in enumerate(plans):
                name = f"{scene} {number + 1}"
                asked = _asked(_names(plan), question, name)
                if asked is None or (only is not None and name not in only):
                    continue
                mix = render(plan, self.read_clip, SAMPLE_RATE)
                silence = torch.zeros_like(mix.mixture)
                references = [
                    sum((mix.references[source] for source in sources), start=silence)
                    for _, sources in asked
                ]
                prompts = tuple(prompt for prompt, _ in asked)
                yield Item(
                    name=name,
                    mixture=Waveform(mix.mixture[None], SAMPLE_RATE),
                    references=torch.stack(references)[:, None],
                    prompts=prompts,
                    part=" + ".join(prompts) if question == "coarser" else scene,
                )


def open_pool(
    manifest: Path,
    pools: Mapping[str, Sequence[str]],
    split: str,
    cache_dir: Path,
    per_scene: int = PER_SCENE,
    most_sources: int | None = None,
) -> Pool:
    """Draw the mixtures; scenes for which the manifest has nothing are left out.

    Args:
        manifest: Of the recordings.
        pools: Prompt → patterns of what serves it, see ``data.catalogue.select``. Patterns
            that match nothing are passed over.
        split: Which split of the manifest to draw from.
        cache_dir: Where decoded recordings are kept.
        per_scene: Mixtures of each scene.
        most_sources: Leave out scenes of more sources; None to leave out none.

    Raises:
        DataError: If the manifest cannot be read, has nothing for any scene, or too few
            performers for one.
    """
    recordings = read_manifest(manifest)
    kinds = {recording.kind for recording in recordings}
    matching = {
        prompt: [each for each in patterns if fnmatch.filter(kinds, each.removeprefix("!"))]
        for prompt, patterns in pools.items()
    }
    clips, store = open_pools(manifest, recordings, matching, split, SAMPLE_RATE, cache_dir)
    scenes = [
        scene
        for scene in SCENES
        if all(_can_be_made(each, clips) for each in scene.prompts)
        and len(scene.prompts) <= (most_sources or len(scene.prompts))
    ]
    if not scenes:
        raise DataError(
            f"{manifest}: its split {split!r} has recordings for "
            f"{', '.join(name for name in clips if clips[name]) or 'no prompt'}, which makes no "
            "scene; name another split with --split, or a recipe that says what serves which "
            "prompt with --recipe."
        )
    planner = Planner(replace(RECIPE, scenes=tuple(scenes)), clips)
    plans = fixed_plans(planner, scenes, per_scene, store.read, SAMPLE_RATE, SEED)
    return Pool(plans, store.read, _digest(plans, manifest.parent))


def _can_be_made(prompt: str, clips: Mapping[str, Sequence[Clip]]) -> bool:
    return any(clips.get(name) for name in (prompt, *RECIPE.composed.get(prompt, ())))


def _names(plan: MixPlan) -> tuple[str, ...]:
    return tuple(source.prompt for source in plan.sources)


def _asked(prompts: tuple[str, ...], question: Question, name: str) -> _Asked | None:
    """What is asked about a mixture; None where that makes no sense, or is the same as ``all``."""
    everything: _Asked = [(prompt, (position,)) for position, prompt in enumerate(prompts)]
    match question:
        case "all" | "single":
            return everything
        case "reversed":
            # Equal prompts keep their order, so that each source keeps its name.
            groups = equal_prompt_groups(prompts)[::-1]
            return [everything[each] for group in groups for each in group] if groups[1:] else None
        case "coarser":
            return _coarser(prompts)
        case "absent":
            related = {other for prompt in prompts for other in _RELATED[prompt]}
            candidates = sorted(set(_RELATED) - set(prompts) - related)
            if not candidates:
                return None
            rng = random.Random(f"{SEED}/absent/{name}")
            asked = list(everything)
            asked.insert(rng.randrange(len(asked) + 1), (rng.choice(candidates), ()))
            return asked


def _coarser(prompts: tuple[str, ...]) -> _Asked | None:
    asked: dict[tuple[str, int], tuple[int, ...]] = {}
    for position, prompt in enumerate(prompts):
        for coarse, parts in _COARSER.items():
            if prompt in parts:
                asked[coarse, 0] = (*asked.get((coarse, 0), ()), position)
                break
        else:
            asked[prompt, position] = (position,)
    coarse_prompts = [prompt for prompt, _ in asked]
    is_same = len(asked) == len(prompts) and tuple(coarse_prompts) == prompts
    if is_same or len(asked) < 2:
        return None
    return [(prompt, sources) for (prompt, _), sources in asked.items()]


#: Fields of plans that say what happened to sounds. In the pool nothing does, and digests shall
#: stay what they were before such fields came.
_AUGMENTATION = frozenset(
    {
        *("warp", "coding", "is_inverted", "room", "width"),
        *("clipping_db", "has_damaged_references", "level_db"),
    }
)


def _listed(record: Mapping[str, Any]) -> dict[str, Any]:
    """A plan, or a part of it, as its digest sees it."""
    return {
        name: [_listed(each) for each in value] if name in ("sources", "parts") else value
        for name, value in record.items()
        if name not in _AUGMENTATION
    }


def _digest(plans: Mapping[str, tuple[MixPlan, ...]], root: Path) -> str:
    """SHA-256 over the plans and the bytes of the recordings that they use."""
    digest = hashlib.sha256()
    listed = {scene: [_listed(asdict(plan)) for plan in each] for scene, each in plans.items()}
    digest.update(json.dumps(listed, sort_keys=True).encode())
    used = sorted(
        {
            part.clip.partition("#")[0]
            for each in plans.values()
            for plan in each
            for source in plan.sources
            for part in source.parts
        }
    )
    for path in used:
        with (root / path).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
