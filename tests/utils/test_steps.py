"""The steps of a recipe: make_feats.sh, decode.sh, print_results.py, sweeps."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline.data.data_dir import read_map, validate, write_map
from pipeline.frontend.front_end import FrontEnd
from pipeline.scoring.results import best_epoch, read_metrics, read_speed
from pipeline.tables import MatrixWriter, read_matrix

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(run_step) -> Run:
    """Run a step in ``tmp_path``, as a recipe does."""
    return run_step


def fails(done: subprocess.CompletedProcess[str], status: int, *texts: str) -> None:
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    for text in texts:
        assert text in done.stderr, done.stderr


@pytest.mark.parametrize(
    "script", ["make_feats.sh", "decode.sh", "score.sh", "sweep_beam.sh", "tune_fusion.sh"]
)
def test_help_and_usage(run, script):
    done = run(script, "--help")
    assert done.returncode == 0
    assert f"e.g.: {script}" in done.stdout
    fails(run(script), 2, f"Usage: {script}")
    fails(run(script, "--nonsense", "1", "a", "b"), 2, "unknown option --nonsense")
    fails(run(script, "a", "b", "c", "d", "e", "f", "g"), 2, f"Usage: {script}")


# ---- make_feats.sh -------------------------------------------------------------------------------


@pytest.fixture
def recordings(tmp_path) -> Path:
    """A data directory of two speakers with two recordings each, and conf/."""
    data = tmp_path / "data" / "train"
    data.mkdir(parents=True)
    random = np.random.default_rng(0)
    utts = ["s1-a", "s1-b", "s2-a", "s2-b"]
    for number, utt in enumerate(utts):
        samples = random.normal(0, 0.1, size=2000 + 500 * number)
        soundfile.write(tmp_path / f"{utt}.wav", samples, 16000)
    write_map(data / "wav.scp", {utt: f"{tmp_path}/{utt}.wav" for utt in utts})
    write_map(data / "utt2spk", {utt: utt[:2] for utt in utts})
    write_map(data / "spk2utt", {"s1": "s1-a s1-b", "s2": "s2-a s2-b"})
    write_map(data / "text", dict.fromkeys(utts, "a b"))
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "fbank.conf").write_text(
        "# a comment\n--num-mel-bins=5\n--frame-shift=12.5\n--dither=0\n"
    )
    (tmp_path / "conf" / "delta.conf").write_text("--delta-order=1\n")
    return data


def test_features_of_a_data_directory(run, recordings, tmp_path):
    delta = ("--delta-conf", "conf/delta.conf")
    done = run("make_feats.sh", "--nj", "8", *delta, "data/train", "feats")
    assert done.returncode == 0, done.stderr
    assert validate(recordings) == []
    front_end = FrontEnd.load(recordings / "conf")
    assert front_end.dim == 10
    feats, frames = read_map(recordings / "feats.scp"), read_map(recordings / "utt2num_frames")
    for utt, rxfilename in feats.items():
        samples, rate = soundfile.read(tmp_path / f"{utt}.wav", dtype="float32")
        expected = front_end(samples * np.float32(32768), rate)
        np.testing.assert_array_equal(read_matrix(rxfilename), expected)
        assert frames[utt] == str(len(expected))
    assert (recordings / "frame_shift").read_text() == "0.0125\n"
    jobs = sorted(p.name for p in (tmp_path / "feats").glob("*.scp"))
    assert jobs == [f"feats_train.{job}.scp" for job in (1, 2, 3, 4)]  # four utterances
    assert not list(recordings.glob(".*"))


def test_the_configuration_may_be_the_one_it_writes(run, recordings):
    """…/conf is replaced by a copy of what was read from it."""
    shutil.copytree(recordings.parents[1] / "conf", recordings / "conf")
    conf = ("--conf", "data/train/conf/fbank.conf", "--delta-conf", "data/train/conf/delta.conf")
    done = run("make_feats.sh", "--nj", "1", *conf, "data/train", "feats")
    assert done.returncode == 0, done.stderr
    assert FrontEnd.load(recordings / "conf").dim == 10


def test_a_recording_that_fails_stops_it_and_keeps_what_was_there(run, recordings, tmp_path):
    (recordings / "feats.scp").write_text("what was there\n")
    (tmp_path / "s1-b.wav").write_text("no recording")
    done = run("make_feats.sh", "--nj", "1", "data/train", "feats")
    fails(done, 1, "s1-b.wav", "log is in", "make_feats_train.1.log")
    assert (recordings / "feats.scp").read_text() == "what was there\n"


def test_what_editors_add_to_any_file_changes_no_feature(run, recordings, tmp_path):
    conf = tmp_path / "conf" / "fbank.conf"
    conf.write_text("--frame-shift=5\n--num-mel-bins=5\n")
    write_map(recordings / "segments", {u: f"{u} 0.01 -1" for u in read_map(recordings / "text")})
    made = []
    for mark, end in ((b"", b"\n"), (b"\xef\xbb\xbf", b"\r\n")):
        for path in [conf, *recordings.glob("*")]:
            if path.is_file() and path.name in ("fbank.conf", "wav.scp", "segments", "utt2spk"):
                lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines()
                path.write_bytes(mark + b"".join(line + end for line in lines))
        done = run("make_feats.sh", "--nj", "2", recordings, "feats")
        assert (recordings / "feats.scp").exists(), done.stderr
        assert done.returncode == (1 if mark else 0)  # the check at the end tells the marks
        assert (recordings / "frame_shift").read_text() == "0.005\n"
        made.append([read_matrix(rx) for rx in read_map(recordings / "feats.scp").values()])
    for one, two in zip(*made, strict=True):
        np.testing.assert_array_equal(one, two)


def test_what_it_needs_is_named(run, recordings, tmp_path):
    fails(run("make_feats.sh", "data/gone", "feats"), 1, "data/gone/wav.scp: missing or empty")
    done = run("make_feats.sh", "--conf", "conf/gone/fbank.conf", "data/train", "feats")
    fails(done, 1, "conf/gone/fbank.conf: missing or empty")
    done = run("make_feats.sh", "--conf", "conf/delta.conf", "data/train", "feats")
    fails(done, 2, "--conf must be called fbank.conf, mfcc.conf or spectrogram.conf")
    assert run("make_feats.sh", "--nj", "none", "data/train", "feats").returncode != 0
    assert not (recordings / "feats.scp").exists()


# ---- decode.sh -----------------------------------------------------------------------------------


@pytest.fixture
def data(trained, tmp_path) -> Path:
    """A copy of the toy corpus's dev set."""
    return Path(shutil.copytree(trained / "toy" / "dev", tmp_path / "data" / "dev"))


