"""Audio files: decoded in blocks, encoded whole or not at all, named safely.

This is the only place that knows how samples are stored; nothing here resamples,
mixes channels or changes levels.
"""

from unbraid.audio.decode import MEDIA_EXTENSIONS, probe, read, read_blocks
from unbraid.audio.encode import AtomicWriter, write
from unbraid.audio.formats import AudioFormat, FormatChoice
from unbraid.audio.info import AudioInfo
from unbraid.audio.names import DEFAULT_TEMPLATE, check_template, safe_name, stem_path
from unbraid.audio.remux import put_under_video, remux_extension, remux_format

__all__ = [
    "DEFAULT_TEMPLATE",
    "MEDIA_EXTENSIONS",
    "AtomicWriter",
    "AudioFormat",
    "AudioInfo",
    "FormatChoice",
    "check_template",
    "probe",
    "put_under_video",
    "read",
    "read_blocks",
    "remux_extension",
    "remux_format",
    "safe_name",
    "stem_path",
    "write",
]
