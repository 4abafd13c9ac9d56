"""The symbols of a tokens file: what a file may hold, and what kind of tokens they are."""

from collections.abc import Sequence

from pipeline.errors import DataError
from pipeline.plain_text import decode_text, shown

BLANK = "<blk>"
SPACE = "<space>"
UNK = "<unk>"  # stands for every unknown symbol

_REMEDY = "correct it, or make the tokens again with train_tokenizer.py"


def parse(content: bytes, where: str) -> list[str]:
    """The symbols of a tokens file, after a check of the ids."""
    symbols: list[str] = []
    text = decode_text(content, where, DataError)
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        fields = [field.decode() for field in line.encode().split()]  # at ASCII blanks only
        wrong = f"{where}:{number}: expected `%s`, not {shown(line)!r}; {_REMEDY}"
        if len(fields) != 2:
            raise DataError(wrong % "symbol id")
        symbol, index = fields
        if number == 1 and symbol != BLANK:
            raise DataError(wrong.replace("`,", "` in the first line,") % f"{BLANK} 0")
        if index != str(number - 1):
            raise DataError(
                f'{where}:{number}: the id of "{symbol}" must be {number - 1}, not {index}; ids '
                f"are whole numbers from 0 without a gap; {_REMEDY}"
            )
        symbols.append(symbol)
    return symbols


def check_symbols(symbols: Sequence[str], where: str) -> None:
    """Raise DataError unless the blank comes first and the symbols are different words."""
    if not symbols or symbols[0] != BLANK:
        raise DataError(f"{where}: the first token must be {BLANK}, because id 0 is the blank")
    if len(symbols) == 1:
        raise DataError(f"{where}: there are no tokens except the blank; is the text empty?")
    seen: set[str] = set()
    for number, symbol in enumerate(symbols, start=1):
        if symbol in seen:
            raise DataError(f'{where}:{number}: the token "{symbol}" occurs twice; remove one')
        if symbol.encode().split() != [symbol.encode()]:  # ASCII blanks, as in Kaldi's tables
            raise DataError(
                f"{where}:{number}: the token {symbol!r} is empty or holds a space; rename it"
            )
        seen.add(symbol)


def kind_of(symbols: Sequence[str], where: str) -> str:
    """The kind of tokens without a sentencepiece model."""
    if SPACE not in symbols:
        return "phones"
    plain = [s for s in symbols if len(s) < 3 or not (s.startswith("<") and s.endswith(">"))]
    longest = max(plain, key=len, default="")
    if len(longest) > 2:
        raise DataError(
            f'{where}: the token "{shown(longest)}" is neither a character nor a pair of them, but '
            f"{SPACE} says that words are spelt by these; {_REMEDY}"
        )
    return "bigrams" if len(longest) == 2 else "chars"