def test_any_number_of_jobs_gives_the_same_bytes(run, trained, data, tmp_path):
    found = {}
    for nj in (1, 3):
        done = run(
            *("decode.sh", "--nj", nj, "--options", "--beam=4 --device=cpu", "decode_ctc.py"),
            *(trained / "ctc", "data/dev", f"decode{nj}"),
        )
        assert done.returncode == 0, done.stderr
        files = ("hyp.txt", "nbest", "hyp.ctm")
        found[nj] = [(tmp_path / f"decode{nj}" / file).read_bytes() for file in files]
        logs = sorted(p.name for p in (tmp_path / f"decode{nj}" / "log").glob("*.log"))
        assert logs == [f"decode.{job}.log" for job in range(1, nj + 1)]
        frames = sum(map(int, read_map(data / "utt2num_frames").values()))
        assert read_speed(tmp_path / f"decode{nj}").frames == frames
        assert len((tmp_path / f"decode{nj}" / "speed.jsonl").read_text().splitlines()) == nj
    assert found[1] == found[3]
    assert read_map(tmp_path / "decode3" / "hyp.txt") == read_map(data / "text")


def test_an_utterance_that_fails_is_in_the_log_and_nothing_is_kept(run, trained, data, tmp_path):
    feats = {utt: read_matrix(rx) for utt, rx in read_map(data / "feats.scp").items()}
    feats["s0-u1"][0, 0] = np.nan
    with MatrixWriter(f"ark,scp:{tmp_path}/nan.ark,{data}/feats.scp") as writer:
        for utt, matrix in feats.items():
            writer.write(utt, matrix)
    command = ("decode.sh", "--nj", "1", "decode_ctc.py", trained / "ctc", "data/dev", "decode")
    fails(run(*command), 1, "s0-u1: frame 0 is not finite", "log is in decode/log/decode.1.log")
    assert not (tmp_path / "decode" / "hyp.txt").exists()


