"""The kinds of encoders, and `encoder_config`, which finds the options of a kind by its name."""

from pipeline.errors import ConfigError
from pipeline.nn.encoders.deep_speech2 import DeepSpeech2Config
from pipeline.nn.encoders.encoder import EncoderConfig
from pipeline.nn.encoders.recurrent import RecurrentConfig


def encoder_config(kind: str) -> type[EncoderConfig]:
    """The class of the options of a kind of encoder, which builds the encoder.

    Raises:
        ConfigError: there is no such kind.
    """
    match kind:
        case "recurrent":
            return RecurrentConfig
        case "deep_speech2":
            return DeepSpeech2Config
    raise ConfigError(f'there is no encoder of kind "{kind}"; docs/models.md lists the kinds')
