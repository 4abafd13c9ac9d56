"""Options of reading recordings in chunks, for ``recognize.py --stream``."""

from dataclasses import dataclass

from pipeline.errors import UsageError
from pipeline.options import Options, option


@dataclass(frozen=True, kw_only=True)
class StreamOptions(Options):
    """Options of reading recordings in chunks."""

    stream: bool = option(
        False, "read recordings in chunks and print partial results on standard error"
    )
    chunk_ms: float = option(100.0, "length of a chunk for --stream, in ms", above=0, high=60_000)
    raw_rate: int = option(
        0,
        "sample rate in Hz of raw 16-bit samples, for --stream; 0: recordings have a header",
        low=0,
        high=10_000_000,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.raw_rate and not self.stream:
            raise UsageError("--raw-rate is for --stream; give both")
