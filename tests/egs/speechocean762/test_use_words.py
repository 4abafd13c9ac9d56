"""use_words.py of speechocean762: copies of data directories with words as their text."""

from pathlib import Path

PROGRAM = "egs/speechocean762/local/use_words.py"


def test_words_take_the_place_of_phones(run_bin, tmp_path: Path) -> None:
    for name in ("train", "dev"):
        folder = tmp_path / "data" / name
        (folder / "conf").mkdir(parents=True)
        (folder / "split2utt" / "1").mkdir(parents=True)
        (folder / "conf" / "fbank.conf").write_text("--dither=0\n")
        (folder / "text").write_text("u1 dh ah z uw\n")
        (folder / "text_words").write_text("u1 THE ZOO\n")
        (folder / "cmvn.ark").write_bytes(b"\0B")
    (tmp_path / "words" / "dev" / "old").mkdir(parents=True)
    done = run_bin(PROGRAM, tmp_path / "data", tmp_path / "words", check=True)
    assert (
        done.stderr.decode()
        .splitlines()[-1]
        .endswith(f"Done 2 utterances, 0 failed, in {tmp_path}/words")
    )
    for name in ("train", "dev"):
        folder = tmp_path / "words" / name
        assert (folder / "text").read_text() == "u1 THE ZOO\n"
        assert sorted(p.name for p in folder.iterdir()) == ["cmvn.ark", "conf", "text"]
        assert (folder / "conf" / "fbank.conf").read_text() == "--dither=0\n"
        assert (tmp_path / "data" / name / "text").read_text() == "u1 dh ah z uw\n"


def test_errors(run_bin, tmp_path: Path) -> None:
    done = run_bin(PROGRAM, tmp_path / "data", tmp_path / "words")
    assert done.returncode == 1
    assert "no data directories; run prepare_data.py" in done.stderr.decode()
    (tmp_path / "data" / "train").mkdir(parents=True)
    done = run_bin(PROGRAM, tmp_path / "data", tmp_path / "words")
    assert done.returncode == 1
    assert "text_words: no such file; run prepare_data.py again" in done.stderr.decode()
