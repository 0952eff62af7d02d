"""Make the sounds of the demo from nothing: speech, music and noises.

Nobody was recorded for any of it. Two free synthesisers read lines that we wrote; every
note, drum and drop of rain is computed below. The same seed gives the same sounds. The
results are committed, so that nobody needs the synthesisers to run the demo:

    apt-get install festival festvox-us-slt-hts flite
    python examples/make_demo_scene.py src/unbraid/apps/assets

The noises and the three stems of music last twelve seconds (four bars at 80 beats a
minute); the two talkers are shorter, and the demo places them where it needs them. Files
hold 12 of their 16 bits: the noise this adds lies at -77 dBFS, under everything that is
heard, and it keeps the package small.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

Samples = NDArray[np.float64]

SAMPLE_RATE = 48_000
BEATS_PER_MINUTE = 80.0
BEAT_S = 60.0 / BEATS_PER_MINUTE
NUM_BEATS = 16
DURATION_S = NUM_BEATS * BEAT_S
NUM_BITS = 12
PEAK_DB = -3.0
SEED = 20260401

WOMAN_SAYS = "The rain has not stopped since supper. Listen! Somebody is knocking at the door."
MAN_SAYS = "At this hour? It was only the wind. Sit down with me, and let us hear the music."


# ---------------------------------------------------------------- building blocks


def clock(duration_s: float) -> Samples:
    """Sampling instants in seconds, from 0."""
    return np.arange(round(duration_s * SAMPLE_RATE)) / SAMPLE_RATE


def silence(duration_s: float = DURATION_S) -> Samples:
    """An empty track."""
    return np.zeros(round(duration_s * SAMPLE_RATE))


def place(track: Samples, sound: Samples, start_s: float, gain: float = 1.0) -> None:
    """Add ``sound`` to ``track`` at ``start_s``; what runs over the end is cut off."""
    start = round(start_s * SAMPLE_RATE)
    sound = sound[: max(0, len(track) - start)]
    track[start : start + len(sound)] += gain * sound


def shape_spectrum(sound: Samples, points: Iterable[tuple[float, float]]) -> Samples:
    """Filter without phase shift.

    ``points`` are (frequency in Hz, gain in dB), joined by straight lines over the
    logarithm of frequency.
    """
    frequencies_hz, gains_db = zip(*points, strict=True)
    bins_hz = np.fft.rfftfreq(2 * len(sound), 1 / SAMPLE_RATE)
    curve_db = np.interp(np.log(np.maximum(bins_hz, 1.0)), np.log(frequencies_hz), gains_db)
    spectrum = np.fft.rfft(sound, 2 * len(sound)) * 10 ** (curve_db / 20)
    return np.fft.irfft(spectrum)[: len(sound)]


def with_room(sound: Samples, rng: np.random.Generator, decay_s: float, wet: float) -> Samples:
    """Add a small room: exponentially dying noise whose treble dies first."""
    t = clock(3 * decay_s)
    tail = rng.standard_normal(len(t)) * 10 ** (-3 * t / decay_s)
    tail = shape_spectrum(tail, [(80, -24), (250, 0), (2500, 0), (12_000, -24)])
    tail[: round(0.008 * SAMPLE_RATE)] = 0.0
    tail /= np.sqrt(np.sum(tail**2))
    size = 1 << (len(sound) + len(tail)).bit_length()
    echo = np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(tail, size))[: len(sound)]
    return sound + wet * echo


def fade_ends(sound: Samples, in_s: float, out_s: float) -> Samples:
    """Raised-cosine ramps at both ends."""
    rise, fall = clock(in_s), clock(out_s)
    shaped = sound.copy()
    shaped[: len(rise)] *= 0.5 - 0.5 * np.cos(np.pi * rise / in_s)
    shaped[len(sound) - len(fall) :] *= 0.5 + 0.5 * np.cos(np.pi * fall / out_s)
    return shaped


def pitch_hz(midi_note: float) -> float:
    """Equal temperament, 69 = A4 = 440 Hz."""
    return float(440.0 * 2 ** ((midi_note - 69) / 12))


# ---------------------------------------------------------------- instruments


def plucked_string(
    frequency_hz: float, duration_s: float, *, pluck_at: float, bright_hz: float, ring_s: float
) -> Samples:
    """A string as the sum of its partials.

    A string plucked at the fraction ``pluck_at`` of its length starts with partials of
    sin(k π pluck_at) / k; stiffness stretches them, and high ones die sooner.
    """
    t = clock(duration_s)
    string = np.zeros(len(t))
    for k in range(1, int(16_000 / frequency_hz) + 1):
        partial_hz = k * frequency_hz * np.sqrt(1 + 4e-5 * k * k)
        level = np.sin(k * np.pi * pluck_at) / k * np.exp(-partial_hz / bright_hz)
        if abs(level) < 1e-5 or partial_hz > 16_000:
            continue
        rate = 1 / ring_s + partial_hz / 900
        string += level * np.sin(2 * np.pi * partial_hz * t) * np.exp(-rate * t)
    return fade_ends(string, 0.002, min(0.06, duration_s / 2))


def electric_piano(frequency_hz: float, duration_s: float, velocity: float) -> Samples:
    """Frequency modulation: a mellow body and the short ping of the tine."""
    t = clock(duration_s)
    phase = 2 * np.pi * frequency_hz * t
    body = np.sin(phase + 1.3 * velocity * np.exp(-2.2 * t) * np.sin(phase))
    tine = np.sin(phase + 0.5 * velocity * np.exp(-14 * t) * np.sin(14 * phase))
    tremolo = 1 + 0.12 * np.sin(2 * np.pi * 4.6 * t)
    note = (0.75 * body + 0.25 * tine) * tremolo * np.exp(-1.3 * t)
    return velocity * fade_ends(note, 0.003, min(0.15, duration_s / 2))


def pad(frequencies_hz: Iterable[float], duration_s: float, rng: np.random.Generator) -> Samples:
    """Soft strings: three detuned voices a note, few partials, slow to come and go."""
    t = clock(duration_s)
    chord = np.zeros(len(t))
    for frequency_hz in frequencies_hz:
        for detune in (-0.0025, 0.0, 0.003):
            offset = rng.uniform(0, 2 * np.pi)
            for k in range(1, 9):
                wobble = 0.4 * np.sin(2 * np.pi * 0.31 * t + offset)
                phase = 2 * np.pi * k * frequency_hz * (1 + detune) * t + k * offset + wobble
                chord += np.sin(phase) / k**1.9
    return fade_ends(chord, 0.5, 0.6)


def kick() -> Samples:
    """A falling sine with a soft click."""
    t = clock(0.38)
    sweep_hz = 47 + 95 * np.exp(-t / 0.028)
    body = np.sin(2 * np.pi * np.cumsum(sweep_hz) / SAMPLE_RATE) * np.exp(-t / 0.11)
    click = np.sin(2 * np.pi * 1900 * t) * np.exp(-t / 0.0025)
    return fade_ends(body + 0.18 * click, 0.0008, 0.05)


def snare(rng: np.random.Generator) -> Samples:
    """Two modes of the skin and the rattle of the wires."""
    t = clock(0.32)
    skin = np.sin(2 * np.pi * 186 * t) + 0.6 * np.sin(2 * np.pi * 331 * t)
    wires = shape_spectrum(
        rng.standard_normal(len(t)), [(200, -30), (1200, -4), (4500, 0), (9000, -6), (18_000, -24)]
    )
    drum = 0.5 * skin * np.exp(-t / 0.055) + 0.75 * wires * np.exp(-t / 0.075)
    return fade_ends(drum, 0.0008, 0.08)


def hat(rng: np.random.Generator, decay_s: float) -> Samples:
    """Noise above 6 kHz with a little metal in it."""
    t = clock(min(0.5, 7 * decay_s))
    noise = rng.standard_normal(len(t))
    metal = sum(np.sign(np.sin(2 * np.pi * f * t)) for f in (4110.0, 5470.0, 6203.0, 7919.0))
    hiss = shape_spectrum(
        noise + 0.4 * metal, [(2500, -60), (6500, -6), (9500, 0), (14_000, -6), (20_000, -30)]
    )
    return fade_ends(hiss * np.exp(-t / decay_s), 0.0005, 0.01)


def shaker(rng: np.random.Generator) -> Samples:
    """A soft swish of beads."""
    t = clock(0.12)
    swish = shape_spectrum(
        rng.standard_normal(len(t)), [(2000, -40), (5000, 0), (8000, 0), (16_000, -30)]
    )
    return swish * np.sin(np.pi * t / 0.12) ** 2


# ---------------------------------------------------------------- the piece

# Four bars, one chord each: Dm9, G13, Cmaj9, Am9.
CHORDS = ((53, 57, 60, 64), (53, 57, 59, 64), (52, 55, 59, 62), (52, 55, 59, 60))
BASS_LINE = (  # beat, note, length in beats
    *((0.0, 38, 1.4), (1.5, 38, 0.4), (2.0, 45, 0.9), (3.0, 41, 0.9)),
    *((4.0, 43, 1.4), (5.5, 43, 0.4), (6.0, 38, 0.9), (7.0, 47, 0.9)),
    *((8.0, 36, 1.4), (9.5, 36, 0.4), (10.0, 43, 0.9), (11.0, 40, 0.9)),
    *((12.0, 45, 1.4), (13.5, 45, 0.4), (14.0, 40, 0.9), (15.0, 45, 0.9)),
)
GUITAR_LINE = (  # beat, note
    *((0.5, 69), (1.0, 72), (1.5, 76), (2.5, 74), (3.5, 72)),
    *((4.5, 71), (5.0, 74), (5.5, 76), (6.5, 74), (7.0, 71), (7.5, 69)),
    *((8.5, 67), (9.0, 71), (9.5, 74), (10.5, 76), (11.5, 79)),
    *((12.0, 76), (13.0, 72), (13.5, 71), (14.5, 69)),
)


def humanise(rng: np.random.Generator) -> float:
    """A few milliseconds early or late, as players are."""
    return float(rng.normal(0.0, 0.004))


def beat_time_s(beat: float, rng: np.random.Generator) -> float:
    """When a beat falls: eighths swing a little, and nobody plays like a clock."""
    swing = 0.07 if beat % 1 == 0.5 else 0.0
    return max(0.0, (beat + swing) * BEAT_S + humanise(rng))


def play_drums(rng: np.random.Generator) -> Samples:
    """A slow backbeat with swung hats, a shaker and one small fill."""
    track = silence()
    for bar in range(0, NUM_BEATS, 4):
        for beat, gain in ((0.0, 1.0), (1.5, 0.6), (2.0, 0.85)):
            place(track, kick(), beat_time_s(bar + beat, rng), gain)
        for beat, gain in ((1.0, 0.55), (3.0, 0.6), (3.75, 0.12)):
            place(track, snare(rng), beat_time_s(bar + beat, rng), gain)
        for eighth in range(8):
            decay_s = 0.11 if eighth == 7 else 0.032
            gain = (0.2 if eighth % 2 else 0.3) * rng.uniform(0.8, 1.1)
            place(track, hat(rng, decay_s), beat_time_s(bar + eighth / 2, rng), gain)
        for sixteenth in range(16):
            gain = 0.10 if sixteenth % 4 == 2 else 0.05
            place(track, shaker(rng), beat_time_s(bar + sixteenth / 4, rng), gain)
    for beat, gain in ((15.25, 0.25), (15.5, 0.35)):
        place(track, snare(rng), beat_time_s(beat, rng), gain)
    return with_room(track, rng, decay_s=0.35, wet=0.18)


def play_bass(rng: np.random.Generator) -> Samples:
    """A round, finger-picked electric bass."""
    track = silence()
    for beat, note, beats in BASS_LINE:
        tone = plucked_string(
            pitch_hz(note), beats * BEAT_S, pluck_at=0.23, bright_hz=700, ring_s=1.1
        )
        place(track, tone, beat_time_s(beat, rng), rng.uniform(0.85, 1.0))
    return track


def play_other(rng: np.random.Generator) -> Samples:
    """Electric piano, guitar and a pad."""
    track = silence()
    for bar, chord in enumerate(CHORDS):
        frequencies_hz = [pitch_hz(note) for note in chord]
        place(track, pad(frequencies_hz, 4 * BEAT_S, rng), bar * 4 * BEAT_S, 0.035)
        for beat, beats, velocity in ((0.0, 1.4, 0.9), (1.5, 1.0, 0.6), (3.0, 0.9, 0.7)):
            start_s = beat_time_s(4 * bar + beat, rng)
            for spread, frequency_hz in enumerate(frequencies_hz):
                note = electric_piano(frequency_hz, beats * BEAT_S, velocity)
                place(track, note, start_s + 0.006 * spread, 0.16)
    for beat, note_number in GUITAR_LINE:
        tone = plucked_string(pitch_hz(note_number), 1.6, pluck_at=0.13, bright_hz=3800, ring_s=0.8)
        place(track, tone, beat_time_s(beat, rng), 0.55 * rng.uniform(0.8, 1.0))
    return with_room(track, rng, decay_s=0.9, wet=0.25)


# ---------------------------------------------------------------- the noises


def rain(rng: np.random.Generator) -> Samples:
    """A bed of noise and drops that ring on the window sill."""
    bed = shape_spectrum(
        rng.standard_normal(len(silence())),
        [(60, -30), (300, -14), (1200, -6), (3000, 0), (6000, -5), (12_000, -14), (20_000, -36)],
    )
    t = clock(DURATION_S)
    gusts = 1 + 0.35 * np.sin(2 * np.pi * 0.17 * t + 1.0) + 0.15 * np.sin(2 * np.pi * 0.43 * t)
    track = 0.05 * bed * gusts
    for start_s in rng.uniform(0, DURATION_S, 1500):
        drop = clock(0.02)
        ring_hz = rng.uniform(1200, 7000)
        decay = np.exp(-drop / rng.uniform(0.0008, 0.004)) * (1 - np.exp(-drop / 0.0002))
        place(track, np.sin(2 * np.pi * ring_hz * drop) * decay, start_s, rng.lognormal(-2.6, 0.8))
    return track


def knock(rng: np.random.Generator) -> Samples:
    """Knuckles on a wooden door: a few modes of the panel and the tap itself."""
    t = clock(0.35)
    panel = np.zeros(len(t))
    for mode_hz, level, decay_s in (
        (94, 0.9, 0.07),
        (163, 1.0, 0.055),
        (247, 0.7, 0.04),
        (391, 0.5, 0.025),
        (780, 0.3, 0.012),
    ):
        detuned_hz = mode_hz * rng.uniform(0.99, 1.01)
        panel += level * np.sin(2 * np.pi * detuned_hz * t) * np.exp(-t / decay_s)
    tap = shape_spectrum(
        rng.standard_normal(len(t)), [(300, -20), (1500, 0), (3500, 0), (10_000, -30)]
    )
    return fade_ends(panel + 0.5 * tap * np.exp(-t / 0.006), 0.0005, 0.1)


def thunder(rng: np.random.Generator) -> Samples:
    """Distant: low noise in a few rolling swells."""
    t = clock(4.2)
    rumble = shape_spectrum(
        rng.standard_normal(len(t)), [(20, -20), (45, 0), (140, -6), (450, -30), (2000, -70)]
    )
    swell = np.zeros(len(t))
    for start_s, level, decay_s in ((0.1, 1.0, 0.5), (0.8, 0.7, 0.9), (1.7, 0.5, 0.8)):
        late = np.maximum(t - start_s, 0)
        swell += level * (1 - np.exp(-late / 0.08)) * np.exp(-late / decay_s)
    return fade_ends(rumble * swell, 0.05, 0.8)


def passing_car(rng: np.random.Generator) -> Samples:
    """Tyres on a wet road, and the pitch of the engine falling as it goes by."""
    t = clock(4.5)
    position = (t - 2.2) / 0.75
    near = 1 / (1 + position**2)
    tyres = shape_spectrum(
        rng.standard_normal(len(t)), [(80, -20), (500, -3), (1100, 0), (3000, -10), (9000, -40)]
    )
    engine_hz = 88 * (1 - 0.05 * np.tanh(position))
    phase = 2 * np.pi * np.cumsum(engine_hz) / SAMPLE_RATE
    engine = sum(np.sin(k * phase + k * k) / k for k in range(1, 9))
    return fade_ends(tyres * near + 0.25 * engine * near, 0.3, 0.5)


def blackbird(rng: np.random.Generator) -> Samples:
    """A short phrase of whistles that slide up and down."""
    phrase = silence(1.5)
    start_s = 0.05
    for _ in range(7):
        length_s = rng.uniform(0.07, 0.17)
        t = clock(length_s)
        low_hz, slide_hz = rng.uniform(2300, 3600), rng.uniform(-900, 1400)
        warble = 120 * np.sin(2 * np.pi * 28 * t)
        frequency_hz = low_hz + slide_hz * t / length_s + warble
        whistle = np.sin(2 * np.pi * np.cumsum(frequency_hz) / SAMPLE_RATE)
        place(phrase, whistle * np.sin(np.pi * t / length_s) ** 1.5, start_s)
        start_s += length_s + rng.uniform(0.02, 0.07)
    return phrase


def play_effects(rng: np.random.Generator) -> Samples:
    """Rain all along; knocks, a car, a bird and thunder in turn."""
    track = rain(rng)
    for start_s in (2.75, 3.02, 3.29, 5.05, 5.30, 5.55):
        place(track, knock(rng), start_s, 0.42 * rng.uniform(0.85, 1.0))
    place(track, passing_car(rng), 5.6, 0.28)
    place(track, thunder(rng), 7.9, 0.9)
    for start_s, gain in ((0.5, 0.10), (9.9, 0.13)):
        place(track, blackbird(rng), start_s, gain)
    return with_room(track, rng, decay_s=0.4, wet=0.12)


# ---------------------------------------------------------------- speech


def resample(sound: Samples, sample_rate: int) -> Samples:
    """To 48 kHz by padding the spectrum; meant for rates below."""
    num_out = round(len(sound) * SAMPLE_RATE / sample_rate)
    spectrum = np.fft.rfft(sound)
    return np.fft.irfft(spectrum, num_out) * (num_out / len(sound))


def speak(command: list[str], text: str) -> Samples:
    """Run a synthesiser that reads ``text`` from a file and writes a wav file.

    ``TEXT`` and ``WAV`` in ``command`` stand for the two paths.
    """
    if shutil.which(command[0]) is None:
        sys.exit(f"{command[0]}: not installed; apt-get install festival festvox-us-slt-hts flite")
    with tempfile.TemporaryDirectory() as folder:
        paths = {"TEXT": f"{folder}/line.txt", "WAV": f"{folder}/line.wav"}
        Path(paths["TEXT"]).write_text(text + "\n", encoding="utf-8")
        subprocess.run([paths.get(word, word) for word in command], check=True)
        sound, sample_rate = soundfile.read(paths["WAV"])
    loud = np.flatnonzero(np.abs(sound) > 0.01 * np.max(np.abs(sound)))
    margin = round(0.08 * sample_rate)
    sound = sound[max(0, loud[0] - margin) : loud[-1] + margin]
    return fade_ends(resample(sound, sample_rate), 0.03, 0.06)


def speak_woman(rng: np.random.Generator) -> Samples:
    """The HTS voice "slt" of festival, 32 kHz, in a small room."""
    command = ["text2wave", "-eval", "(voice_cmu_us_slt_arctic_hts)", "TEXT", "-o", "WAV"]
    return with_room(speak(command, WOMAN_SAYS), rng, decay_s=0.25, wet=0.12)


def speak_man(rng: np.random.Generator) -> Samples:
    """The voice "rms" of flite, 16 kHz, in the same room."""
    command = ["flite", "-voice", "rms", "-f", "TEXT", "-o", "WAV"]
    return with_room(speak(command, MAN_SAYS), rng, decay_s=0.25, wet=0.12)


# ---------------------------------------------------------------- files

SOUNDS = {
    "speech-woman": speak_woman,
    "speech-man": speak_man,
    "effects": play_effects,
    "drums": play_drums,
    "bass": play_bass,
    "other": play_other,
}


def write_flac(path: Path, sound: Samples) -> None:
    """Scale the peak to ``PEAK_DB``, round to ``NUM_BITS``, write 16-bit FLAC."""
    steps = 2 ** (NUM_BITS - 1)
    scaled = sound / np.max(np.abs(sound)) * 10 ** (PEAK_DB / 20) * steps
    rounded = np.round(scaled) * 2 ** (16 - NUM_BITS)
    soundfile.write(path, rounded.astype(np.int16), SAMPLE_RATE, subtype="PCM_16")


def make_sound(name: str, folder: Path) -> Path:
    """Make one of ``SOUNDS`` and write it into ``folder``, the same at every call."""
    rng = np.random.default_rng([SEED, list(SOUNDS).index(name)])
    sound = SOUNDS[name](rng)
    if not name.startswith("speech"):
        sound = fade_ends(sound, 0.02, 0.4)
    path = folder / f"{name}.flac"
    write_flac(path, sound)
    return path


def main() -> None:
    """Make every sound and write it into the folder named on the command line."""
    if len(sys.argv) != 2:
        sys.exit("usage: make_demo_scene.py FOLDER")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name in SOUNDS:
        path = make_sound(name, folder)
        print(f"{path}: {path.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
