"""Every error that a user can cause, and the exit status that a command gives it.

::

    PipelineError                 1   whatever a person can mend
    ├── DataError                 1   what is on disk is wrong
    │   ├── TableError            1   an ark, an scp, a text table, a pipe
    │   ├── AudioError            1   a recording
    │   ├── DataDirError          1   a Kaldi data directory
    │   ├── PhoneError            1   a phone or token that no map or list knows
    │   ├── FeatureError          1   features: NaN, another dimension, no frames
    │   ├── ModelError            1   a model directory, or data that do not fit the model
    │   └── OutputError           1   a file that cannot be written
    └── UsageError                2   what was typed is wrong
        ├── SpecifierError        2   an rspecifier or a wspecifier
        └── ConfigError           2   an option's value, an options file, an architecture TOML

The message of each says where, what, and what to do about it, e.g.
``data/train/text:17: unknown phone "axr2"; add it to conf/phones.60-48-39.map``.
"""


class PipelineError(Exception):
    """Base of all errors that a person can mend. ``exit_code`` is what a command exits with."""

    exit_code = 1


class DataError(PipelineError):
    """What is on disk is wrong."""


class TableError(DataError):
    """An archive, a script file, a text table or a pipe is wrong. Names file, key and offset."""


class AudioError(DataError):
    """A recording cannot be read, or is not what the command needs. Names the file."""


class DataDirError(DataError):
    """A Kaldi data directory is inconsistent. Names file and line."""


class PhoneError(DataError):
    """A phone or token is unknown. Names file and line where there are any."""


class FeatureError(DataError):
    """Features hold NaN, have another dimension than expected, or have no frames."""


class ModelError(DataError):
    """A model directory is not whole, or the data do not fit the model."""


class OutputError(DataError):
    """A file cannot be written: the disk is full, its folder is missing. Names the file."""


class UsageError(PipelineError):
    """What was typed is wrong."""

    exit_code = 2


class SpecifierError(UsageError):
    """An rspecifier, a wspecifier or an extended file name cannot be understood."""


class ConfigError(UsageError):
    """An option, an options file or an architecture is wrong. Names option, file, line or key."""
