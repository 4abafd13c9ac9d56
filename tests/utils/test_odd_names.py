"""Folders with odd characters in their names: every step works in them, or refuses the name."""

import random
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline.data.data_dir import read_map, write_map
from pipeline.tables import read_matrix

ODD = [" ", ",", '"', "'", "$HOME", "`x`", "*", "?", "[a]", "é", ";", "&", "(", ")", "<", ">", "#"]
ODD += [
    "JOB",
    "XJOB",
    "\\",
    "!",
    "{a,b}",
    "~",
    "%s",
    "=",
    ":1",
    "-",
    "日本",
    "@",
    "^",
    "$(touch x)",
]


def odd_name(seed: int, *, without: str = "") -> str:
    """A name of some of the odd characters; the first are of all kinds, also at the front."""
    draw = random.Random(seed)
    parts = [part for part in ODD if not set(part) & set(without)]
    return "".join(draw.sample(parts, 12)) + "z"


@pytest.mark.parametrize("seed", range(6))
def test_job_words_come_through_as_they_are(run_step, tmp_path, seed):
    words = [odd_name(seed * 100 + n).replace("XJOB", "").replace("JOB", "") for n in range(20)]
    words += ["\\", "a\\", '"\\', "$", "`"]
    (tmp_path / "words").write_text("".join(f"{word}\n" for word in words))
    script = """
      . "$(dirname "$(command -v run.py)")/job_words.sh"
      mapfile -t given < words
      choose_job_name "${given[@]}"
      job_words "${given[@]}"
      run.py "$job=1:1" "log.$job" printf '<%s>\\n' "${words[@]}" '>' out
      list=
      for word in "${given[@]}"; do list+=" $(option_word "$word")"; done
      split_options "$list"
      printf '<%s>\\n' "${words[@]}" > options
    """
    done = run_step("bash", "-euc", script)
    assert done.returncode == 0, done.stderr
    expected = "".join(f"<{word}>\n" for word in words)
    assert (tmp_path / "options").read_text() == expected
    plain = [word for word in words if word not in (";", "&", "(", ")", "<", ">", "!", "{", "}")]
    assert (tmp_path / "out").read_text() == "".join(f"<{word}>\n" for word in plain)


def make_data(folder: Path) -> None:
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0).normal(0, 0.1, size=4000)
    wavs = {}
    for utt in ("s-a", "s-b"):
        soundfile.write(folder / f"{utt}.wav", noise, 16000)
        wavs[utt] = f"{folder}/{utt}.wav"
    write_map(folder / "wav.scp", wavs)
    write_map(folder / "utt2spk", dict.fromkeys(wavs, "s"))
    write_map(folder / "spk2utt", {"s": "s-a s-b"})
    write_map(folder / "text", dict.fromkeys(wavs, "a b"))


DECODER = """#!/usr/bin/env bash
for word in "$@"; do
  case $word in
    --write-nbest=ark,t:*) echo "u-1 a" > "${word#--write-nbest=ark,t:}" ;;
    --write-*=*) echo a > "${word#*=}" ;;
    ark,t:*) cut -d ' ' -f 1 "$feats" | sed 's/$/ a b/' > "${word#ark,t:}" ;;
    scp:*cmvn.scp) ;;
    scp:*) feats=${word#scp:} ;;
  esac
done
"""


@pytest.mark.parametrize("name", [odd_name(1), "-JOB,& >x"])
def test_the_steps_work_in_a_folder_of_any_name(run_step, tmp_path, name):
    place = tmp_path / name
    make_data(place / "data")
    (tmp_path / "fbank.conf").write_text("--num-mel-bins=5\n")
    (place / "model").mkdir()
    for file in ("final.safetensors", "config.json"):
        (place / "model" / file).write_text("{}")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "decoder.sh").write_text(DECODER)
    (tmp_path / "bin" / "decoder.sh").chmod(0o755)
    feats = f"{name}/feats" if "," not in name else "feats"
    before = {path.name for path in tmp_path.iterdir()} | {"feats"}
    steps = (
        ("make_feats.sh", "--nj", 2, "--conf", "fbank.conf", "--", f"{name}/data", feats),
        ("decode.sh", "--nj", 2, "--options=--x='a b'", "--", "decoder.sh", f"{name}/model",
         f"{name}/data", f"{name}/model/decode"),
        ("score.sh", "--options=--sclite=false", "--", f"{name}/data", f"{name}/model/decode"),
    )  # fmt: skip
    for step in steps:
        done = run_step(*step)
        assert done.returncode == 0, done.stderr
    assert "%WER 0.00 [ 0 / 4" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} <= before
    matrices = [read_matrix(rx) for rx in read_map(place / "data" / "feats.scp").values()]
    assert len(matrices) == 2
    shutil.rmtree(place)


@pytest.mark.parametrize("name", ["a|b", "a\nb"])
@pytest.mark.parametrize("step", ["make_feats.sh", "decode.sh", "sweep_beam.sh", "score.sh"])
def test_names_that_no_table_can_hold_are_refused(run_step, tmp_path, step, name):
    more = {"decode.sh": ["decoder.sh", "m"], "sweep_beam.sh": ["decoder.sh", "m"]}.get(step, [])
    (tmp_path / "conf").mkdir()
    done = run_step(step, *more, name, "out")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "so it cannot be used; rename it" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_of_features_with_a_comma_is_refused(run_step, tmp_path):
    make_data(tmp_path / "data")
    (tmp_path / "fbank.conf").write_text("--num-mel-bins=5\n")
    done = run_step("make_feats.sh", "--conf", "fbank.conf", "data", "a,b")
    assert done.returncode == 1
    assert "a,b: a folder of features cannot have a comma in its name" in done.stderr
    assert not (tmp_path / "a,b").exists()


@pytest.mark.parametrize("seed", range(3))
def test_once_takes_a_path_with_commas(run_step, tmp_path, seed):
    name = odd_name(seed) + ",x"
    (tmp_path / name).write_text("1")
    words = ("--input", name, f"--output={name}.out", "stamp", "bash", "-c")
    script = f"cat {shlex.quote(f'./{name}')} > {shlex.quote(f'./{name}.out')}; echo ran"
    for said in ("ran\n", ""):
        done = run_step("once.py", *words, script)
        assert (done.returncode, done.stdout) == (0, said), done.stderr


def test_a_search_path_of_folders_leads_nowhere_else(run_step, tmp_path):
    """With $CDPATH, cd goes to another folder of the same name first."""
    (tmp_path / "elsewhere" / "feats").mkdir(parents=True)
    make_data(tmp_path / "data")
    (tmp_path / "fbank.conf").write_text("--num-mel-bins=5\n")
    done = run_step("env", f"CDPATH={tmp_path}/elsewhere", "make_feats.sh", "--nj", 1, "--conf",
                    "fbank.conf", "data", "feats")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not list((tmp_path / "elsewhere" / "feats").iterdir())
    assert list((tmp_path / "feats").glob("*.ark"))
