"""Audio files: decoded in blocks, encoded whole or not at all, named safely.

This is the only place that knows how samples are stored; nothing here resamples,
mixes channels or changes levels.
"""

from unbraid.audio.decode import probe, read, read_blocks
from unbraid.audio.encode import AtomicWriter, AudioFormat, FormatChoice, write
from unbraid.audio.info import AudioInfo
from unbraid.audio.names import DEFAULT_TEMPLATE, check_template, safe_name, stem_path

__all__ = [
    "DEFAULT_TEMPLATE",
    "AtomicWriter",
    "AudioFormat",
    "AudioInfo",
    "FormatChoice",
    "check_template",
    "probe",
    "read",
    "read_blocks",
    "safe_name",
    "stem_path",
    "write",
]