def test_only_what_is_missing_is_decoded(run, trained, data, tmp_path):
    command = ("decode.sh", "--nj", "3", "decode_ctc.py", trained / "ctc", "data/dev", "decode")
    assert run(*command).returncode == 0
    log = tmp_path / "decode" / "log"
    expected = (tmp_path / "decode" / "hyp.txt").read_bytes()
    (tmp_path / "decode" / "scoring").mkdir()
    (log / "hyp.2").unlink()
    assert run(*command).returncode == 0
    said = ["already done: .done." in (log / f"decode.{job}.log").read_text() for job in (1, 2, 3)]
    assert said == [True, False, True]
    assert (tmp_path / "decode" / "hyp.txt").read_bytes() == expected
    assert not (tmp_path / "decode" / "scoring").exists()  # it was of what was there before
    more = [*command[:3], "--options", "--beam=2", *command[3:]]
    assert run(*more).returncode == 0
    assert "already done" not in (log / "decode.1.log").read_text()


def test_bad_utterances_can_be_left_out(run, trained, data, tmp_path):
    feats = {utt: read_matrix(rx) for utt, rx in read_map(data / "feats.scp").items()}
    feats["s0-u1"][0, 0] = np.nan
    with MatrixWriter(f"ark,scp:{tmp_path}/nan.ark,{data}/feats.scp") as writer:
        for utt, matrix in feats.items():
            writer.write(utt, matrix)
    command = ("decode_ctc.py", trained / "ctc", "data/dev", "decode")
    assert run("decode.sh", *command).returncode == 1
    done = run("decode.sh", "--nj", len(feats), "--skip-bad", "true", *command)  # each by itself
    assert done.returncode == 0, done.stderr
    assert read_map(tmp_path / "decode" / "hyp.txt").keys() == feats.keys() - {"s0-u1"}


def test_no_features_to_decode(run, trained, data):
    (data / "feats.scp").unlink()
    done = run("decode.sh", "decode_ctc.py", trained / "ctc", "data/dev", "decode")
    fails(done, 1, "data/dev/feats.scp: missing or empty; make it with make_feats.sh")


# ---- score.sh ------------------------------------------------------------------------------------


