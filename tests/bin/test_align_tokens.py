"""align_tokens.py and ctm_to_ali.py: labels of frames, the forms of Kaldi, what cannot be done."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.decoding.frame_labels import labels_of_frames
from pipeline.errors import TableError
from pipeline.tables import IntegersWriter, MatrixReader, VectorReader


@pytest.mark.parametrize(
    ("spans", "frames", "expected"),
    [
        ([(2, 3), (6, 7)], 9, "aaaabbbbb"),  # in the middle of a frame, which goes to the right
        ([(2, 3), (5, 6)], 9, "aaaabbbbb"),
        ([(0, 2), (2, 5)], 5, "aabbb"),
        ([(3, 4), (3, 4)], 6, "aaabbb"),  # both in one frame
        ([(5, 6), (5, 6)], 6, "aaaaab"),
        ([(0, 1), (0, 1)], 6, "abbbbb"),
        ([(0.0, 1.4), (1.6, 4.0)], 4, "abbb"),
        ([(0.0, 1.6), (1.6, 4.0)], 4, "aabb"),
    ],
)
def test_a_boundary_lies_in_the_middle(spans: list, frames: int, expected: str) -> None:
    got = labels_of_frames([1, 2], spans, frames)
    assert "".join(" ab"[k] for k in got) == expected
    assert got.dtype == np.int32


def test_every_label_gets_a_frame() -> None:
    spans = [(0, 1)] * 3 + [(9, 10)] * 3
    assert labels_of_frames([1, 2, 3, 4, 5, 6], spans, 10).tolist() == [
        1,
        2,
        3,
        3,
        3,
        4,
        4,
        4,
        5,
        6,
    ]
    with pytest.raises(ValueError, match="5 frames are too few for 6 labels"):
        labels_of_frames([1, 2, 3, 4, 5, 6], spans, 5)
    with pytest.raises(ValueError, match="no label for its frames"):
        labels_of_frames([], [], 5)


# ---- integers on disk ----------------------------------------------------------------------------


def test_integers_are_written_as_kaldi_writes_them(tmp_path: Path) -> None:
    with IntegersWriter(f"ark,scp:{tmp_path}/a.ark,{tmp_path}/a.scp") as writer:
        writer.write("u1", np.array([1, 70000, -3], dtype=np.int32))
        writer.write("u2", np.array([], dtype=np.int32))
    parts = [b"u1 \0B\4\3\0\0\0", b"\4\1\0\0\0", b"\4p\x11\1\0", b"\4\xfd\xff\xff\xff"]
    assert (tmp_path / "a.ark").read_bytes() == b"".join(parts) + b"u2 \0B\4\0\0\0\0"
    found = dict(VectorReader(f"scp:{tmp_path}/a.scp"))
    assert found["u1"].tolist() == [1, 70000, -3]
    assert found["u1"].dtype == np.int32
    with IntegersWriter(f"ark,t:{tmp_path}/a.txt") as writer:
        writer.write("u1", np.array([1, 70000, -3], dtype=np.int32))
    assert (tmp_path / "a.txt").read_text() == "u1 1 70000 -3 \n"


@pytest.mark.parametrize("value", [np.zeros(3), np.zeros((1, 2), np.int32), np.array([2**31])])
def test_what_is_no_vector_of_integers_is_refused(value: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(TableError, match="integer"), IntegersWriter(f"ark:{tmp_path}/a") as writer:
        writer.write("u", value)


# ---- programs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ctc", "transducer"])
def test_a_model_aligns_its_text(
    trained: Path, execute: Callable, tmp_path: Path, kind: str
) -> None:
    dev = trained / "toy" / "dev"
    arguments = (trained / kind, f"scp:{dev}/feats.scp", f"ark:{dev}/text")
    done = execute("align_tokens.py", *arguments, f"ark,scp:{tmp_path}/ali.ark,{tmp_path}/ali.scp")
    assert done.status == 0, done.err
    assert "Done 4 utterances, 0 failed" in done.err
    found = dict(VectorReader(f"scp:{tmp_path}/ali.scp"))
    text = dict(line.split(" ", 1) for line in (dev / "text").read_text().splitlines())
    wrong = total = 0
    for utt_id, features in MatrixReader(f"scp:{dev}/feats.scp"):
        labels = found[utt_id]
        assert len(labels) == len(features)
        runs = labels[np.flatnonzero(np.diff(labels, prepend=0))]
        assert " ".join(" abc"[k] for k in runs) == text[utt_id]
        wrong += int((labels != features.argmax(axis=1) + 1).sum())
        total += len(labels)
    assert wrong <= 0.4 * total


def test_texts_that_cannot_be_aligned(trained: Path, execute: Callable, tmp_path: Path) -> None:
    dev = trained / "toy" / "dev"
    text = tmp_path / "text"
    lines = (dev / "text").read_text().splitlines()
    text.write_text(f"{lines[0]}\n{lines[1].split()[0]} {'a b ' * 40}\n{lines[2].split()[0]} x\n")
    arguments = (trained / "ctc", f"scp:{dev}/feats.scp", f"ark:{text}")
    done = execute("align_tokens.py", *arguments, f"ark:{tmp_path}/ali")
    assert done.status == 1
    assert "Done 1 utterances, 3 failed" in done.err
    assert "spells these 80 tokens" in done.err
    assert 'unknown phone "x"' in done.err
    assert "lacks its text" in done.err


def test_times_become_labels(execute: Callable, tmp_path: Path) -> None:
    (tmp_path / "tokens.txt").write_text("<blk> 0\na 1\nb 2\n")
    (tmp_path / "ctm").write_text("u 1 0.05 0.05 b\nu 1 0.00 0.05 a\nv 1 0 1 a\n")
    (tmp_path / "frames").write_text("u 8\nv 2\nw 3\nx many\n")
    files = (tmp_path / "tokens.txt", tmp_path / "ctm", tmp_path / "frames")
    found = {}
    for option in ("--snip-edges", "--no-snip-edges"):
        done = execute("ctm_to_ali.py", option, *files, f"ark:{tmp_path}/ali")
        assert done.status == 1
        assert "w: " in done.err
        assert "lacks its phones" in done.err
        assert "frames: 'many' is not a number of frames" in done.err
        found[option] = dict(VectorReader(f"ark:{tmp_path}/ali"))["u"].tolist()
    # The middle of frame t is at 12.5 + 10 t ms, or at 5 + 10 t ms.
    assert found["--snip-edges"] == [1, 1, 1, 1, 2, 2, 2, 2]
    assert found["--no-snip-edges"] == [1, 1, 1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("line", ["u 1 0.0 a", "u 1 0.0 x a", "u 1 -1 2 a"])
def test_a_ctm_of_another_form(execute: Callable, tmp_path: Path, line: str) -> None:
    (tmp_path / "tokens.txt").write_text("<blk> 0\na 1\n")
    (tmp_path / "ctm").write_text(f"u 1 0 1 a\n{line}\n")
    (tmp_path / "frames").write_text("u 8\n")
    files = (tmp_path / "tokens.txt", tmp_path / "ctm", tmp_path / "frames")
    done = execute("ctm_to_ali.py", *files, f"ark:{tmp_path}/ali")
    assert done.status == 1
    assert "ctm:2: expected UTT CHANNEL START DURATION PHONE" in done.err
    assert execute("ctm_to_ali.py", "--frame-shift=0", *files, "ark:-").status == 2


def test_times_of_another_length_are_told(execute: Callable, tmp_path: Path) -> None:
    """Half the frames, as with features of twice the frame shift."""
    (tmp_path / "tokens.txt").write_text("<blk> 0\na 1\n")
    (tmp_path / "ctm").write_text("u 1 0 1 a\n")
    files = (tmp_path / "tokens.txt", tmp_path / "ctm", tmp_path / "frames")
    (tmp_path / "frames").write_text("u 98\n")
    assert "WARNING" not in execute("ctm_to_ali.py", *files, f"ark:{tmp_path}/ali").err
    (tmp_path / "frames").write_text("u 50\n")
    done = execute("ctm_to_ali.py", *files, f"ark:{tmp_path}/ali")
    assert done.status == 0
    assert "u: the phones end at frame 99, but there are 50 frames" in done.err
    done = execute("ctm_to_ali.py", "--frame-shift=20", *files, f"ark:{tmp_path}/ali")
    assert "WARNING" not in done.err
