"""decode_ctc.py and decode_transducer.py as a user meets them."""

import fcntl
import json
import re
import shutil
import threading
from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.data.data_dir import read_map
from pipeline.seals import unsealed
from pipeline.tables import MatrixWriter, TextReader, read_matrix

KINDS = ("ctc", "transducer")


@pytest.fixture
def feats(trained: Path) -> dict[str, np.ndarray]:
    table = read_map(trained / "toy" / "dev" / "feats.scp")
    return {utt: read_matrix(rx) for utt, rx in table.items()}


@pytest.fixture
def decode(trained, execute, tmp_path) -> Callable[..., object]:
    """Decode a table into ``tmp_path/hyp``, with the model ``kind`` or another ``model``."""

    def run(rspecifier: object, *options: object, kind: str = "ctc", model: Path | None = None):
        where = ("--threads=1", "--device=cpu", *options, model or trained / kind)
        return execute(f"decode_{kind}.py", *where, rspecifier, f"ark,t:{tmp_path}/hyp")

    return run


@pytest.fixture
def write(tmp_path) -> Callable[..., str]:
    """Write features and give the scp that names them."""

    def run(table: dict[str, np.ndarray], name: str = "feats") -> str:
        with MatrixWriter(f"ark,scp:{tmp_path}/{name}.ark,{tmp_path}/{name}.scp") as writer:
            for utt, matrix in table.items():
                writer.write(utt, matrix)
        return f"scp:{tmp_path}/{name}.scp"

    return run


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a trained model that a test may spoil."""
    return lambda kind="ctc": Path(shutil.copytree(trained / kind, tmp_path / kind))


def fails(done, status: int, *texts: str) -> None:
    """Check that the command ended with ``status`` and that its messages have all ``texts``."""
    assert done.status == status, done.err
    assert "Traceback" not in done.err
    for text in texts:
        assert text in done.err, done.err


# ---- what comes out ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_hypotheses_in_the_order_of_the_table(trained, decode, feats, write, tmp_path, kind):
    text = read_map(trained / "toy" / "dev" / "text")
    order = ["s1-u3", "s0-u0", "s1-u2", "s0-u1"]
    done = decode(write({utt: feats[utt] for utt in order}), kind=kind)
    assert (done.status, done.out) == (0, "")
    assert (tmp_path / "hyp").read_text() == "".join(f"{utt} {text[utt]}\n" for utt in order)
    total = sum(map(len, feats.values()))
    assert re.search(rf"Done 4 utterances, 0 failed, {total} frames in [\d.]+ s$", done.err.strip())


@pytest.mark.parametrize("beam", [1, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_nbest(decode, feats, write, tmp_path, kind, beam):
    options = (f"--beam={beam}", "--nbest=3", f"--write-nbest=ark,t:{tmp_path}/nbest")
    assert decode(write(feats), *options, kind=kind).status == 0
    hyps = dict(TextReader(f"ark:{tmp_path}/hyp"))
    lines = (tmp_path / "nbest").read_text().splitlines()
    number = r"(-?\d+\.\d{4})"
    pattern = rf"(\S+)-(\d) {number} {number} {number}((?: [abc])*)"
    found = [re.fullmatch(pattern, line).groups() for line in lines]
    assert [utt for utt, rank, *_ in found if rank == "1"] == list(feats)
    for utt in feats:
        own = [(int(r), float(p), t.strip()) for u, r, p, *_, t in found if u == utt]
        assert [rank for rank, *_ in own] == list(range(1, min(beam, 3) + 1))
        assert own[0][2] == hyps[utt]
        probabilities = [p for _, p, _ in own]
        assert probabilities == sorted(probabilities, reverse=True)
        assert len({tokens for *_, tokens in own}) == len(own)
    for _, _, score, log_prob, normalised, tokens in found:
        assert score == log_prob  # nothing is fused
        count = max(1, len(tokens.split()))
        assert float(normalised) == pytest.approx(float(score) / count, abs=1e-4)


@pytest.mark.parametrize("beam", [1, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_an_utterance_in_which_nothing_is_recognised_is_alone_on_its_line(
    copy, decode, feats, write, tmp_path, kind, beam
):
    from safetensors.torch import load_file, save_file

    path = copy(kind)
    weights = load_file(path / "final.safetensors")
    bias = "output.bias" if kind == "ctc" else "joiner.encoder_output.bias"
    weights[bias][0] = 1e4  # the blank, always
    save_file(weights, path / "final.safetensors")
    done = decode(
        write({"u1": feats["s0-u0"], "u2": feats["s0-u1"]}),
        f"--beam={beam}",
        f"--write-nbest=ark,t:{tmp_path}/nbest",
        kind=kind,
        model=path,
    )
    assert done.status == 0, done.err
    assert (tmp_path / "hyp").read_text() in ("u1\nu2\n", "u1 \nu2 \n")
    assert dict(TextReader(f"ark:{tmp_path}/hyp")) == {"u1": "", "u2": ""}
    assert re.match(r"u1-1( -?\d+\.\d{4}){3}\n", (tmp_path / "nbest").read_text())


def test_tables_through_pipes(trained, run_bin, feats, write, tmp_path):
    write(feats)
    archive = (tmp_path / "feats.ark").read_bytes()
    done = run_bin("decode_ctc.py", "--device=cpu", trained / "ctc", "ark:-", "ark,t:-",
                   stdin=archive, check=True)  # fmt: skip
    text = read_map(trained / "toy" / "dev" / "text")
    assert done.stdout.decode() == "".join(f"{utt} {text[utt]}\n" for utt in feats)


def test_the_result_does_not_depend_on_the_neighbours(decode, feats, write, tmp_path):
    decode(write(feats), f"--write-nbest=ark,t:{tmp_path}/nbest")
    together = (tmp_path / "hyp").read_text(), (tmp_path / "nbest").read_text()
    alone = ["", ""]
    for utt, matrix in feats.items():
        decode(write({utt: matrix}, "one"), f"--write-nbest=ark,t:{tmp_path}/nbest")
        alone[0] += (tmp_path / "hyp").read_text()
        alone[1] += (tmp_path / "nbest").read_text()
    assert tuple(alone) == together


# ---- when, and how sure --------------------------------------------------------------------------


@pytest.mark.parametrize("beam", [1, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_ctm(decode, feats, write, tmp_path, kind, beam):
    done = decode(write(feats), f"--beam={beam}", f"--write-ctm={tmp_path}/hyp.ctm", kind=kind)
    assert done.status == 0, done.err
    lines = [line.split() for line in (tmp_path / "hyp.ctm").read_text().splitlines()]
    for utt, text in dict(TextReader(f"ark:{tmp_path}/hyp")).items():
        own = [line for line in lines if line[0] == utt]
        assert [line[4] for line in own] == text.split()
        starts = [float(line[2]) for line in own]
        assert starts == sorted(starts)
        for _, channel, start, duration, _, confidence in own:
            assert channel == "1"
            assert float(start) + float(duration) <= 0.01 * len(feats[utt]) + 1e-9
            assert float(duration) >= 0.01
            assert 0.0 < float(confidence) <= 1.0


def test_threads_give_the_same_bytes(decode, feats, write, tmp_path):
    options = (f"--write-nbest=ark,t:{tmp_path}/nbest", f"--write-ctm={tmp_path}/ctm")
    found = []
    for threads in (1, 3):
        done = decode(write(feats), *options, f"--threads={threads}", kind="transducer")
        assert done.status == 0, done.err
        found.append([(tmp_path / name).read_bytes() for name in ("hyp", "nbest", "ctm")])
    assert found[0] == found[1]


# ---- recordings ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_recordings_through_the_models_front_end(trained, execute, decode, tmp_path, kind):
    import soundfile

    random = np.random.default_rng(0)
    for name in ("a", "b"):
        soundfile.write(tmp_path / f"{name}.wav", random.normal(0, 0.1, 8000), 16000)
    (tmp_path / "wav.scp").write_text(f"a {tmp_path}/a.wav\nb {tmp_path}/b.wav\n")
    scp = f"scp:{tmp_path}/wav.scp"
    conf = trained / kind / "front_end" / "fbank.conf"
    execute("compute_fbank_feats.py", f"--config={conf}", scp, f"ark:{tmp_path}/feats.ark")
    assert decode(f"ark:{tmp_path}/feats.ark", kind=kind).status == 0
    expected = (tmp_path / "hyp").read_text()
    assert decode(scp, "--from-audio", kind=kind).status == 0
    assert (tmp_path / "hyp").read_text() == expected
    (tmp_path / "b.wav").write_bytes(b"not sound")
    fails(decode(scp, "--from-audio", kind=kind), 1, "b: ", "Done 1 utterances, 1 failed")
    assert (tmp_path / "hyp").read_text() == expected.splitlines(keepends=True)[0]


# ---- continuing an interrupted run ---------------------------------------------------------------


def test_a_second_process_waits_and_takes_over(decode, feats, write, tmp_path, caplog):
    """A cluster may restart a job while its first attempt still runs on a lost node."""
    options, journal = ("--resume",), tmp_path / "hyp.partial"
    assert decode(write(feats), *options).status == 0
    expected = (tmp_path / "hyp").read_bytes()
    (tmp_path / "hyp").unlink()
    with journal.open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        timer = threading.Timer(0.5, lambda: fcntl.flock(other, fcntl.LOCK_UN))
        timer.start()
        done = decode(write(feats), *options)
        timer.join()
    assert done.status == 0
    assert "hyp.partial: another process writes this file; waiting for it to end" in done.err
    assert f"{len(feats)} of them already finished" in done.err
    assert (tmp_path / "hyp").read_bytes() == expected


def test_what_is_finished_is_not_decoded_again(decode, feats, write, tmp_path, monkeypatch):
    from pipeline.decoding import recogniser as module

    options = (f"--write-nbest=ark,t:{tmp_path}/nbest", f"--write-ctm={tmp_path}/ctm")
    outputs = ("hyp", "nbest", "ctm")
    assert decode(write(feats), *options).status == 0
    expected = [(tmp_path / name).read_bytes() for name in outputs]
    assert not (tmp_path / "hyp.partial").exists()
    for name in outputs:
        (tmp_path / name).unlink()

    recognise, seen = module.Recogniser.recognise, []

    def stop_at_the_third(self, utt_id, *rest, **options):
        seen.append(utt_id)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return recognise(self, utt_id, *rest, **options)

    monkeypatch.setattr(module.Recogniser, "recognise", stop_at_the_third)
    assert decode(write(feats), *options).status == 130
    assert not any((tmp_path / name).exists() for name in outputs)
    with (tmp_path / "hyp.partial").open("a") as stream:
        stream.write('{"utterance": "cut sho')  # as a killed process leaves it
    done = decode(write(feats), "--resume", *options)
    assert (done.status, "2 of them already finished" in done.err) == (0, True), done.err
    assert seen == [*list(feats)[:3], *list(feats)[2:]]
    assert [(tmp_path / name).read_bytes() for name in outputs] == expected
    seen.extend("xx")  # what follows is not stopped
    again = decode(write(feats), "--resume", *options)
    assert f"{len(feats)} of them already finished" in again.err
    assert [(tmp_path / name).read_bytes() for name in outputs] == expected


def test_other_options_or_features_are_not_taken_over(decode, feats, write, tmp_path):
    assert decode(write(feats), "--resume").status == 0
    done = decode(write(feats), "--resume", "--beam=3")
    assert (done.status, "hyp.partial: made with another beam; starting again" in done.err) == (
        0,
        True,
    )
    assert "already finished" not in done.err
    assert decode(write(feats), "--resume").status == 0
    changed = {utt: matrix + (utt == "s0-u1") for utt, matrix in feats.items()}
    done = decode(write(changed), "--resume")
    assert f"{len(feats) - 1} of them already finished" in done.err
    assert decode(write(feats), "--beam=3").status == 0


def test_only_a_file_can_be_gone_on_with(trained, execute, feats, write):
    done = execute("decode_ctc.py", "--resume", trained / "ctc", write(feats), "ark,t:-")
    fails(done, 2, "--resume: hypotheses must go to a file")


# ---- language models -----------------------------------------------------------------------------


@pytest.fixture
def arpa(trained, execute, tmp_path) -> Path:
    text = trained / "toy" / "train" / "text"
    done = execute("make_ngram_lm.py", "--order=2", text, tmp_path / "lm.arpa")
    assert done.status == 0, done.err
    return tmp_path / "lm.arpa"


@pytest.mark.parametrize("kind", KINDS)
def test_an_ngram_is_fused(trained, decode, feats, write, tmp_path, arpa, kind):
    from pipeline.text.ngram import read_arpa
    from pipeline.text.tokens import Tokens

    options = (f"--lm={arpa}", "--lm-weight=0.5", "--insertion-bonus=0.25", "--nbest=4")
    done = decode(write(feats), *options, f"--write-nbest=ark,t:{tmp_path}/nbest", kind=kind)
    assert done.status == 0, done.err
    tokens = Tokens.from_file(trained / kind / "tokens.txt")
    model = read_arpa(arpa, tokens)
    for line in (tmp_path / "nbest").read_text().splitlines():
        _, score, log_prob, _, *symbols = line.split()
        state, added = model.start, 0.0
        for k in tokens.encode(symbols):
            added += 0.5 * model.log_probs[state, k] + 0.25
            state = model.following[state, k]
        added += 0.5 * model.final[state]
        assert float(score) == pytest.approx(float(log_prob) + added, abs=2e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_is_fused(trained, decode, feats, write, tmp_path, kind):
    lm = f"--lm={trained / 'predictor'}"
    nbest = f"--write-nbest=ark,t:{tmp_path}/nbest"
    assert decode(write(feats), lm, "--lm-weight=0.4", nbest, kind=kind).status == 0
    first = (tmp_path / "nbest").read_text().split()
    assert float(first[1]) < float(first[2])
    fails(decode(write(feats), f"--lm={tmp_path}/none", kind=kind), 1, "none")


# ---- bad data ------------------------------------------------------------------------------------


BAD = {
    "nan": (np.full((5, 6), np.nan, np.float32), "frame 0 is not finite"),
    "dimension": (np.zeros((5, 9), np.float32), "features of shape (5, 9), but the model reads 6"),
    "frames": (np.zeros((0, 6), np.float32), ""),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", BAD)
def test_an_utterance_that_fails_is_named_once_and_the_others_decoded(
    decode, feats, write, tmp_path, kind, what
):
    matrix, said = BAD[what]
    table = {"a": feats["s0-u0"], "b": matrix, "c": feats["s0-u1"]}
    done = decode(write(table), f"--write-nbest=ark,t:{tmp_path}/nbest", kind=kind)
    fails(done, 1, f"b: {said}", "Done 2 utterances, 1 failed")
    assert "b: b:" not in done.err
    assert list(read_map(tmp_path / "hyp")) == ["a", "c"]
    assert "b-1" not in (tmp_path / "nbest").read_text()
    permissive = decode(write(table).replace("scp:", "scp,p:"), kind=kind)
    fails(permissive, 0, "b: ", "Done 2 utterances, 1 failed")


def test_a_scp_that_points_nowhere(decode, feats, write, tmp_path):
    rspecifier = write(feats)
    scp = tmp_path / "feats.scp"
    scp.write_text(scp.read_text().replace(f"s0-u1 {tmp_path}/feats.ark", "s0-u1 gone.ark"))
    done = decode(rspecifier)
    fails(done, 1, "gone.ark")
    assert not (tmp_path / "hyp").exists()
    done = decode(rspecifier.replace("scp:", "scp,p:"))
    fails(done, 0, "Done 3 utterances, 1 failed")
    assert list(read_map(tmp_path / "hyp")) == ["s0-u0", "s1-u2", "s1-u3"]


def test_a_table_that_is_missing_or_empty(decode, tmp_path):
    fails(decode(f"scp:{tmp_path}/gone.scp"), 1, "gone.scp")
    (tmp_path / "empty.scp").write_text("")
    fails(decode(f"scp:{tmp_path}/empty.scp"), 1, "nothing was done: no utterances succeeded")


def test_a_table_that_is_cut_off(decode, feats, write, tmp_path):
    write(feats)
    data = (tmp_path / "feats.ark").read_bytes()
    (tmp_path / "feats.ark").write_bytes(data[:-40])
    done = decode(f"ark:{tmp_path}/feats.ark")
    fails(done, 1, "feats.ark", "s1-u3")
    assert [p.name for p in tmp_path.glob("*hyp*")] == ["hyp.partial"]  # for --resume


def test_a_scp_runs_no_command_unless_that_is_allowed(decode, tmp_path, feats, write):
    write(feats)
    (tmp_path / "x.scp").write_text(
        f"u touch {tmp_path}/sign; tail -c +7 {tmp_path}/feats.ark | cat |\n"
    )
    fails(decode(f"scp:{tmp_path}/x.scp"), 1, "--allow-pipes")
    assert not (tmp_path / "sign").exists()


# ---- bad models ----------------------------------------------------------------------------------


def test_no_model(decode, feats, write, tmp_path):
    fails(
        decode(write(feats), model=tmp_path / "gone"), 1, f"{tmp_path}/gone: not a model directory"
    )
    (tmp_path / "half").mkdir()
    done = decode(write(feats), model=tmp_path / "half")
    fails(done, 1, f"{tmp_path}/half: has no readable config.json; train a model")


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_of_another_kind(trained, decode, feats, write, kind):
    for other in {"ctc", "transducer", "predictor"} - {kind}:
        done = decode(write(feats), kind=kind, model=trained / other)
        fails(done, 1, f"{other}: a {other} model; a {kind} model is needed here")


def test_tokens_of_another_model(copy, decode, feats, write):
    path = copy()
    (path / "tokens.txt").write_text("<blk> 0\nx 1\ny 2\nz 3\n")
    fails(decode(write(feats), model=path), 1, "tokens.txt: not the tokens that this model")


@pytest.mark.parametrize("file", ["config.json", "final.safetensors", "cmvn.ark", "tokens.txt"])
def test_a_damaged_file_is_named(copy, decode, feats, write, tmp_path, file):
    path = copy()
    whole = (path / file).read_bytes()
    (path / file).write_bytes(whole[: len(whole) // 2])
    done = decode(write(feats), model=path)
    fails(done, 1, f"{path}/{file}")
    assert not (tmp_path / "hyp").exists()


def test_a_training_that_has_not_finished(copy, decode, feats, write):
    path = copy()
    (path / "final.safetensors").unlink()
    fails(decode(write(feats), model=path), 1, "training has not finished", "to continue it")


# ---- bad usage -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--beam=0", "--beam must be 1 or more, not 0"),
        ("--beam=-1", "--beam must be 1 or more, not -1"),
        ("--beam=wide", "--beam"),
        ("--nbest=0", "--nbest"),
        ("--device=nonsense", "--device must be one of cpu, cuda, auto"),
        ("--write-nbest=nowhere", "nowhere"),
        ("--nonsense", "--nonsense"),
    ],
)
def test_an_option_that_is_wrong(decode, feats, write, tmp_path, kind, option, said):
    fails(decode(write(feats), option, kind=kind), 2, said)
    assert not (tmp_path / "hyp").exists()


def test_a_device_that_is_not_there(decode, feats, write, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    fails(decode(write(feats), "--device=cuda"), 2, "--device=cuda: torch sees no CUDA device")
    assert decode(write(feats), "--device=auto").status == 0


def test_a_specifier_that_is_wrong(decode, execute, trained, feats, write, tmp_path):
    fails(decode("feats.scp"), 2, "feats.scp")
    fails(execute("decode_ctc.py", trained / "ctc", write(feats), "hyp.txt"), 2, "hyp.txt")
    fails(execute("decode_ctc.py", trained / "ctc", write(feats)), 2, "Missing argument")


def test_a_config_file(decode, feats, write, tmp_path):
    (tmp_path / "decode.conf").write_text("--beam=0\n")
    fails(decode(write(feats), f"--config={tmp_path}/decode.conf"), 2, "--beam must be 1 or more")
    assert decode(write(feats), f"--config={tmp_path}/decode.conf", "--beam=2").status == 0


@pytest.mark.parametrize("symbols", ["<space> b c", "a <space> c", "a b c"])
def test_a_ctm_has_the_words_of_the_hypotheses(execute, trained, tmp_path, symbols) -> None:
    model, feats = tmp_path / "model", trained / "toy" / "dev" / "feats.scp"
    shutil.copytree(trained / "ctc", model)
    rows = enumerate(["<blk>", *symbols.split()])
    (model / "tokens.txt").write_text("".join(f"{s} {n}\n" for n, s in rows))
    config = unsealed((model / "config.json").read_text())
    del config["options"]["tokens_sha256"]
    (model / "config.json").write_text(json.dumps(config))
    options = (f"--write-ctm={tmp_path}/ctm", f"--write-token-ctm={tmp_path}/tokens")
    done = execute(
        "decode_ctc.py", "--device=cpu", *options, model, f"scp:{feats}", f"ark,t:{tmp_path}/hyp"
    )
    assert done.status == 0, done.err
    texts, spelt = defaultdict(list), defaultdict(list)
    for name, found in (("ctm", texts), ("tokens", spelt)):
        for line in (tmp_path / name).read_text().splitlines():
            utt, _, start, duration, symbol, confidence = line.split()
            found[utt].append((symbol, float(start), float(duration), float(confidence)))
    for line in (tmp_path / "hyp").read_text().splitlines():
        utt, *words = line.split()
        assert [word for word, *_ in texts[utt]] == words
        joined = "".join(token for token, *_ in spelt[utt]).replace("<space>", " ").split()
        assert joined == (words if "<space>" in symbols else ["".join(words)])
        for (_, start, duration, _), (_, after, *_) in pairwise(texts[utt]):
            assert start + duration <= after + 1e-3
