"""Options of the decode commands, one dataclass a command: each field is an option that acts there.

[G12] is A. Graves, "Sequence Transduction with Recurrent Neural Networks", 2012.
"""

from dataclasses import dataclass

from pipeline.options import DEVICES, Options, option


@dataclass(frozen=True, kw_only=True)
class SearchOptions(Options):
    """Options of every search."""

    beam: int = option(
        10, "beam: number of hypotheses kept after each frame; 1: greedy search", low=1
    )
    length_normalise: bool = option(False, "sort hypotheses by score/|y|, not by score")
    lm: str = option(
        "", "language model: an ARPA file or a directory of train_predictor.py; empty: none"
    )
    word_lm: str = option(
        "",
        "language model over the words that the tokens spell: an ARPA file; empty: none. "
        "A transducer's hypotheses are ranked by it after the search",
    )
    lm_weight: float = option(
        0.3, "weight of the log-probability of --lm or --word-lm in the score", low=0
    )
    insertion_bonus: float = option(0.0, "bonus for each token of a hypothesis, in nats")
    word_bonus: float = option(0.0, "bonus for each word of a hypothesis, in nats, with --word-lm")
    only_known_words: bool = option(
        False, "let hypotheses hold only words of --word-lm; otherwise others count as its <unk>"
    )
    allow_unk: bool = option(
        False, "let hypotheses hold <unk>, the token of unknown symbols, if the model has it"
    )


@dataclass(frozen=True, kw_only=True)
class CtcSearchOptions(SearchOptions):
    """Options of a search with a CTC network."""

    token_mass: float = option(
        1.0,
        "the tokens of a frame beyond its most probable ones with this probability are left out; "
        "1: none (CTC)",
        above=0,
        high=1,
    )
    max_tokens: int = option(
        0, "number of tokens of a frame that are kept at most; 0: all (CTC)", low=0
    )
    prefix_search: bool = option(False, "use prefix search [G12] in place of beam search (CTC)")
    prefix_threshold: float = option(
        0.995,
        "probability of the blank above which --prefix-search cuts an utterance",
        above=0,
        high=1,
    )


@dataclass(frozen=True, kw_only=True)
class TransducerSearchOptions(SearchOptions):
    """Options of a search with a transducer."""

    max_tokens_per_frame: int = option(
        10, "number of tokens that a frame may emit (transducer)", low=1
    )


@dataclass(frozen=True, kw_only=True)
class AnySearchOptions(CtcSearchOptions, TransducerSearchOptions):
    """Options of a search with a model of either kind."""


@dataclass(frozen=True, kw_only=True)
class DecodeOptions(SearchOptions):
    """Options of `pipeline.decoding.decode_table.decode_table`."""

    nbest: int = option(10, "number of hypotheses per utterance in --write-nbest", low=1)
    write_nbest: str = option(
        "", "wspecifier for UTT-1 score log-probability score/|y| tokens …; empty: none"
    )
    write_ctm: str = option(
        "",
        "file for UTT 1 start duration phone-or-word confidence, times in s; empty: none",
    )
    write_token_ctm: str = option(
        "", "file for the same of each token, also characters and subwords; empty: none"
    )
    write_speed: str = option(
        "", "JSON file for the number of decoded frames and the time in s; empty: none"
    )
    from_audio: bool = option(False, "read recordings (a wav.scp) and compute their features")
    channel: int = option(-1, "channel to read, from 0; -1: recordings must have only one", low=-1)
    resample: bool = option(False, "resample recordings of another rate than the model's")
    resume: bool = option(False, "continue an interrupted run")
    cmvn: str = option(
        "", "rspecifier of CMVN statistics by speaker; empty: those of the model or the utterance"
    )
    utt2spk: str = option(
        "", "rspecifier of each utterance's speaker; empty: --cmvn is by utterance"
    )
    allow_pipes: bool = option(False, "run the commands of scp entries")
    allow_empty: bool = option(
        False, "succeed if no utterance can be decoded (for parts of a table, with ,p)"
    )
    device: str = option("auto", "device to compute on: cpu, cuda or auto", choices=DEVICES)
    threads: int = option(1, "number of utterances to decode in parallel", low=1)


@dataclass(frozen=True, kw_only=True)
class CtcDecodeOptions(DecodeOptions, CtcSearchOptions):
    """Options of ``decode_ctc.py``."""


@dataclass(frozen=True, kw_only=True)
class TransducerDecodeOptions(DecodeOptions, TransducerSearchOptions):
    """Options of ``decode_transducer.py``."""


@dataclass(frozen=True, kw_only=True)
class AlignOptions(Options):
    """Options of ``align_tokens.py``."""

    cmvn: str = option(
        "", "rspecifier of CMVN statistics by speaker; empty: those of the model or the utterance"
    )
    utt2spk: str = option(
        "", "rspecifier of each utterance's speaker; empty: --cmvn is by utterance"
    )
    allow_pipes: bool = option(False, "run the commands of scp entries")
    device: str = option("auto", "device to compute on: cpu, cuda or auto", choices=DEVICES)
