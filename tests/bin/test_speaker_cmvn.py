"""Models that normalise features by statistics of each speaker: training, decoding, recognition."""

import struct
from collections.abc import Callable

import numpy as np
import pytest

from pipeline.data.data_dir import DataDir, read_map
from pipeline.models.model_dir import ModelDir
from pipeline.tables import MatrixReader, MatrixWriter, read_matrix

LEARN = ("--optimizer=adam", "--learning-rate=0.03", "--schedule=linear", "--stop-on=error-rate")


@pytest.fixture
def by_speaker(toy, execute) -> object:
    """The toy corpus, each speaker with another offset, and statistics of each."""
    for folder, shift in ((toy.train, 1.0), (toy.dev, -40.0)):
        feats = {u: read_matrix(rx) for u, rx in read_map(folder / "feats.scp").items()}
        speakers = read_map(folder / "utt2spk")
        offsets = {s: shift * (n + 1) for n, s in enumerate(sorted(set(speakers.values())))}
        toy.write_feats(
            folder, {u: (m + offsets[speakers[u]]).astype(np.float32) for u, m in feats.items()}
        )
        (folder / "spk2utt").write_text(
            "".join(f"{s} {' '.join(u)}\n" for s, u in DataDir(folder).spk2utt.items())
        )
        done = execute(
            "compute_cmvn_stats.py",
            f"--spk2utt=ark:{folder}/spk2utt",
            f"scp:{folder}/feats.scp",
            f"ark,scp:{folder}/cmvn_spk.ark,{folder}/cmvn.scp",
        )
        assert done.status == 0, done.err
    return toy


@pytest.fixture
def train(by_speaker, execute, tmp_path) -> Callable[..., object]:
    def run(*options: str):
        arguments = by_speaker.arguments(tmp_path / "model", "--epochs=60", *LEARN, *options)
        return execute("train_ctc.py", *arguments)

    return run


def test_a_dev_set_of_other_speakers_is_recognised(by_speaker, train, execute, tmp_path):
    """Offsets of speakers, which global statistics cannot remove, do not matter."""
    done = train("--cmvn=speaker", "--patience=0")
    assert done.status == 0, done.err
    directory = ModelDir.open(tmp_path / "model")
    assert directory.by_speaker
    assert directory.cmvn() is None
    assert not (tmp_path / "model" / "cmvn.ark").exists()
    dev = by_speaker.dev
    options = (f"--cmvn=scp:{dev}/cmvn.scp", f"--utt2spk=ark:{dev}/utt2spk", "--beam=1")
    arguments = (tmp_path / "model", f"scp:{dev}/feats.scp", f"ark,t:{tmp_path}/hyp")
    done = execute("decode_ctc.py", *options, *arguments)
    assert done.status == 0, done.err
    assert read_map(tmp_path / "hyp") == read_map(dev / "text")


def test_what_lacks_statistics_is_named(by_speaker, train, execute, tmp_path):
    assert train("--cmvn=speaker", "--patience=1").status == 0
    dev = by_speaker.dev
    arguments = (tmp_path / "model", f"scp:{dev}/feats.scp", f"ark,t:{tmp_path}/hyp")
    done = execute("decode_ctc.py", *arguments)
    assert (done.status, "normalises features by speaker: give --cmvn=scp:" in done.err) == (
        2,
        True,
    )
    one = f"{tmp_path}/one.ark"
    speaker, matrix = next(iter(MatrixReader(f"scp:{dev}/cmvn.scp")))
    with MatrixWriter(f"ark:{one}") as writer:
        writer.write(speaker, matrix)
    done = execute("decode_ctc.py", f"--cmvn=ark:{one}", f"--utt2spk=ark:{dev}/utt2spk", *arguments)
    assert done.status == 1
    assert "no statistics of its speaker in" in done.err
    assert "Done 2 utterances, 2 failed" in done.err


def test_a_data_directory_without_statistics_is_told_how_to_make_them(by_speaker, train):
    scp = by_speaker.dev / "cmvn.scp"
    text = scp.read_text()
    scp.unlink()
    done = train("--cmvn=speaker")
    assert done.status == 1
    assert f"{scp}: no such file; make it with compute_cmvn_stats.py --spk2utt" in done.err
    scp.write_text(text.splitlines(keepends=True)[0])
    done = train("--cmvn=speaker")
    assert done.status == 1
    assert "no statistics of the speaker of" in done.err


def test_statistics_that_changed_are_noticed(by_speaker, train):
    """An scp file with changed statistics, and statistics that are not numbers."""
    assert train("--cmvn=speaker", "--patience=1").status == 0
    ark = by_speaker.train / "cmvn_spk.ark"
    whole = ark.read_bytes()
    ark.write_bytes(whole[:-8] + struct.pack("<d", 3.0))
    done = train("--cmvn=speaker", "--patience=1")
    assert (done.status, "train_data_sha256" in done.err) == (1, True)
    ark.write_bytes(whole[:-8] + struct.pack("<d", float("nan")))
    done = train("--cmvn=speaker", "--patience=1")
    assert (done.status, f"{by_speaker.train}/cmvn.scp: s" in done.err) == (1, True)


def test_a_recording_alone_is_normalised_by_its_own(train, tmp_path):
    from pipeline.decoding.decode_options import SearchOptions
    from pipeline.decoding.recogniser import Recogniser
    from pipeline.models.device import choose_device

    assert train("--cmvn=speaker", "--patience=1").status == 0
    recogniser = Recogniser(
        ModelDir.open(tmp_path / "model"), choose_device("cpu"), SearchOptions(beam=1)
    )
    features = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    best = recogniser.recognise("u", features).hyps[0]
    moved = recogniser.recognise("u", features * 3.0 + 7.0).hyps[0]
    assert moved.tokens == best.tokens
    assert moved.log_prob == pytest.approx(best.log_prob, abs=1e-3)


def test_going_on_with_other_statistics_is_refused(train):
    assert train("--cmvn=speaker", "--patience=1").status == 0
    done = train("--patience=1")
    assert done.status == 1
    assert "cmvn: 'speaker' before, '' now" in done.err
