"""One file of every kind that a command reads, with the command that reads it."""

import math
import os
import shutil
import struct
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from trials import ROOT, Ending

sys.path.append(str(ROOT / "tests"))
from conftest import make_toy_corpus

RATE = 16000
MAP = "a\ta\ta\nb\tb\tb\nc\tc\tc\nsil\tsil\tsil\n"
TRN = "a b (s0-u0)\nc (s0-u1)\n"
CTM = "s0-u0 1 0.00 0.10 a\ns0-u0 1 0.10 0.10 b\ns0-u1 1 0.00 0.20 c\n"
TRAIN = ("--epochs=1", "--batch-size=4", "--optimizer=adam", "--learning-rate=0.01")
Run = Callable[..., Ending]


@dataclass(frozen=True)
class Specimen:
    """A command that works, and the files that it reads, by their paths in the folder.

    ``known_by`` are further names by which a message may call the file: what stands in for it.
    """

    program: str
    arguments: tuple[str, ...]
    files: tuple[str, ...]
    known_by: tuple[str, ...] = ()
    trusted_for: str = (
        ""  # what is made of a file that a later step trusts; "said": what is printed
    )

    def made(self, folder: Path, ending: Ending) -> bytes:
        """What the command has made of a file that it trusts."""
        if self.trusted_for == "said":
            return ending.said.encode()
        path = folder / self.trusted_for
        return path.read_bytes() if path.is_file() else b""


def sphere(samples: np.ndarray) -> bytes:
    """A NIST SPHERE file of 16-bit samples."""
    head = (
        "NIST_1A\n   1024\n"
        f"sample_count -i {len(samples)}\nsample_rate -i {RATE}\nchannel_count -i 1\n"
        "sample_n_bytes -i 2\nsample_byte_format -s2 01\nsample_coding -s3 pcm\nend_head\n"
    )
    return head.encode().ljust(1024) + samples.astype("<i2").tobytes()


def make_specimens(folder: Path, run: Run) -> dict[Specimen, bytes]:
    """Fill a folder with all files, by commands of ours where they make them.

    Returns:
        The specimens, each with what it makes of undamaged files that it trusts.
    """

    def ours(program: str, *arguments: str) -> None:
        done = run(program, *arguments, folder=folder)
        if done.status != 0:
            raise RuntimeError(f"{program} {' '.join(arguments)}: {done.status}\n{done.said}")

    os.chdir(folder)
    make_toy_corpus(folder)
    for name in ("train", "dev"):  # paths in scp files that are right in every copy
        scp = folder / name / "feats.scp"
        scp.write_text(scp.read_text().replace(f"{folder}/", ""))
        by_speaker = "s0 s0-u0 s0-u1\ns1 s1-u2 s1-u3\n"
        (folder / name / "spk2utt").write_text(by_speaker)
    small = (folder / "model.toml").read_text().replace("16", "4").replace("sum", "tanh")
    (folder / "model.toml").write_text(small + "dim = 4\n")
    _write_audio(folder)
    _write_texts(folder)
    files = ("model.toml", "tokens.txt", "train", "dev")
    ours("train_ctc.py", *TRAIN, *files, "ctc")
    ours("train_predictor.py", *TRAIN, *files, "predictor")
    ours("train_transducer.py", *TRAIN, *files, "transducer")
    ours("train_ctc.py", *TRAIN, "--keep-epochs=1", "--cmvn=none", *files, "kept")
    ours("make_ngram_lm.py", "--order=2", "train/text", "lm.arpa")
    ours("train_tokenizer.py", "--kind=bpe", "--vocab-size=9", "ark:words", "bpe/tokens.txt")
    ours("train_tokenizer.py", "--kind=chars", "ark:words", "chars/tokens.txt")
    _make_more(folder, ours)
    decode = ("--resume", "--write-ctm=dec/hyp.ctm", "--nbest=2", "ctc", "scp:dev/feats.scp")
    (folder / "dec").mkdir()
    ours("decode_ctc.py", *decode, "ark,t:dec/hyp.txt")
    ours("score.py", "--replications=10", "dev", "dec")
    ours("align_text.py", "ark:dev/text", "ark:dec/hyp.txt", "ark,t:alignments")
    ours("copy_feats.py", "--compress=true", "scp:dev/feats.scp", "ark:compressed.ark")
    ours("copy_feats.py", "scp:dev/feats.scp", "ark,t:text.ark")
    made = {}
    for specimen in _specimens(decode):  # each works as long as nothing is damaged
        with tempfile.TemporaryDirectory() as place:
            copy = shutil.copytree(folder, Path(place) / "copy", symlinks=True)
            done = run(specimen.program, *specimen.arguments, folder=copy)
            made[specimen] = specimen.made(copy, done)
        if done.status != 0:
            raise RuntimeError(f"{specimen}: {done.status}\n{done.said}")
    return made


