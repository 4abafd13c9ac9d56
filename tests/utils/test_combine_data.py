"""combine_data.py: joining, and what cannot be joined."""

from pipeline.data.data_dir import DataDir, validate


def test_joins_and_leaves_out_what_some_lack(run_bin, make_data_dir, tmp_path) -> None:
    one, two = make_data_dir("one", prefix="b"), make_data_dir("two", prefix="a")
    (two / "spk2gender").unlink()
    (one / "frame_shift").write_text("0.01\n")
    done = run_bin("combine_data.py", tmp_path / "all", one, two, check=True)
    assert b"spk2gender is left out: only 1 of 2 sources have it" in done.stderr
    assert validate(tmp_path / "all") == []
    data = DataDir(tmp_path / "all")
    assert data.utt_ids == sorted(DataDir(one).utt_ids + DataDir(two).utt_ids)
    assert not data.has("spk2gender")
    assert data.has("frame_shift")


def test_splitting_and_joining_gives_the_whole(run_bin, make_data_dir, tmp_path) -> None:
    path = make_data_dir()
    run_bin("split_data.py", "--per-utt", path, 5, check=True)
    parts = [path / "split5utt" / str(n) for n in (4, 1, 5, 2, 3)]
    run_bin("combine_data.py", tmp_path / "all", *parts, check=True)
    for file in path.iterdir():
        if file.is_file():
            assert (tmp_path / "all" / file.name).read_bytes() == file.read_bytes()


def test_refusals(run_bin, make_data_dir, tmp_path) -> None:
    one, two = make_data_dir("one"), make_data_dir("two")
    done = run_bin("combine_data.py", tmp_path / "all", one, two)
    assert done.returncode == 1
    assert b'two/utt2spk: another source has "s01-u1" too; rename one' in done.stderr
    three = make_data_dir("three", prefix="t")
    (three / "segments").write_text("t01-u1 r 0 1\n")
    done = run_bin("combine_data.py", tmp_path / "all", one, three)
    assert (done.returncode, b"only some of the sources have segments" in done.stderr) == (1, True)
    assert run_bin("combine_data.py", one, one, two).returncode == 2
    assert run_bin("combine_data.py", tmp_path / "all").returncode == 2
    assert run_bin("combine_data.py", tmp_path / "all", tmp_path / "none").returncode == 1
    (three / "segments").unlink()
    (one / "frame_shift").write_text("0.01\n")
    (three / "frame_shift").write_text("0.02\n")
    done = run_bin("combine_data.py", tmp_path / "all", one, three)
    assert (done.returncode, b"differ in frame_shift" in done.stderr) == (1, True)
    assert not (tmp_path / "all").exists()


def test_features_must_have_been_made_the_same_way(run_bin, make_data_dir, tmp_path) -> None:
    one, two = make_data_dir("one", prefix="b"), make_data_dir("two", prefix="a")
    for source, text in ((one, "--low-freq=300 # Hz\n"), (two, "--low_freq=300.0\n--dither=0\n")):
        (source / "conf").mkdir()
        (source / "conf" / "fbank.conf").write_text(text)
    (tmp_path / "all" / "conf").mkdir(parents=True)  # of features that are replaced
    (tmp_path / "all" / "conf" / "mfcc.conf").write_text("--num-ceps=13\n")
    run_bin("combine_data.py", tmp_path / "all", one, two, check=True)
    (conf,) = (tmp_path / "all" / "conf").iterdir()
    assert conf.read_text() == "--low-freq=300 # Hz\n"
    (two / "conf" / "delta.conf").write_text("")
    done = run_bin("combine_data.py", tmp_path / "other", one, two)
    assert done.returncode == 1
    assert b"one/conf and " in done.stderr
    assert b"two/conf say that the features were computed by different options" in done.stderr
    assert not (tmp_path / "other").exists()
    for file in (two / "conf").iterdir():
        file.unlink()
    (two / "conf").rmdir()
    done = run_bin("combine_data.py", tmp_path / "other", one, two, check=True)
    assert b"conf is left out: only 1 of 2 sources have it" in done.stderr
    assert not (tmp_path / "other" / "conf").exists()