def test_scores_of_several_directories(run, tmp_path):
    for name, text in (("a b", "u1 x\n"), ("c", "u1 y\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "hyp.txt").write_text(text)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "text").write_text("u1 x\n")
    options = ("--options", "--sclite=false --alignment=nist", "--log", "log")
    done = run("score.sh", *options, "data", "a b", "data", "c")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "a b: %WER 0.00 [ 0 / 1, 0 ins, 0 del, 0 sub ] [alignment=nist]",
        "c: %WER 100.00 [ 1 / 1, 0 ins, 0 del, 1 sub ] [alignment=nist]",
    ]
    assert not (tmp_path / "c" / "scoring" / "sclite").exists()
    assert "# sed -n 2p log/score.list" in (tmp_path / "log" / "score.2.log").read_text()
    (tmp_path / "c" / "hyp.txt").write_text("")
    done = run("score.sh", "data", "a b", "data", "c")
    fails(done, 1, "hyp.txt: has no utterances", "1 / 2 failed, log is in a b/log/score.*.log")


# ---- print_results.py ----------------------------------------------------------------------------


@pytest.fixture
def models(trained, execute, tmp_path) -> Path:
    """Copies of the trained models, the CTC with scores of two sets."""
    for kind in ("ctc", "predictor"):
        shutil.copytree(trained / kind, tmp_path / kind)
    for name, hyp in (("dev", "u1 a b x\nu2 b\n"), ("test", "u1 a b c\nu2 c c\n")):
        decode = tmp_path / "ctc" / f"decode_{name}"
        decode.mkdir()
        (decode / "hyp.txt").write_text(hyp)
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / "text").write_text("u1 a b c\nu2 b c\n")
        done = execute("score.py", "--name=PER", tmp_path / "data", decode)
        assert done.status == 0, done.err
    return tmp_path


def test_the_table(execute, models):
    done = execute(
        *("print_results.py", "--title", "TOY", "--paper", "ctc=18.6 [G13]"),
        *(f"ctc={models}/ctc", f"predictor={models}/predictor"),
    )
    assert done.status == 0, done.err
    lines = [line.split() for line in done.out.splitlines() if line]
    from pipeline.models.weights import read_weights

    tensors = read_weights(models / "ctc" / "final.safetensors").values()
    count = f"{sum(t.numel() for t in tensors):,}"
    assert lines[:2] == [["TOY"], ["model", "weights", "set", "error", "rate"]]
    dev, test = done.out.splitlines()[4:6]
    assert dev.split()[:4] == ["ctc", count, "dev", "%PER"]
    assert "dev   %PER 40.00 [ 2 / 5, 0 ins, 1 del, 1 sub ], 95 % in " in dev
    assert test.startswith(" " * 27 + "test  %PER 20.00 [ 1 / 5, 0 ins, 0 del, 1 sub ], 95 % in ")
    assert lines[4] == ["paper", "18.6", "[G13]"]
    assert lines[5][0] == "predictor"
    best = best_epoch(read_metrics(models / "predictor"))
    said = f"{best.metric} {best.error_rate:.1f} %, {best.dev_bits:.2f} bits a token"
    assert said in done.out


@pytest.mark.parametrize("name", ["WER", "CER"])
def test_an_error_rate_has_the_name_that_its_score_carries(execute, models, name):
    decode = models / "ctc" / "decode_dev"
    assert execute("score.py", f"--name={name}", models / "data", decode).status == 0
    done = execute("print_results.py", f"ctc={models}/ctc")
    assert f"dev   %{name} 40.00 [ 2 / 5, 0 ins, 1 del, 1 sub ], 95 % in " in done.out
    assert "test  %PER 20.00 [ " in done.out
    done = execute("print_scores.py", decode)
    assert done.out == f"{decode}: %{name} 40.00 [ 2 / 5, 0 ins, 1 del, 1 sub ]\n"


@pytest.mark.parametrize(
    "content",
    [b"", b"abc", b"this is a text, no weights at all", b"\x02\0\0\0\0\0\0\0[]", b"\xff" * 64],
)
def test_damaged_weights_are_named(execute, models, content):
    (models / "ctc" / "final.safetensors").write_bytes(content)
    done = execute("print_results.py", f"ctc={models}/ctc")
    assert done.status == 1
    assert f"{models}/ctc/final.safetensors: cannot read these weights (" in done.err


@pytest.mark.parametrize("content", ["", "{", "[]\n", "3\n", '{"best": false}\n', '{"best": true}'])
def test_damaged_metrics_are_named(execute, models, content):
    (models / "predictor" / "metrics.jsonl").write_text(content)
    done = execute("print_results.py", f"predictor={models}/predictor")
    assert done.status == 1
    assert f"{models}/predictor/metrics.jsonl:" in done.err