def _make_more(folder: Path, ours: Callable[..., None]) -> None:
    """Frame-wise networks and alignments, a network that reads streams, one that spells words."""
    uni = (folder / "model.toml").read_text().replace("[encoder]", "[encoder]\nbidirectional=false")
    (folder / "uni.toml").write_text(uni)
    shutil.copytree(folder / "train", folder / "spelt")
    spelt = "s0-u0 ab c\ns0-u1 cab\ns1-u2 a ba\ns1-u3 b\n"
    (folder / "spelt" / "text").write_text(spelt)
    (folder / "times.ctm").write_text(CTM + "s1-u2 1 0 0.3 b\ns1-u3 1 0 0.2 a\n")
    for name in ("train", "dev"):
        to = f"ark,scp:{name}/ali.ark,{name}/ali.scp"
        ours("align_tokens.py", "ctc", f"scp:{name}/feats.scp", f"ark:{name}/text", to)
    ours("train_framewise.py", *TRAIN, "uni.toml", "tokens.txt", "train", "dev", "framewise")
    ours("train_ctc.py", *TRAIN, "uni.toml", "chars/tokens.txt", "spelt", "spelt", "letters")
    ours("make_ngram_lm.py", "--order=2", "--unk", "spelt/text", "words.arpa")


def _write_audio(folder: Path) -> None:
    tone = (8000 * np.sin(np.arange(RATE // 2) * 2 * math.pi * 440 / RATE)).astype(np.int16)
    audio = folder / "audio"
    audio.mkdir()
    for name, subtype in (("a.wav", "PCM_16"), ("a24.wav", "PCM_24"), ("af.wav", "FLOAT")):
        soundfile.write(audio / name, tone, RATE, subtype=subtype)
    for name in ("a.flac", "a.aiff", "a.ogg", "a.au"):
        soundfile.write(audio / name, tone, RATE)
    (audio / "a.sph").write_bytes(sphere(tone))
    raw = (audio / "a.wav").read_bytes()
    (audio / "stream.wav").write_bytes(raw[:40] + struct.pack("<I", 0x7FFFF000) + raw[44:])
    data = folder / "recorded"
    data.mkdir()
    (data / "wav.scp").write_text("s0 audio/a.wav\ns1 audio/a.sph\n")
    (data / "segments").write_text("s0-u0 s0 0.0 0.3\ns0-u1 s0 0.2 0.5\ns1-u0 s1 0 0.5\n")
    (data / "text").write_text("s0-u0 a b\ns0-u1 c\ns1-u0 a\n")
    (data / "utt2spk").write_text("s0-u0 s0\ns0-u1 s0\ns1-u0 s1\n")
    (data / "spk2utt").write_text("s0 s0-u0 s0-u1\ns1 s1-u0\n")
    (data / "spk2gender").write_text("s0 m\ns1 f\n")


def _write_texts(folder: Path) -> None:
    (folder / "map").write_text(MAP)
    (folder / "spoken").mkdir()
    (folder / "spoken" / "text").write_text("s0-u0 abab cab\ns0-u1 cabba bac\n")
    (folder / "spoken" / "utt2spk").write_text("s0-u0 s0\ns0-u1 s0\n")
    (folder / "words").write_text("u0 abab cab\nu1 cabba bac\nu2 bac abab\n")
    (folder / "fbank.conf").write_text("--num-mel-bins=5\n--use-energy=true\n--dither=0\n")
    (folder / "mfcc.conf").write_text("--num-ceps=5\n--num-mel-bins=8\n--dither=0\n")
    (folder / "delta.conf").write_text("--delta-order=1\n--delta-window=2\n")
    (folder / "train.conf").write_text("\n".join((*TRAIN, "--seed=3", "--momentum=0.5")) + "\n")
    (folder / "slurm.conf").write_text(
        "command sbatch --export=PATH\noption mem=* --mem=$0\ndefault gpu=0\noption gpu=0\n"
        "option gpu=* --gres=gpu:$0\noption num_threads=* --cpus-per-task=$0\n"
    )
    for name in ("bpe", "chars", "programs"):
        (folder / name).mkdir()
    stand_in = ROOT / "tests" / "utils" / "fake_slurm.py"
    for name in ("sbatch", "squeue", "scancel"):
        program = folder / "programs" / name
        program.write_text(stand_in.read_text().replace("__file__", repr(str(stand_in))))
        program.chmod(0o755)
    (folder / "fake").mkdir()


def _specimens(decode: tuple[str, ...]) -> list[Specimen]:
    train = ("model.toml", "tokens.txt", "train", "dev")
    text = ("text", "utt2spk", "feats.scp", "utt2num_frames", "cmvn.ark", "feats.ark")
    model = ("config.json", "tokens.txt", "cmvn.ark", "front_end/fbank.conf")
    recorded = tuple(
        f"recorded/{name}" for name in ("wav.scp", "segments", "text", "utt2spk", "spk2utt",
                                        "spk2gender")
    )  # fmt: skip
    sounds = ("a.wav", "a24.wav", "af.wav", "a.flac", "a.aiff", "a.ogg", "a.au", "a.sph",
              "stream.wav")  # fmt: skip
    return [
        Specimen("train_ctc.py", (*TRAIN, *train, "new"),
                 ("model.toml", "tokens.txt", *(f"train/{name}" for name in text),
                  "train/conf/fbank.conf", "dev/text", "dev/feats.scp"),
                 ("s0-u", "s1-u", "feats.ark", "train/conf: ")),
        Specimen("train_ctc.py", ("--config=train.conf", *train, "new"), ("train.conf",)),
        Specimen("train_ctc.py", ("--phone-map=map", *TRAIN, *train, "new"), ("map",)),
        Specimen("train_ctc.py", ("--init=kept", *TRAIN, *train, "new"),
                 ("kept/final.safetensors",), trusted_for="new/final.safetensors"),
        Specimen("train_transducer.py",
                 ("--init-ctc=ctc", "--init-predictor=predictor", *TRAIN, *train, "new"),
                 ("predictor/final.safetensors", "ctc/final.safetensors"),
                 trusted_for="new/final.safetensors"),
        Specimen("train_ctc.py", (*TRAIN[1:], "--epochs=2", *train, "ctc"),
                 ("ctc/checkpoints/last.pt", "ctc/metrics.jsonl"),
                 trusted_for="ctc/final.safetensors"),
        Specimen("train_predictor.py", (*TRAIN, *train, "new"), ("train/text",), ("s0-u", "s1-u")),
        Specimen("train_framewise.py",
                 ("--streams=2", *TRAIN, "uni.toml", *train[1:], "new"),
                 ("uni.toml", "train/ali.scp", "train/ali.ark", "dev/ali.scp", "train/feats.scp"),
                 ("s0-u", "s1-u", "ali.ark")),
        Specimen("align_tokens.py", ("ctc", "scp:dev/feats.scp", "ark:dev/text", "ark,t:out"),
                 ("dev/text", "dev/feats.scp", "ctc/tokens.txt"), ("s0-u", "s1-u", "ctc/")),
        Specimen("ctm_to_ali.py", ("tokens.txt", "times.ctm", "dev/utt2num_frames", "ark,t:out"),
                 ("times.ctm", "dev/utt2num_frames", "tokens.txt"), ("s0-u", "s1-u")),
        Specimen("decode_framewise.py",
                 ("--lm=lm.arpa", "framewise", "scp:dev/feats.scp", "ark,t:hyp"),
                 ("lm.arpa", *(f"framewise/{name}" for name in model)), ("framewise/tokens.txt",)),
        Specimen("decode_ctc.py",
                 ("--word-lm=words.arpa", "letters", "scp:dev/feats.scp", "ark,t:hyp"),
                 ("words.arpa", "letters/tokens.txt")),
        Specimen("recognize.py", ("--stream", "letters", "audio/a.wav"),
                 ("audio/a.wav", "letters/config.json"), ("letters",)),
        Specimen("show_model.py", ("--json", "ctc"), ("ctc/config.json", "ctc/tokens.txt")),
        Specimen("show_model.py", ("--num-tokens=4", "model.toml"), ("model.toml",)),
        Specimen("average_models.py", ("--last=1", "kept", "new"),
                 ("kept/checkpoints/epoch-0001.safetensors",),
                 trusted_for="new/final.safetensors"),
        Specimen("decode_ctc.py", ("ctc", "scp:dev/feats.scp", "ark,t:hyp"),
                 tuple(f"ctc/{name}" for name in model), ("ctc/tokens.txt",)),
        Specimen("decode_ctc.py", ("ctc", "scp:dev/feats.scp", "ark,t:hyp"),
                 ("ctc/final.safetensors",), trusted_for="hyp"),
        Specimen("decode_ctc.py", (*decode, "ark,t:dec/hyp.txt"), ("dec/hyp.txt.partial",),
                 trusted_for="dec/hyp.txt"),
        Specimen("decode_ctc.py", ("--lm=lm.arpa", "ctc", "scp:dev/feats.scp", "ark,t:hyp"),
                 ("lm.arpa",)),
        Specimen("decode_transducer.py",
                 ("--beam=2", "transducer", "scp:dev/feats.scp", "ark,t:hyp"),
                 tuple(f"transducer/{name}" for name in model), ("transducer/tokens.txt",)),
        Specimen("decode_transducer.py",
                 ("--beam=2", "transducer", "scp:dev/feats.scp", "ark,t:hyp"),
                 ("transducer/final.safetensors",), trusted_for="hyp"),
        Specimen("recognize.py", ("ctc", *(f"audio/{name}" for name in sounds)),
                 (*(f"audio/{name}" for name in sounds), "ctc/front_end/fbank.conf"),
                 ("ctc/front_end: ",)),
        *(Specimen("compute_fbank_feats.py",
                   ("--config=fbank.conf", "scp:recorded/wav.scp", "ark,t:out"),
                   ("recorded/wav.scp", "fbank.conf", "audio/a.wav", "audio/a.sph"), ("s0", "s1"))
          for _ in range(2)),
        Specimen("compute_mfcc_feats.py",
                 ("--config=mfcc.conf", "scp:recorded/wav.scp", "ark:out"), ("mfcc.conf",)),
        Specimen("extract_segments.py", ("scp:recorded/wav.scp", "recorded/segments", "ark:out"),
                 ("recorded/segments", "recorded/wav.scp"), ("s0", "s1")),
        Specimen("copy_feats.py", ("ark:dev/feats.ark", "ark:out"), ("dev/feats.ark",)),
        Specimen("copy_feats.py", ("scp:dev/feats.scp", "ark,t:out"),
                 ("dev/feats.scp", "dev/feats.ark"), ("s0-u", "s1-u")),
        Specimen("copy_feats.py", ("ark:compressed.ark", "ark,t:out"), ("compressed.ark",)),
        Specimen("copy_feats.py", ("ark:text.ark", "ark:out"), ("text.ark",)),
        Specimen("feat_to_len.py", ("scp:dev/feats.scp", "ark,t:out"), ("dev/feats.ark",)),
        Specimen("add_deltas.py", ("--config=delta.conf", "scp:dev/feats.scp", "ark:out"),
                 ("delta.conf",)),
        Specimen("apply_cmvn.py", ("train/cmvn.ark", "scp:dev/feats.scp", "ark:out"),
                 ("train/cmvn.ark",)),
        Specimen("compute_cmvn_stats.py", ("scp:dev/feats.scp", "out"), ("dev/feats.scp",)),
        Specimen("map_phones.py", ("map", "ark:dev/text", "ark:out"), ("map", "dev/text"),
                 ("s0-u", "s1-u")),
        Specimen("train_tokenizer.py", ("--phone-map=map", "ark:dev/text", "out"),
                 ("map", "dev/text")),
        Specimen("train_tokenizer.py", ("--kind=bpe", "--vocab-size=9", "ark:words", "out"),
                 ("words",)),
        Specimen("train_predictor.py",
                 (*TRAIN, "model.toml", "bpe/tokens.txt", "spoken", "spoken", "new"),
                 ("bpe/tokens.txt", "bpe/tokens.model"), ("spoken",)),
        Specimen("score.py", ("--replications=10", "dev", "dec"),
                 ("dev/text", "dev/utt2spk", "dec/hyp.txt", "dec/hyp.ctm"), ("dec/hyp.txt",)),
        Specimen("score.py", ("--map=map", "--replications=10", "dev", "dec"), ("map",)),
        Specimen("print_scores.py", ("dec",), ("dec/scoring/score.json",), trusted_for="said"),
        Specimen("print_results.py", ("ctc=ctc",), ("ctc/config.json",)),
        Specimen("compute_wer.py", ("--text", "ark:dev/text", "ark:dec/hyp.txt"),
                 ("dev/text", "dec/hyp.txt"), ("dec/hyp.txt",)),
        Specimen("compute_wer_bootci.py", ("ark:dev/text", "ark:dec/hyp.txt"), ("dec/hyp.txt",)),
        Specimen("compare_wer.py", ("--utt2spk=ark:dev/utt2spk", "ark:dev/text", "ark:dec/hyp.txt",
                                    "ark:dev/text"), ("dev/utt2spk", "dec/hyp.txt")),
        Specimen("plot_confusions.py", ("alignments", "out.svg"), ("alignments",)),
        Specimen("plot_training.py", ("ctc", "out.svg"), ("ctc/metrics.jsonl",),
                 trusted_for="out.svg"),
        Specimen("make_ngram_lm.py", ("--order=2", "train/text", "out"), ("train/text",)),
        *(Specimen(program, (*arguments,), recorded, ("recorded: ",))
          for program, *arguments in (
              ("validate_data_dir.py", "--no-feats", "recorded"),
              ("fix_data_dir.py", "recorded"),
              ("split_data.py", "recorded", "2"),
              ("subset_data_dir.py", "--first", "recorded", "2", "out"),
              ("combine_data.py", "out", "recorded"),
          )),
        Specimen("validate_data_dir.py", ("--no-wav", "train"),
                 tuple(f"train/{name}" for name in text)),
        Specimen("utt2spk_to_spk2utt.py", ("recorded/utt2spk",), ("recorded/utt2spk",)),
        Specimen("spk2utt_to_utt2spk.py", ("recorded/spk2utt",), ("recorded/spk2utt",)),
        Specimen("slurm.py", ("--config", "slurm.conf", "JOB=1:2", "log.JOB", "true"),
                 ("slurm.conf",)),
    ]  # fmt: skip
