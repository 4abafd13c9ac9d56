"""The kinds of encoders that an architecture may name."""

from pipeline.errors import ConfigError
from pipeline.nn.encoders.encoder import EncoderConfig
from pipeline.nn.encoders.recurrent import RecurrentConfig


def encoder_config(kind: str) -> type[EncoderConfig]:
    """The options of a kind of encoder, which build it.

    Raises:
        ConfigError: there is no such kind.
    """
    match kind:
        case "recurrent":
            return RecurrentConfig
    raise ConfigError(f'there is no encoder of kind "{kind}"; docs/models.md lists the kinds')