def test_a_missing_or_damaged_score_is_named(execute, models):
    scoring = models / "ctc" / "decode_dev" / "scoring"
    (scoring / "wer").write_text("")
    done = execute("print_results.py", f"ctc={models}/ctc")
    assert (done.status, "scoring/wer: has no error rate; run score.py" in done.err) == (1, True)
    (scoring / "score.json").write_text('{"interval": 3}')
    done = execute("print_results.py", f"ctc={models}/ctc")
    assert (done.status, "score.json: cannot be used, it lacks " in done.err) == (1, True)
    (scoring / "score.json").unlink()
    done = execute("print_results.py", f"ctc={models}/ctc")
    assert (done.status, "score.json: no such file; run score.py" in done.err) == (1, True)


def test_a_score_of_other_hypotheses_is_refused(execute, models):
    (models / "ctc" / "decode_dev" / "hyp.txt").write_text("u1 a\nu2 b\n")
    for command in (("print_results.py", f"ctc={models}/ctc"),
                    ("print_scores.py", models / "ctc" / "decode_dev")):  # fmt: skip
        done = execute(*command)
        assert (done.status, done.out.count("%PER")) == (1, 0)
        assert "hyp.txt has changed since it was scored" in done.err


def test_wrong_names(execute, models):
    done = execute("print_results.py", f"{models}/ctc")
    assert (done.status, "a model is NAME=" in done.err) == (2, True)
    done = execute("print_results.py", "--paper", "18.6", f"ctc={models}/ctc")
    assert (done.status, "--paper is NAME=" in done.err) == (2, True)
    done = execute("print_results.py", f"ctc={models}/gone")
    assert (done.status, "gone/final.safetensors" in done.err) == (1, True)


# ---- print_scores.py -----------------------------------------------------------------------------


def test_columns_of_scores(execute, models):
    decode = [models / "ctc" / f"decode_{name}" for name in ("dev", "test")]
    columns = "--columns=metric,error_rate,errors,ref_tokens,ins,del,sub"
    done = execute("print_scores.py", columns, *decode)
    assert done.out == "PER\t40.00\t2\t5\t0\t1\t1\nPER\t20.00\t1\t5\t0\t0\t1\n"
    done = execute("print_scores.py", "--columns=per", *decode)
    assert (done.status, done.out) == (2, "")
    assert "--columns: unknown column 'per'; choose from metric, error_rate, errors, " in done.err
    done = execute("print_scores.py", "--columns=frames", *decode)
    assert (done.status, "speed.jsonl: cannot be used, No such file" in done.err) == (1, True)


# ---- sweep_beam.sh, tune_fusion.sh ---------------------------------------------------------------


def rows(path: Path) -> list[dict[str, str]]:
    head, *lines = [line.split("\t") for line in path.read_text().splitlines()]
    return [dict(zip(head, line, strict=True)) for line in lines]


@pytest.mark.slow
def test_a_sweep_and_its_picture(run, trained, data, tmp_path):
    options = ("sweep_beam.sh", "--beams", "1 3", "--name", "PER", "--options", "--device=cpu")
    done = run(*options, "decode_ctc.py", trained / "ctc", data, "sweep")
    assert done.returncode == 0, done.stderr
    found = rows(tmp_path / "sweep" / "sweep.tsv")
    assert [row["beam"] for row in found] == ["1", "3"]
    for row in found:
        assert int(row["errors"]) == sum(int(row[kind]) for kind in ("ins", "del", "sub"))
        assert row["metric"] == "PER"
        assert float(row["error_rate"]) == pytest.approx(
            100 * int(row["errors"]) / int(row["ref_tokens"]), abs=0.01
        )
        frames = read_map(data / "utt2num_frames").values()
        assert int(row["frames"]) == sum(map(int, frames))
        assert float(row["seconds"]) > 0
    for name in ("sweep.png", "sweep.svg"):
        done = run("plot_sweep.py", "--name=CTC", "sweep/sweep.tsv", name)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert "CTC" in (tmp_path / "sweep.svg").read_text()
    (tmp_path / "sweep.tsv").write_text("beam\tmetric\terror_rate\n3\tPER\tmuch\n")
    for table, picture, status, said in [
        ("sweep/sweep.tsv", "sweep.gif", 2, "the name of a picture must end in .png or .svg"),
        ("sweep.tsv", "a.png", 1, "sweep.tsv: not a table of sweep_beam.sh"),
        ("none.tsv", "a.png", 1, "none.tsv: cannot read this table"),
    ]:
        fails(run("plot_sweep.py", table, picture), status, said)


