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
    assert b'one/utt2spk has "s01-u1" too; rename one' in done.stderr
    three = make_data_dir("three", prefix="t")
    (three / "segments").write_text("t01-u1 r 0 1\n")
    done = run_bin("combine_data.py", tmp_path / "all", one, three)
    assert (done.returncode, b"one has none" in done.stderr) == (1, True)
    assert run_bin("combine_data.py", one, one, two).returncode == 2
    assert run_bin("combine_data.py", tmp_path / "all").returncode == 2
    assert run_bin("combine_data.py", tmp_path / "all", tmp_path / "none").returncode == 1
    (three / "segments").unlink()
    (one / "frame_shift").write_text("0.01\n")
    (three / "frame_shift").write_text("0.02\n")
    done = run_bin("combine_data.py", tmp_path / "all", one, three)
    assert (done.returncode, b"differs from " in done.stderr) == (1, True)
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


NIST = {
    "stm": ';; LABEL "O" "Overall" "Overall"\n' + "".join(
        f"{p}0{s}-u{u} 1 {p}0{s} 0.00 1.00 <O> x y\n" for p in "ab" for s in (1, 2) for u in (1, 2)
    ),
    "phones.ctm": "".join(
        f"{p}0{s}-u{u} 1 0.{n} 0.1 x\n"
        for p in "ab" for s in (1, 2) for u in (1, 2) for n in (1, 0)
    ),
    "spk2dialect": "a01 dr 1\na02 dr2\nb02 dr1\n",
    "glm": ";; rules\n* x y\n",
    "frame_shift": "0.01\n",
}  # fmt: skip


def test_files_of_nist_and_dialects_are_kept(run_bin, make_data_dir, tmp_path) -> None:
    parts = [make_data_dir(p, prefix=p, speakers=2, utts=2) for p in "ab"]
    run_bin("combine_data.py", tmp_path / "all", *parts, check=True)
    path = tmp_path / "all"
    for name, text in NIST.items():
        (path / name).write_text(text)
    (path / "conf").mkdir()
    (path / "conf" / "fbank.conf").write_text("--dither=0\n")
    assert validate(path) == []
    done = run_bin("fix_data_dir.py", path, check=True)
    assert done.stdout == b"fix_data_dir.py: kept all 8 utterances out of 8\n"
    assert {name: (path / name).read_text() for name in NIST} == NIST
    (tmp_path / "list").write_text("a01-u2\nb02-u1\n")
    some = tmp_path / "some"
    run_bin("subset_data_dir.py", f"--utt-list={tmp_path}/list", path, some, check=True)
    assert (some / "spk2dialect").read_text() == "a01 dr 1\nb02 dr1\n"
    assert (some / "phones.ctm").read_text().split()[::5] == ["a01-u2"] * 2 + ["b02-u1"] * 2
    assert [line.split()[0] for line in (some / "stm").read_text().splitlines()] == [
        ";;", "a01-u2", "b02-u1",
    ]  # fmt: skip
    assert (some / "conf" / "fbank.conf").exists()
    run_bin("split_data.py", path, 3, check=True)
    again = tmp_path / "again"
    run_bin("combine_data.py", again, *(path / "split3" / str(n) for n in (2, 1, 3)), check=True)
    assert {name: (again / name).read_text() for name in NIST} == NIST
    assert (again / "conf" / "fbank.conf").exists()
    (path / "split3" / "2" / "phones.ctm").unlink()
    (path / "split3" / "1" / "glm").write_text("other\n")
    sources = [path / "split3" / str(n) for n in (1, 2)]
    done = run_bin("combine_data.py", tmp_path / "bad", *sources)
    assert (done.returncode, b"split3/2/glm: differs from" in done.stderr) == (1, True)
    (path / "split3" / "1" / "glm").unlink()
    done = run_bin("combine_data.py", tmp_path / "good", *sources, check=True)
    assert b"phones.ctm is left out: only 1 of 2 sources have it" in done.stderr
