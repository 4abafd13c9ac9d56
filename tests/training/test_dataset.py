"""Reading utterances and making batches; errors in the data."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.data.data_dir import write_map
from pipeline.errors import DataDirError, FeatureError, PhoneError, TableError
from pipeline.frontend.cmvn import CmvnStats
from pipeline.tables import read_matrix
from pipeline.text.tokens import Tokens
from pipeline.training.dataset import (
    Utterance,
    batches_by_length,
    by_longest,
    load_dataset,
    load_features,
    make_batch,
    normalise_features,
    shuffled_batches,
)

TOKENS = Tokens(["<blk>", "a", "b", "c"])


def utterances(*frames: int) -> list[Utterance]:
    return [Utterance(f"u{i:02d}", "", n, (1,)) for i, n in enumerate(frames)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---- a data directory ----------------------------------------------------------------------------


def test_utterances_are_those_of_feats_scp_in_its_order(toy):
    found = load_dataset(toy.train, TOKENS)
    text = dict(line.split(" ", 1) for line in (toy.train / "text").read_text().splitlines())
    assert [u.utt_id for u in found] == ["s0-u0", "s0-u1", "s1-u2", "s1-u3"]
    for utterance in found:
        assert " ".join(TOKENS.decode(utterance.tokens)) == text[utterance.utt_id]
        assert utterance.num_frames == len(read_matrix(utterance.features))


def test_frames_are_counted_without_utt2num_frames(toy):
    counted = load_dataset(toy.train, TOKENS)
    (toy.train / "utt2num_frames").unlink()
    assert load_dataset(toy.train, TOKENS) == counted
    write_map(toy.train / "utt2num_frames", {"s0-u0": "1"})  # not all of them
    assert load_dataset(toy.train, TOKENS) == counted


def test_a_predictor_needs_no_features(toy):
    (toy.train / "feats.scp").unlink()
    found = load_dataset(toy.train, TOKENS, with_features=False)
    assert [u.num_frames for u in found] == [len(u.tokens) for u in found]
    assert {u.features for u in found} == {""}


def test_an_utterance_may_have_no_tokens(toy):
    write_map(toy.train / "text", dict.fromkeys(("s0-u0", "s0-u1", "s1-u2", "s1-u3"), ""))
    assert {u.tokens for u in load_dataset(toy.train, TOKENS)} == {()}


@pytest.mark.parametrize(
    ("file", "there", "missing"),
    [("text", "feats.scp", "text"), ("feats.scp", "text", "feats.scp")],
)
def test_an_utterance_in_only_one_file_is_named(toy, file, there, missing):
    lines = (toy.train / file).read_text().splitlines()
    (toy.train / file).write_text("\n".join(lines[1:]) + "\n")
    with pytest.raises(DataDirError) as error:
        load_dataset(toy.train, TOKENS)
    assert f"s0-u0: in {there}, not in {missing}" in str(error.value)
    expected = "1 utterances are in only one of feats.scp and text; run utils/fix_data_dir.py"
    assert f"{expected} {toy.train}" in str(error.value)


@pytest.mark.parametrize("file", ["text", "feats.scp"])
def test_an_empty_or_missing_table_is_named(toy, file):
    (toy.train / file).write_text("")
    with pytest.raises(DataDirError, match=f"train/{file}: the file is empty"):
        load_dataset(toy.train, TOKENS)
    (toy.train / file).unlink()
    with pytest.raises(DataDirError, match=f"train/{file}"):
        load_dataset(toy.train, TOKENS)


def test_an_empty_and_a_missing_directory(tmp_path):
    with pytest.raises(DataDirError, match="text"):
        load_dataset(tmp_path, TOKENS)
    with pytest.raises(DataDirError, match="nowhere: not a directory"):
        load_dataset(tmp_path / "nowhere", TOKENS)


def test_an_unknown_phone_is_named_with_its_utterance(toy):
    path = toy.train / "text"
    path.write_text(path.read_text().replace("s1-u2 ", "s1-u2 axr2 "))
    with pytest.raises(PhoneError, match=r'train/text:3: s1-u2: unknown phone "axr2"'):
        load_dataset(toy.train, TOKENS)


def test_a_feats_scp_runs_no_command_unless_that_is_allowed(toy, tmp_path):
    sign = tmp_path / "sign"
    path = toy.train / "feats.scp"
    lines = path.read_text().splitlines()
    utt, rxfilename = lines[0].split(" ", 1)
    file, _, offset = rxfilename.rpartition(":")
    lines[0] = f"{utt} touch {sign}; tail -c +{int(offset) + 1} {file} |"
    path.write_text("\n".join(lines) + "\n")
    (toy.train / "utt2num_frames").unlink()
    with pytest.raises(TableError, match="--allow-pipes"):
        load_dataset(toy.train, TOKENS)
    with pytest.raises(TableError, match="--allow-pipes"):
        load_features(lines[0].split(" ", 1)[1], utt, 6, None)
    assert not sign.exists()
    assert load_dataset(toy.train, TOKENS, allow_pipes=True)[0].num_frames > 0
    assert sign.exists()


# ---- features ------------------------------------------------------------------------------------


def test_features_are_normalised_to_mean_0_and_variance_1(toy):
    found = load_dataset(toy.train, TOKENS)
    cmvn = CmvnStats(read_matrix(str(toy.train / "cmvn.ark")))
    whole = np.concatenate([load_features(u.features, u.utt_id, 6, cmvn) for u in found])
    assert whole.dtype == np.float32
    np.testing.assert_allclose(whole.mean(axis=0), 0.0, atol=1e-5)
    np.testing.assert_allclose(whole.std(axis=0), 1.0, atol=1e-4)


def test_features_of_another_dimension_are_refused():
    with pytest.raises(FeatureError, match=r"utt7: features of shape \(9, 5\).* reads 6 per frame"):
        normalise_features(np.zeros((9, 5), np.float32), "utt7", 6, None)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_a_value_that_is_not_finite_is_named_with_its_frame(value):
    features = np.zeros((9, 6))
    features[4, 2] = value
    with pytest.raises(FeatureError, match="utt7: frame 4 is not finite"):
        normalise_features(features, "utt7", 6, None)


def test_no_frames_are_refused():
    with pytest.raises(FeatureError, match="utt7: no frames"):
        normalise_features(np.zeros((0, 6), np.float32), "utt7", 6, None)


def test_float64_features_come_out_as_float32():
    assert normalise_features(np.ones((3, 2)), "u", 2, None).dtype == np.float32


# ---- batches -------------------------------------------------------------------------------------


def test_a_batch_is_padded_with_zeros():
    two = [Utterance("x", "", 2, (1, 2, 3)), Utterance("y", "", 3, ())]
    batch = make_batch(two, lambda u: np.full((u.num_frames, 4), 5.0, np.float32))
    assert batch.utt_ids == ["x", "y"]
    assert batch.features.shape == (2, 3, 4)
    assert batch.features[0, 2].tolist() == [0.0] * 4
    assert batch.lengths.tolist() == [2, 3]
    assert batch.targets.tolist() == [[1, 2, 3], [0, 0, 0]]
    assert batch.target_lengths.tolist() == [3, 0]
    assert batch.targets.dtype == torch.int64


@pytest.mark.parametrize("size", [1, 3, 16, 100])
def test_every_utterance_is_in_one_batch(size):
    all_of_them = utterances(*range(1, 51))
    batches = list(shuffled_batches(all_of_them, size, generator()))
    assert sorted(u.utt_id for b in batches for u in b) == [u.utt_id for u in all_of_them]
    assert len(batches) == -(-50 // size)
    assert max(map(len, batches)) == min(size, 50)


def test_the_order_depends_on_the_generator():
    all_of_them = utterances(*range(1, 51))
    first = list(shuffled_batches(all_of_them, 4, generator(1)))
    assert first == list(shuffled_batches(all_of_them, 4, generator(1)))
    assert first != list(shuffled_batches(all_of_them, 4, generator(2)))


def test_batches_are_of_similar_length():
    lengths = np.random.default_rng(0).integers(10, 1000, size=320)
    batches = list(shuffled_batches(utterances(*lengths), 20, generator()))
    padding = [max(u.num_frames for u in b) - min(u.num_frames for u in b) for b in batches]
    assert np.mean(padding) < 100  # random batches: 900
    shortest = [min(u.num_frames for u in b) for b in batches]
    assert shortest != sorted(shortest)  # the batches are in random order


def test_sortagrad_goes_by_the_longest_utterance():
    batches = [utterances(5, 1), utterances(3), utterances(2, 4, 2)]
    assert by_longest(batches) == [batches[1], batches[2], batches[0]]


def test_batches_of_one_are_in_random_order():
    order = [b[0].num_frames for b in shuffled_batches(utterances(*range(1, 51)), 1, generator())]
    assert order != sorted(order)


def test_evaluation_goes_from_long_to_short():
    found = batches_by_length(utterances(3, 9, 5, 9), 3)
    assert [[u.utt_id for u in batch] for batch in found] == [["u01", "u03", "u02"], ["u00"]]


def test_an_scp_entry_without_a_file_is_named(toy):
    path = toy.train / "feats.scp"
    path.write_text(path.read_text().replace("feats.ark", "gone.ark"))
    (toy.train / "utt2num_frames").unlink()
    with pytest.raises(TableError, match=r"gone\.ark"):
        load_dataset(Path(toy.train), TOKENS)
