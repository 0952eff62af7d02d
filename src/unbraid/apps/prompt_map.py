"""A map of prompts: which sounds and which prompts lie near each other, in two dimensions.

Source: Y. Liu et al., "Audio prompt tuning for universal sound separation", ICASSP 2024,
    arXiv 2311.18399, figure 3; L. van der Maaten and G. Hinton, "Visualizing data using t-SNE",
    JMLR 2008, for the projection.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.apps.example_clips import files_in
from unbraid.apps.queries import query_from_clips
from unbraid.errors import AudioError, MissingExtra, PromptError
from unbraid.models.waveform import WaveformModel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: ``clip``: what a tagger hears in one clip. ``start``: the mean over the clips of a sound.
#: ``learned``: a prompt of the model. ``taught``: one that was added to it. ``band``: one vector of
#: a taught prompt that has several.
PointKind: TypeAlias = Literal["clip", "start", "learned", "taught", "band"]

_FEWEST = 4
_PERPLEXITY = 30.0
_BACKGROUND = "#14161c"
_INK = "#e8e8ec"
_PIXELS_PER_INCH = 150
#: From the middle of a mark to where its label may begin.
_MARK_PIXELS = 15.0


@dataclass(frozen=True, eq=False)
class MapPoint:
    """One vector of the space that a model is asked in.

    Attributes:
        kind: What it is.
        name: Of the sound or prompt; points of one name have one colour.
        vector: Where it lies.
    """

    kind: PointKind
    name: str
    vector: Float[Tensor, "dim"]


def sounds_in(folders: Sequence[Path]) -> dict[str, tuple[Path, ...]]:
    """Sounds and their clips: a folder of recordings is a sound of its name.

    Args:
        folders: Folders of recordings, or folders of such folders.

    Raises:
        AudioError: If a folder holds neither.
    """
    sounds: dict[str, tuple[Path, ...]] = {}
    for folder in folders:
        places: list[Path] = []
        if folder.is_dir():
            places = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
        found = {place.name: tuple(files) for place in places if (files := files_in(place))}
        if not found:
            raise AudioError(
                f"{folder}: give a folder of recordings of one sound, or a folder of such folders."
            )
        for name, clips in found.items():
            sounds[name] = sounds.get(name, ()) + clips
    return sounds


def points_of(
    model: WaveformModel,
    taught: Mapping[str, Float[Tensor, "vector dim"]],
    sounds: Mapping[str, Sequence[Path]],
) -> tuple[MapPoint, ...]:
    """Everything that is to be on a map.

    Args:
        model: Its learned prompts, and its tagger, if it has one.
        taught: Prompts that were added: name → vectors.
        sounds: Sound → clips; they lie where the model's tagger hears them.

    Raises:
        PromptError: If there are sounds, but no tagger.
        AudioError: If a clip cannot be read, or is silent.
    """
    return (
        *_of_sounds(model, sounds),
        *(
            MapPoint("learned", name, row[: model.prompts.dim])
            for name, row in zip(model.prompts.names, model.prompts.weight.detach(), strict=True)
        ),
        *(point for name, vectors in taught.items() for point in _of_taught(name, vectors)),
    )


def _of_sounds(model: WaveformModel, sounds: Mapping[str, Sequence[Path]]) -> Iterator[MapPoint]:
    for name, clips in sounds.items():
        vectors = [query_from_clips(model, [clip]) for clip in clips]
        yield from (MapPoint("clip", name, vector) for vector in vectors)
        yield MapPoint("start", name, torch.stack(vectors).mean(dim=0))


def _of_taught(name: str, vectors: Float[Tensor, "vector dim"]) -> Iterator[MapPoint]:
    if len(vectors) > 1:
        yield from (MapPoint("band", name, vector) for vector in vectors)
    yield MapPoint("taught", name, vectors.mean(dim=0))


def placed(points: Sequence[MapPoint], seed: int = 0) -> Float[Tensor, "point 2"]:
    """A place in the plane for each point, by t-SNE: neighbours stay neighbours.

    What is far apart may land anywhere: distances between groups mean nothing.

    Args:
        points: At least four.
        seed: Of the search; the same points and seed give the same map.

    Raises:
        PromptError: If there are too few points.
        MissingExtra: If scikit-learn is missing.
    """
    if len(points) < _FEWEST:
        raise PromptError(
            f"a map needs {_FEWEST} points at least, and there are {len(points)}: teach prompts, "
            "or give folders of clips to a model with a tagger."
        )
    try:
        from sklearn.manifold import TSNE
    except ModuleNotFoundError as error:
        raise MissingExtra(
            "drawing a map needs scikit-learn; install it with: pip install 'unbraid[map]'"
        ) from error
    vectors = torch.stack([point.vector for point in points]).numpy()
    search = TSNE(
        perplexity=min(_PERPLEXITY, (len(points) - 1) / 3),
        init="random",  # points that are few may all lie on one line
        random_state=seed,
    )
    return torch.from_numpy(search.fit_transform(vectors)).float()


def map_png(points: Sequence[MapPoint], places: Float[Tensor, "point 2"]) -> bytes:
    """The map of ``draw_map`` as the content of a PNG file."""
    picture = io.BytesIO()
    draw_map(points, places).savefig(picture, format="png")
    return picture.getvalue()


def draw_map(points: Sequence[MapPoint], places: Float[Tensor, "point 2"]) -> Figure:
    """Draw a map: dots are clips, circles their means, diamonds learned and stars taught prompts.

    Each name stands once, beside its prompt if there is one, and a line leads from the mean of
    the clips to the prompt that was taught with them.
    """
    # See ``apps.pictures``: matplotlib is slow to import, and pyplot would keep the figure.
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    names = list(dict.fromkeys(point.name for point in points))
    palette = colormaps["tab20" if len(names) > 10 else "tab10"]
    colours = {name: palette(number % palette.N) for number, name in enumerate(names)}
    figure = Figure(
        figsize=(8.0, 6.0), dpi=_PIXELS_PER_INCH, facecolor=_BACKGROUND, layout="constrained"
    )
    axis = figure.subplots()
    axis.set_facecolor(_BACKGROUND)
    axis.margins(0.08)
    #: Kind → name → its place, of what has a label.
    found: dict[PointKind, dict[str, tuple[float, float]]] = {}
    for level, (kind, look) in enumerate(_LOOKS.items()):
        for point, (right, up) in zip(points, places.tolist(), strict=True):
            if point.kind == kind:
                colour = colours[point.name]
                face = "none" if look.is_hollow else colour
                edge = _INK if look.has_label and not look.is_hollow else colour
                axis.scatter(
                    right, up, s=look.size, marker=look.marker, facecolors=face, edgecolors=edge,
                    linewidths=look.line, alpha=look.alpha, zorder=2 + level,
                )  # fmt: skip
                if look.has_label:
                    found.setdefault(kind, {})[point.name] = (right, up)
    for name, start in found.get("start", {}).items():
        if (end := found.get("taught", {}).get(name)) is not None:
            across, upward = zip(start, end, strict=True)
            axis.plot(across, upward, color=_INK, linewidth=1.0, zorder=3)
    shown = [look for kind, look in _LOOKS.items() if any(each.kind == kind for each in points)]
    keys = [
        Line2D(
            [], [], linestyle="none", marker=look.marker, color=_INK, label=look.title,
            markersize=look.size**0.5, markerfacecolor="none" if look.is_hollow else _INK,
        )
        for look in shown
    ]  # fmt: skip
    figure.legend(
        handles=keys, loc="outside upper center", ncols=len(keys), frameon=False, labelcolor=_INK
    )
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_color(_INK)
        spine.set_alpha(0.3)
    figure.draw_without_rendering()  # only now places in pixels are known
    labelled = {name: place for of_kind in found.values() for name, place in of_kind.items()}
    anchors = {name: axis.transData.transform(place) for name, place in labelled.items()}
    texts = {
        name: axis.annotate(
            name, place, (0, 0), textcoords="offset pixels", color=_INK, fontsize=8, zorder=9,
            arrowprops={"arrowstyle": "-", "color": _INK, "alpha": 0.4, "linewidth": 0.6},
        )
        for name, place in labelled.items()
    }  # fmt: skip
    sizes = [text.get_window_extent().size for text in texts.values()]
    frame = axis.get_window_extent().extents
    corners = label_corners(
        [(float(right), float(up)) for right, up in anchors.values()],
        [(float(width), float(height)) for width, height in sizes],
        Box(*map(float, frame)),
    )
    for text, anchor, corner in zip(texts.values(), anchors.values(), corners, strict=True):
        text.set_position((corner[0] - anchor[0], corner[1] - anchor[1]))
    return figure


def label_corners(
    anchors: Sequence[tuple[float, float]], sizes: Sequence[tuple[float, float]], frame: Box
) -> list[tuple[float, float]]:
    """Where labels go so that they lie on no other and on no anchor, if there is room.

    One after the other takes the place with the least in its way, the nearest of equal ones, out
    of eight directions at growing distances.

    Args:
        anchors: What is labelled, in pixels: right, up.
        sizes: Width and height of each label.
        frame: What they have to stay in.

    Returns:
        The lower left corner of each label.
    """
    marks = [Box(x, y, x, y).wider(_MARK_PIXELS) for x, y in anchors]
    placed: list[Box] = []
    for (x, y), (width, height) in zip(anchors, sizes, strict=True):
        options = []
        for distance in (1.0, 1.6, 2.5, 4.0, 6.0):
            away = distance * _MARK_PIXELS
            for right, up in ((1, 1), (1, -1), (-1, 1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1)):
                left = x + right * away - width * (1 - right) / 2
                low = y + up * away - height * (1 - up) / 2
                options.append(Box(left, low, left + width, low + height))
        placed.append(
            min(
                options,
                key=lambda box: (
                    sum(box.shared(other) for other in (*placed, *marks))
                    + box.area
                    - box.shared(frame)
                ),
            )
        )
    return [(box.left, box.low) for box in placed]


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels: from ``left`` to ``right``, and from ``low`` up to ``high``."""

    left: float
    low: float
    right: float
    high: float

    @property
    def area(self) -> float:
        """Its size in pixels."""
        return (self.right - self.left) * (self.high - self.low)

    def wider(self, by: float) -> Box:
        """The same with a margin around it."""
        return Box(self.left - by, self.low - by, self.right + by, self.high + by)

    def shared(self, other: Box) -> float:
        """How much of it lies in another one."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.high, other.high) - max(self.low, other.low)
        return max(0.0, width) * max(0.0, height)


@dataclass(frozen=True)
class _Look:
    title: str
    marker: str
    size: float
    has_label: bool = True
    is_hollow: bool = False
    alpha: float = 1.0
    line: float = 1.0


#: In the order in which they are drawn: prompts lie above clips, and those above bands. The circle
#: is larger than the star, so that both are seen where a prompt has hardly moved.
_LOOKS: Mapping[PointKind, _Look] = {
    "band": _Look("one band of a taught prompt", ".", 12.0, has_label=False, alpha=0.35, line=0.0),
    "clip": _Look("clip", "o", 14.0, has_label=False),
    "start": _Look("mean of clips", "o", 190.0, is_hollow=True, line=1.5),
    "learned": _Look("learned prompt", "D", 45.0),
    "taught": _Look("taught prompt", "*", 90.0, line=0.6),
}