@pytest.mark.slow
def test_fusion_is_tuned(run, trained, data, tmp_path):
    done = run("make_ngram_lm.py", "--order=2", trained / "toy/train/text", "lm.arpa")
    assert done.returncode == 0, done.stderr
    options = ("--weights", "0.2", "--bonuses", "0 0.5", "--options", "--device=cpu")
    options += ("--score-options", "--ignore-case")
    command = (
        "tune_fusion.sh", *options, "decode_ctc.py", trained / "ctc", "lm.arpa", data, "tune"
    )  # fmt: skip
    done = run(*command)
    assert done.returncode == 0, done.stderr
    found = rows(tmp_path / "tune" / "tune.tsv")
    assert [(row["weight"], row["bonus"]) for row in found] == [
        ("0", "0"), ("0", "0.5"), ("0.2", "0"), ("0.2", "0.5"),
    ]  # fmt: skip
    hyp = tmp_path / "tune" / "weight0.2_bonus0" / "hyp.txt"
    assert "[ignore-case]" in (hyp.parent / "scoring" / "wer").read_text()
    before = hyp.stat().st_mtime_ns
    assert run(*command).returncode == 0
    assert hyp.stat().st_mtime_ns == before
    (tmp_path / "lm.arpa").write_text((tmp_path / "lm.arpa").read_text() + "\n")
    assert run(*command).returncode == 0
    assert hyp.stat().st_mtime_ns > before  # another model is not mistaken for this one
    best = min(found, key=lambda row: int(row["errors"]))
    chosen = [f"--insertion-bonus={best['bonus']}"]
    if best["weight"] != "0":
        chosen += ["--lm=lm.arpa", f"--lm-weight={best['weight']}"]
    assert (tmp_path / "tune" / "best.conf").read_text().splitlines() == chosen


@pytest.mark.slow
def test_fusion_with_words_is_tuned(run, trained, data, tmp_path):
    """What a network over characters would get: this one of phones is kept from it."""
    real, program = Path(__file__).resolve().parents[2] / "bin", tmp_path / "bin" / "decode_ctc.py"
    program.parent.mkdir(exist_ok=True)
    program.write_text(
        "#!/usr/bin/env bash\nrest=()\nfor word; do\n  case $word in\n"
        f'    --word-* | --lm-*) echo $word >> {tmp_path}/given ;;\n    *) rest+=("$word") ;;\n'
        f'  esac\ndone\nexec {real}/decode_ctc.py "${{rest[@]}}"\n'
    )
    program.chmod(0o755)
    (tmp_path / "lm.arpa").write_text("words")
    options = ("--words", "true", "--weights", "0.5", "--bonuses", "1", "--nj", "1")
    done = run(
        "tune_fusion.sh", *options, "--options", "--device=cpu", "decode_ctc.py",
        trained / "ctc", "lm.arpa", data, "tune",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first = ["--word-lm=lm.arpa", "--lm-weight=0", "--word-bonus=1"]
    second = ["--word-lm=lm.arpa", "--lm-weight=0.5", "--word-bonus=1"]
    assert (tmp_path / "given").read_text().split() == [*first, *second]
    assert (tmp_path / "tune" / "best.conf").read_text().splitlines() == first
