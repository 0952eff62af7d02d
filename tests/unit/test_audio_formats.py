"""What can be stored how, and what the user hears about wishes that do not fit together."""

import pytest

from unbraid.audio import AudioFormat, AudioInfo, FormatChoice
from unbraid.errors import AudioError, ConfigError

RATE = 16_000
LOSSY = {"ogg": "VORBIS", "opus": "OPUS", "mp3": "MPEG_LAYER_III", "m4a": "AAC"}


def source(subtype: str, container: str = "WAV") -> AudioInfo:
    return AudioInfo(RATE, 2, 10, container, subtype)


def lossy(container: str) -> AudioFormat:
    return AudioFormat(container, LOSSY[container])


@pytest.mark.parametrize(
    ("stored", "in_wav", "in_flac"),
    [
        ("PCM_16", "PCM_16", "PCM_16"),
        ("PCM_24", "PCM_24", "PCM_24"),
        ("PCM_32", "PCM_32", "PCM_24"),
        ("FLOAT", "FLOAT", "PCM_24"),
        ("DOUBLE", "FLOAT", "PCM_24"),
        ("ALAC_20", "PCM_24", "PCM_24"),
        ("ALAC_16", "PCM_16", "PCM_16"),
        ("PCM_U8", "PCM_16", "PCM_16"),
        ("PCM_S8", "PCM_16", "PCM_16"),
        ("ULAW", "PCM_16", "PCM_16"),
        ("G721_32", "PCM_16", "PCM_16"),
        ("VORBIS", "PCM_16", "PCM_16"),
        ("MPEG_LAYER_III", "PCM_16", "PCM_16"),
    ],
)
def test_depth_follows_the_recording(stored: str, in_wav: str, in_flac: str) -> None:
    assert FormatChoice().for_source(source(stored)) == AudioFormat("wav", in_wav)
    assert FormatChoice("flac").for_source(source(stored)) == AudioFormat("flac", in_flac)
    for depth, subtype in (("int16", "PCM_16"), ("int24", "PCM_24"), ("float32", "FLOAT")):
        choice = FormatChoice(depth=depth)
        assert choice.for_source(source(stored)) == AudioFormat("wav", subtype)


@pytest.mark.parametrize("container", LOSSY)
def test_lossy_formats_do_not_depend_on_the_recording(container: str) -> None:
    choice = FormatChoice(container, bitrate_kbps=192)

    found = {choice.for_source(source(subtype)) for subtype in ("PCM_24", "FLOAT", "AAC")}

    assert found == {AudioFormat(container, LOSSY[container], 192)}
    assert next(iter(found)).is_lossy
    assert not next(iter(found)).is_integer
    assert next(iter(found)).extension == container


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"container": "flac", "depth": "float32"}, "--flac cannot hold --float32"),
        ({"container": "mp3", "depth": "int24"}, "--int24 and --mp3 exclude each other"),
        ({"container": "opus", "depth": "int16"}, "--int16 and --opus exclude each other"),
        ({"bitrate_kbps": 320}, "--bitrate 320: WAV loses nothing"),
        ({"container": "flac", "bitrate_kbps": 320}, "--bitrate 320: FLAC loses nothing"),
        ({"container": "mp3", "bitrate_kbps": 321}, "--bitrate 321: mp3 takes 8 to 320"),
        ({"container": "ogg", "bitrate_kbps": 0}, "--bitrate 0: Ogg Vorbis takes 32 to"),
    ],
)
def test_wishes_that_do_not_fit_together_name_the_flags(
    wishes: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        FormatChoice(**wishes)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (("flac", "FLOAT"), "FLAC cannot hold FLOAT; it holds PCM_16 or PCM_24"),
        (("mp3",), "mp3 cannot hold PCM_16"),
        (("wav", "PCM_16", 128), "loses nothing"),
    ],
)
def test_formats_that_do_not_exist(parts: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        AudioFormat(*parts)


@pytest.mark.parametrize(
    ("kind", "fields", "words"),
    [
        (FormatChoice, {"container": "aac"}, "--aac: no such format; choose one of --wav"),
        (FormatChoice, {"depth": "int8"}, "--int8: no such depth; choose one of --int16"),
        (AudioFormat, {"container": "aiff"}, "unknown format 'aiff'; known: wav, flac"),
    ],
)
def test_names_that_do_not_exist(kind: type, fields: dict[str, str], words: str) -> None:
    made = kind()
    for name, value in fields.items():
        object.__setattr__(made, name, value)  # past the type checks that users do not have
    with pytest.raises(ConfigError, match=words):
        made.__post_init__()


@pytest.mark.parametrize(
    ("container", "rate", "written"),
    [
        ("opus", 44_100, 48_000),
        ("opus", 192_000, 48_000),
        ("mp3", 44_100, 44_100),
        ("mp3", 96_000, 48_000),
        ("mp3", 37_800, 44_100),
        ("mp3", 1, 8_000),
        ("m4a", 192_000, 96_000),
        ("m4a", 50_000, 64_000),
        ("ogg", 192_000, 192_000),
        ("ogg", 4_000, 8_000),
        ("ogg", 384_000, 192_000),
    ],
)
def test_rate_is_the_next_one_that_fits(container: str, rate: int, written: int) -> None:
    audio_format = lossy(container)

    assert audio_format.rate_for(rate) == written
    audio_format.check_fits(2, written)
    if written != rate:
        with pytest.raises(AudioError, match=f"{rate} Hz; write --flac or --wav"):
            audio_format.check_fits(2, rate)


@pytest.mark.parametrize("rate", [1, 8_000, 88_201, 655_350, 1_000_000])
def test_without_loss_the_rate_stays(rate: int) -> None:
    assert AudioFormat("wav").rate_for(rate) == rate
    assert AudioFormat("flac").rate_for(rate) == rate


@pytest.mark.parametrize(
    ("num_channels", "rate", "words"),
    [
        (9, 48_000, "8 channels at most, not 9; write --wav"),
        (1, 700_000, "700000 Hz; write --wav"),
        (1, 88_201, "88201 Hz"),
    ],
)
def test_what_flac_cannot_hold(num_channels: int, rate: int, words: str) -> None:
    with pytest.raises(AudioError, match=words):
        AudioFormat("flac").check_fits(num_channels, rate)


@pytest.mark.parametrize(
    ("container", "num_channels", "words"),
    [
        ("mp3", 6, "mp3 holds 2 channels at most, not 6; write --flac or --wav"),
        ("ogg", 9, "8 channels at most"),
        ("m4a", 9, "8 channels at most"),
        ("opus", 5, "holds 1, 2, 3, 4, 6, 8 channels, not 5"),
        ("opus", 10, "8 channels at most"),
    ],
)
def test_channels_that_lossy_formats_cannot_hold(
    container: str, num_channels: int, words: str
) -> None:
    with pytest.raises(AudioError, match=words):
        lossy(container).check_fits(num_channels, 48_000)


def test_more_channels_than_a_wav_holds() -> None:
    AudioFormat("wav").check_fits(255, 48_000)
    with pytest.raises(AudioError, match="WAV holds 255 channels at most"):
        AudioFormat("wav").check_fits(256, 48_000)


def test_bit_rates() -> None:
    assert lossy("mp3").kbps_for(1) == lossy("mp3").kbps_for(2) == 320
    assert lossy("m4a").kbps_for(2) == lossy("opus").kbps_for(2) == 256
    assert lossy("m4a").kbps_for(6) == 768
    assert AudioFormat("mp3", "MPEG_LAYER_III", 128).kbps_for(2) == 128
