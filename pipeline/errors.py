"""Every error that a user can cause, and the exit status that a command gives it.

::

    PipelineError                 1   any error that the user can correct
    ├── DataError                 1   files on disk are wrong
    │   ├── TableError            1   an archive, an scp file, a text table or a pipe
    │   ├── AudioError            1   a recording
    │   ├── DataDirError          1   a Kaldi data directory
    │   ├── PhoneError            1   a phone or token that is in no map or list
    │   ├── FeatureError          1   features with NaN, another dimension or no frames
    │   ├── ModelError            1   a model directory, or data that do not fit the model
    │   └── OutputError           1   a file that cannot be written
    └── UsageError                2   the command line or a configuration is wrong
        ├── SpecifierError        2   an rspecifier or a wspecifier
        └── ConfigError           2   the value of an option, an options file, a TOML file

The number is the exit status. Every message names the place, the problem and the remedy, e.g.
``data/train/text:17: unknown phone "axr2"; add it to conf/phones.60-48-39.map``.
"""


class PipelineError(Exception):
    """Base of all errors that the user can correct. A command exits with ``exit_code``."""

    exit_code = 1


class DataError(PipelineError):
    """Files on disk are wrong."""


class TableError(DataError):
    """An archive, scp file, text table or pipe is wrong. Names the file, the key and the offset."""


class AudioError(DataError):
    """A recording cannot be read, or is not of the kind that the command needs. Names the file."""


class DataDirError(DataError):
    """A Kaldi data directory is inconsistent. Names the file and the line."""


class PhoneError(DataError):
    """A phone or token is unknown. Names the file and the line if there are any."""


class FeatureError(DataError):
    """Features hold NaN, have another dimension than expected, or have no frames."""


class ModelError(DataError):
    """A model directory is incomplete, or the data do not fit the model."""


class OutputError(DataError):
    """A file cannot be written, such as on a full disk or in a missing folder. Names the file."""


class UsageError(PipelineError):
    """The command line or a configuration is wrong."""

    exit_code = 2


class SpecifierError(UsageError):
    """An rspecifier, a wspecifier or an extended file name is malformed."""


class ConfigError(UsageError):
    """An option, options file or architecture is wrong. Names the option, file, line or key."""
