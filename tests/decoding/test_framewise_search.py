"""decode_framewise.py: its bigram, durations and priors, its outputs, models that do not fit."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.decoding.decode_options import FramewiseSearchOptions
from pipeline.decoding.framewise_search import FramewiseSearch, bigram
from pipeline.errors import ModelError
from pipeline.kernels.search.fusion import NO_FUSION, Automaton, Fusion
from pipeline.nn.encoders.recurrent import RecurrentConfig
from pipeline.nn.framewise import FramewiseConfig, FramewiseModel
from pipeline.tables import IntegersWriter, MatrixReader
from pipeline.text.ngram import read_arpa
from pipeline.text.tokens import Tokens


def model() -> FramewiseModel:
    encoder = RecurrentConfig(input_dim=3, layers=1, cells=4).build()
    made = FramewiseModel(encoder, FramewiseConfig(delay=0), num_tokens=4)
    made.label_counts.copy_(torch.tensor([90, 10, 0]))
    return made


def test_outputs_are_divided_by_the_priors() -> None:
    log_probs = torch.tensor([[0.6, 0.3, 0.1]] * 4).log()
    found = {}
    for scale in (0.0, 0.4, 1.0):
        options = FramewiseSearchOptions(min_frames=2, prior_scale=scale)
        (hyp,), spans = FramewiseSearch(model(), NO_FUSION, options)(log_probs)
        assert spans == [(0, 4)]
        found[scale] = hyp.tokens
    # 0.6/0.9, 0.3/0.1 and 0.1/0.01: what was never there counts as if it had been there once.
    assert found == {0.0: (1,), 0.4: (2,), 1.0: (3,)}


def test_the_bigram_decides_what_follows(tmp_path: Path) -> None:
    text = (
        "\\data\\\nngram 1=5\nngram 2=3\n\n\\1-grams:\n-1 <s> 0\n-1 </s>\n-1 a 0\n-1 b 0\n-1 c 0\n"
    )
    text += "\n\\2-grams:\n-0.5 <s> a\n-0.25 a b\n-0.125 b </s>\n\n\\end\\\n"
    arpa = tmp_path / "lm.arpa"
    arpa.write_text(text)
    (tmp_path / "tokens.txt").write_text("<blk> 0\na 1\nb 2\nc 3\n")
    tokens = Tokens.from_file(tmp_path / "tokens.txt")
    fusion = Fusion(Automaton(*read_arpa(arpa, tokens)), 2.0, 0.5)
    got = bigram(fusion, 4)
    natural = 2.0 * np.log(10)
    np.testing.assert_allclose(got.begins[:2], np.array([-0.5, -1.0]) * natural + 0.5)
    np.testing.assert_allclose(got.follows[0], np.array([-1, -0.25, -1]) * natural + 0.5)
    np.testing.assert_allclose(got.ends[:2], np.array([-1.0, -0.125]) * natural)


def test_more_than_a_bigram_is_refused() -> None:
    following = np.array([[0, 1, 0], [1, 2, 0], [2, 2, 0]], dtype=np.int32)
    trigram = Automaton(np.zeros((3, 3)), following, np.zeros(3), 0)
    with pytest.raises(ModelError, match="looks further back; make one with make_ngram_lm"):
        bigram(Fusion(trigram, 1.0), 3)


# ---- the program ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def learnt(make_toy: Callable, execute: Callable, tmp_path_factory: pytest.TempPathFactory):
    """A toy corpus and a frame-wise model of it."""
    path = tmp_path_factory.mktemp("framewise")
    toy = make_toy(path / "toy")
    for folder in (toy.train, toy.dev):
        with IntegersWriter(f"ark,scp:{folder}/ali.ark,{folder}/ali.scp") as writer:
            for utt_id, features in MatrixReader(f"scp:{folder}/feats.scp"):
                writer.write(utt_id, features.argmax(axis=1).astype(np.int32) + 1)
    options = ("--bptt=0", "--optimizer=adam", "--learning-rate=0.03", "--patience=0")
    arguments = toy.arguments(path / "model", *options, "--epochs=25", "--delay=0")
    done = execute("train_framewise.py", *arguments)
    assert done.status == 0, done.err
    return toy, path / "model"


def test_it_is_decoded(learnt, execute: Callable, tmp_path: Path) -> None:
    toy, directory = learnt
    hyp, nbest, ctm = (tmp_path / name for name in ("hyp", "nbest", "ctm"))
    lm = tmp_path / "lm.arpa"
    assert execute("make_ngram_lm.py", "--order=2", toy.train / "text", lm).status == 0
    outputs = (f"--write-nbest=ark,t:{nbest}", f"--write-ctm={ctm}", f"--lm={lm}")
    feats = f"scp:{toy.dev}/feats.scp"
    done = execute("decode_framewise.py", *outputs, directory, feats, f"ark,t:{hyp}")
    assert done.status == 0, done.err
    assert hyp.read_text() == (toy.dev / "text").read_text()
    assert [line.split()[0][-2:] for line in nbest.read_text().splitlines()] == ["-1"] * 4
    first = hyp.read_text().splitlines()[0].split()
    lines = [line.split() for line in ctm.read_text().splitlines()]
    mine = [line for line in lines if line[0] == first[0]]
    assert [line[4] for line in mine] == first[1:]
    features = dict(MatrixReader(feats))[first[0]]
    changes = np.flatnonzero(np.diff(features.argmax(axis=1))) + 1
    assert [round(float(line[2]) * 100) for line in mine] == [0, *changes.tolist()]


def test_other_programs_say_what_they_need(learnt, execute: Callable, tmp_path: Path) -> None:
    toy, directory = learnt
    feats = f"scp:{toy.dev}/feats.scp"
    done = execute("decode_ctc.py", directory, feats, f"ark,t:{tmp_path}/hyp")
    assert done.status == 1
    assert "a framewise model; a ctc model is needed here" in done.err
    done = execute("align_tokens.py", directory, feats, f"ark:{toy.dev}/text", "ark,t:-")
    assert done.status == 1
    assert "a framewise model; alignments need a CTC model or a transducer" in done.err
    lm = tmp_path / "lm.arpa"
    assert execute("make_ngram_lm.py", "--order=3", toy.train / "text", lm).status == 0
    done = execute("decode_framewise.py", f"--lm={lm}", directory, feats, "ark,t:-")
    assert done.status == 1
    assert "make one with make_ngram_lm.py --order=2" in done.err
