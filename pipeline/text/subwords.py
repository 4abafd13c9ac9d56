"""Subword tokens, learnt by sentencepiece."""

import io
from collections.abc import Iterable, Sequence

from pipeline.errors import DataError
from pipeline.text.tokens import BLANK, UNK, Tokens


def train_sentencepiece(
    text: Iterable[Sequence[str]],
    *,
    kind: str,
    vocab_size: int,
    where: str = "text",
    unk: bool = False,
) -> Tokens:
    """Learn subword tokens from a text of words; the same text gives the same bytes.

    Args:
        text: the words of each sentence.
        kind: ``bpe`` or ``unigram``.
        vocab_size: V, the number of tokens with the blank.
        where: the name of the text for messages.
        unk: whether ``<unk>`` stands for characters that the text does not have; otherwise they
            cannot be encoded.

    Raises:
        DataError: the text is empty, or too short for this number of tokens.
    """
    import sentencepiece

    model = io.BytesIO()
    sentences = [" ".join(words) for words in text if words]
    if not sentences:
        raise DataError(f"{where}: there are no words to learn tokens from; give another text")
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=model,
            model_type=kind,
            vocab_size=vocab_size,
            character_coverage=1.0,
            normalization_rule_name="identity",  # decoding reproduces the text exactly
            # Without unk, 0 is the number of the blank, which is never emitted.
            **({"pad_id": 0, "pad_piece": BLANK, "unk_id": 1} if unk else {"pad_id": -1}),
            **({"unk_surface": UNK} if unk else {"unk_id": 0}),
            bos_id=-1,
            eos_id=-1,
            num_threads=1,
            max_sentence_length=1 << 20,  # in bytes; sentencepiece drops longer sentences
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = str(error).rpartition("] ")[2] or str(error)
        raise DataError(f"{where}: cannot learn {vocab_size} {kind} tokens: {reason}") from error
    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(model.getvalue())
    pieces = [processor.id_to_piece(i) for i in range(1, processor.get_piece_size())]
    return Tokens([BLANK, *pieces], sentencepiece_model=model.getvalue(), where=where)
