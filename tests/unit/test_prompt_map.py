"""The map of prompts: what is on it, that neighbours stay neighbours, and bad input."""

import io
import itertools
from pathlib import Path

import matplotlib.image
import pytest
import torch

from unbraid.apps.prompt_map import (
    Box,
    MapPoint,
    draw_map,
    label_corners,
    map_png,
    placed,
    points_of,
    sounds_in,
)
from unbraid.errors import AudioError, MissingExtra, PromptError
from unbraid.models.waveform import WaveformModel


def clouds(per_cloud: int = 12) -> list[MapPoint]:
    generator = torch.Generator().manual_seed(0)
    points = []
    for number, name in enumerate(("bell", "dog", "rain")):
        centre = 10.0 * torch.eye(8)[number]
        cloud = centre + torch.randn(per_cloud, 8, generator=generator)
        points += [MapPoint("clip", name, vector) for vector in cloud]
        points.append(MapPoint("start", name, cloud.mean(dim=0)))
    return points


def test_the_nearest_neighbours_are_of_the_same_sound() -> None:
    points = clouds()
    places = placed(points)
    distances = torch.cdist(places, places).fill_diagonal_(torch.inf)
    nearest = distances.topk(3, largest=False).indices
    names = [point.name for point in points]
    same = [names[other] == names[one] for one, row in enumerate(nearest.tolist()) for other in row]
    assert sum(same) / len(same) > 0.95
    assert torch.equal(placed(points), places)
    assert not torch.equal(placed(points, seed=1), places)


def test_taught_prompts_stand_at_their_mean_among_their_bands(tiny_model: WaveformModel) -> None:
    bands = torch.randn(8, tiny_model.prompts.dim)
    points = points_of(tiny_model, {"bell": bands, "gong": bands[:1]}, {})
    learned = [point for point in points if point.kind == "learned"]
    assert [point.name for point in learned] == list(tiny_model.prompts.names)
    taught = {point.name: point.vector for point in points if point.kind == "taught"}
    torch.testing.assert_close(taught["bell"], bands.mean(dim=0))
    assert [point.name for point in points if point.kind == "band"] == ["bell"] * 8
    assert torch.equal(taught["gong"], bands[0])


def test_the_picture_shows_every_kind() -> None:
    points = clouds(3)
    plain = matplotlib.image.imread(io.BytesIO(map_png(points, torch.randn(len(points), 2))))
    assert plain.shape[:2] == (900, 1200)
    # A point more is something more to see.
    places = torch.cat([torch.zeros(1, 2), torch.randn(len(points), 2)])
    more = [MapPoint("taught", "bell", torch.zeros(8)), *points]
    richer = matplotlib.image.imread(io.BytesIO(map_png(more, places)))
    assert (richer != plain).any()


def test_a_name_stands_once_and_a_line_leads_from_start_to_taught() -> None:
    points = [*clouds(3), MapPoint("taught", "bell", torch.zeros(8))]
    places = torch.arange(2.0 * len(points)).reshape(-1, 2)
    (axis,) = draw_map(points, places).axes
    assert sorted(text.get_text() for text in axis.texts) == ["bell", "dog", "rain"]
    (line,) = axis.lines
    start = [point.kind for point in points].index("start")
    assert line.get_xydata().tolist() == places[[start, -1]].tolist()


def test_labels_lie_on_no_other_and_on_no_mark() -> None:
    anchors = [(300.0 + 3.0 * number, 200.0) for number in range(6)] + [(595.0, 5.0)]
    corners = label_corners(anchors, [(60.0, 14.0)] * 7, Box(0.0, 0.0, 600.0, 400.0))
    boxes = [Box(left, low, left + 60.0, low + 14.0) for left, low in corners]
    for one, other in itertools.combinations(boxes, 2):
        assert not one.shared(other)
    for box in boxes:
        assert box.shared(Box(0.0, 0.0, 600.0, 400.0)) == pytest.approx(box.area)
        assert not any(box.left < x < box.right and box.low < y < box.high for x, y in anchors)
    assert corners[-1] == (520.0, 20.0)


def test_sounds_without_a_tagger_are_refused(tiny_model: WaveformModel, tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="no tagger"):
        points_of(tiny_model, {}, {"bell": [tmp_path / "a.wav"]})


def test_too_few_points_and_a_missing_package_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PromptError, match="4 points at least, and there are 3"):
        placed(clouds()[:3])
    monkeypatch.setitem(__import__("sys").modules, "sklearn.manifold", None)
    with pytest.raises(MissingExtra, match=r"unbraid\[map\]"):
        placed(clouds())


def test_folders_are_sounds(tmp_path: Path) -> None:
    for name in ("dog/a.wav", "dog/b.flac", "dog/notes.txt", "cat/c.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert {name: len(clips) for name, clips in sounds_in([tmp_path]).items()} == {
        "cat": 1,
        "dog": 2,
    }
    assert list(sounds_in([tmp_path / "dog"])) == ["dog"]
    for wrong in (tmp_path / "nowhere", tmp_path / "dog/a.wav"):
        with pytest.raises(AudioError, match="give a folder of recordings"):
            sounds_in([wrong])
    (tmp_path / "empty").mkdir()
    with pytest.raises(AudioError, match="empty"):
        sounds_in([tmp_path / "empty"])
