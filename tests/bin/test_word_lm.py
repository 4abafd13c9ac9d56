"""Decoding with a language model over words: options, scores, tuning, errors."""

import json
import math
from pathlib import Path

import pytest

from pipeline.data.data_dir import read_map, write_map
from pipeline.seals import unsealed
from pipeline.text.arpa import read_tables

KINDS = ("ctc", "transducer")


@pytest.fixture(scope="module")
def spelling(make_toy, execute, tmp_path_factory) -> Path:
    """Networks over characters that have learnt a toy corpus whose second phone is a blank."""
    path = tmp_path_factory.mktemp("spelling")
    toy = make_toy(path / "toy")
    for folder in (toy.train, toy.dev):
        text = {utt: " ".join(line.split()) for utt, line in read_map(folder / "text").items()}
        words = {utt: "".join(line.split()).replace("b", " ") for utt, line in text.items()}
        write_map(folder / "text", {utt: " ".join(line.split()) for utt, line in words.items()})
    tokens = path / "toy" / "tokens.txt"
    made = execute("train_tokenizer.py", "--kind=chars", f"ark:{toy.train}/text", tokens)
    assert made.status == 0, made.err
    for kind in KINDS:
        options = ("--optimizer=adam", "--learning-rate=0.03", "--epochs=12", "--patience=0")
        done = execute(f"train_{kind}.py", *toy.arguments(path / kind, *options))
        assert done.status == 0, done.err
    lm = path / "words.arpa"
    made = execute("make_ngram_lm.py", "--order=2", "--unk", toy.train / "text", lm)
    assert made.status == 0, made.err
    return path


@pytest.fixture
def decode(spelling, execute, tmp_path):
    def run(*options: object, kind: str = "ctc", model: Path | None = None):
        table = f"scp:{spelling}/toy/dev/feats.scp"
        where = ("--threads=1", "--device=cpu", *options, model or spelling / kind)
        return execute(f"decode_{kind}.py", *where, table, f"ark,t:{tmp_path}/hyp")

    return run


def share(words: list[str], path: Path) -> float:
    """log10 P of a sentence by the bigram in a file."""
    first, second = read_tables(path)
    total, before = 0.0, "<s>"
    for word in [*(w if (w,) in first else "<unk>" for w in words), "</s>"]:
        if (before, word) in second:
            total += second[before, word][0]
        else:
            total += first[before,][1] + first[word,][0]
        before = word
    return total


@pytest.mark.parametrize("kind", KINDS)
def test_the_words_of_every_hypothesis_are_scored(spelling, decode, tmp_path, kind) -> None:
    lm = spelling / "words.arpa"
    options = (f"--word-lm={lm}", "--lm-weight=0.6", "--word-bonus=0.75", "--insertion-bonus=0.25")
    nbest = (f"--write-nbest=ark,t:{tmp_path}/nbest", "--nbest=6", "--beam=20")
    assert decode(*options, *nbest, kind=kind).status == 0
    lines = (tmp_path / "nbest").read_text().splitlines()
    assert len(lines) > 8
    exact = 0
    for line in lines:
        _, score, log_prob, _, *words = line.split()
        added = 0.6 * share(words, lm) * math.log(10.0) + 0.75 * len(words)
        letters = 0.25 * len(" ".join(words))
        left = float(score) - float(log_prob) - added - letters
        # Blanks at the ends and beside others are tokens that the words do not show.
        assert abs(left / 0.25 - round(left / 0.25)) < 0.01
        exact += abs(left) < 1e-3
    assert exact > len(lines) / 3


def test_the_training_tells_both_error_rates(spelling) -> None:
    for kind in KINDS:
        for line in (spelling / kind / "metrics.jsonl").read_text().splitlines():
            row = unsealed(line)
            assert row["metric"] == "WER"
            assert set(row["dev_other_error_rates"]) == {"CER"}
            assert json.loads(json.dumps(row["dev_other_error_rates"]))["CER"] >= 0.0


def test_only_known_words(spelling, decode, tmp_path) -> None:
    lm = tmp_path / "few.arpa"
    lm.write_text(
        "\\data\\\nngram 1=4\n\n\\1-grams:\n-9 <s>\n-0.3 </s>\n-0.5 <unk>\n-0.5 ca\n\n\\end\\\n"
    )
    options = (f"--word-lm={lm}", "--beam=50")
    assert decode(*options, "--only-known-words").status == 0
    assert {w for line in read_map(tmp_path / "hyp").values() for w in line.split()} <= {"ca"}
    assert decode(*options, "--lm-weight=0.001").status == 0
    assert {w for line in read_map(tmp_path / "hyp").values() for w in line.split()} - {"ca"}
    lm.write_text(lm.read_text().replace("=4", "=3").replace("-0.5 <unk>\n", ""))
    done = decode(*options)
    assert "has no <unk>: hypotheses hold only its words" in done.err
    assert {w for line in read_map(tmp_path / "hyp").values() for w in line.split()} <= {"ca"}


def test_pruned_tokens(decode, tmp_path) -> None:
    """All of the probability is no pruning; the most probable token alone is the best path."""
    found = []
    for options in (
        ("--beam=20",),
        ("--beam=20", "--token-mass=1", "--max-tokens=100"),
        ("--beam=20", "--token-mass=0.000001"),
        ("--beam=1",),
    ):
        assert decode(*options).status == 0
        found.append((tmp_path / "hyp").read_bytes())
    assert found[0] == found[1]
    assert decode("--token-mass=0").status == 2
    assert decode("--max-tokens=-1").status == 2


PHONES = "\\data\\\nngram 1=4\n\n\\1-grams:\n-9 <s>\n-1 </s>\n-1 aa1\n-1 sh\n\n\\end\\\n"


@pytest.mark.parametrize(
    ("options", "arpa", "status", "words"),
    [
        (["--word-lm=LM"], PHONES, 1, "2 of its 2 words cannot be spelt by"),
        (["--word-lm=LM"], PHONES, 1, "is it a model of other units, or of words in other letters"),
        (["--lm=LM"], PHONES, 1, "words that are not tokens of"),
        (["--word-lm=LM"], "no\n", 1, "there is no line \\data\\"),
        (["--word-lm=LM", "--lm=LM"], PHONES, 2, "give one language model, over tokens or over"),
        (["--word-bonus=1"], PHONES, 2, "--word-bonus and --only-known-words apply to --word-lm"),
        (["--only-known-words"], PHONES, 2, "apply to --word-lm; give it, too"),
        (["--word-lm=LM", "--beam=1"], PHONES, 2, "need a beam search"),
    ],
)
def test_errors(decode, tmp_path, options, arpa: str, status: int, words: str) -> None:
    (tmp_path / "lm").write_text(arpa)
    done = decode(*(option.replace("LM", f"{tmp_path}/lm") for option in options))
    assert done.status == status, done.err
    assert words in done.err
    assert "Traceback" not in done.err


def test_a_model_of_phones_has_no_words(trained, decode, spelling) -> None:
    done = decode(f"--word-lm={spelling}/words.arpa", model=trained / "ctc")
    assert done.status == 2
    assert "these tokens spell no words between blanks; give a model over the tokens" in done.err
