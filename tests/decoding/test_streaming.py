"""However a recording is cut, streaming recognition gives what the whole recording does."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.decoding.decode_options import AnySearchOptions
from pipeline.decoding.recogniser import Recognition
from pipeline.decoding.streaming import Stream, StreamingRecogniser
from pipeline.errors import AudioError, FeatureError, ModelError, UsageError

from .conftest import RATE, noise

torch.set_num_threads(1)

ARPA = r"""\data\
ngram 1=6
ngram 2=2

\1-grams:
-99 <s> -0.2
-0.9 </s>
-0.5 a -0.3
-0.7 b
-0.8 c
-1.1 d

\2-grams:
-0.2 <s> b
-0.4 a c

\end\
"""

WORDS = r"""\data\
ngram 1=6
ngram 2=2

\1-grams:
-99 <s> -0.2
-0.9 </s>
-1.5 <unk>
-0.5 ab -0.3
-0.7 c
-0.8 ba

\2-grams:
-0.2 <s> ba
-0.4 ab c

\end\
"""
DEEP_SPEECH_2 = {
    "front_end": "spectrogram",
    "encoder_kind": "deep_speech2",
    "channels": [3, 4],
    "time_kernels": [5, 3],
    "time_strides": [2, 1],
    "freq_kernels": [7, 5],
    "freq_strides": [2, 2],
    "lookahead": 3,
    "scale": 0.4,
}

# Each: the model, and the options of the search.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "CTC, beam, deltas": ({"delta": "--delta-order=2\n"}, {"beam": 4}),
    "CTC, beam, LM": (
        {"conf": "--snip-edges=false\n"},
        {"beam": 3, "lm": "arpa", "lm_weight": 0.5},
    ),
    "CTC, beam, LM of words": (
        {"symbols": "<space> a b c"},
        {"beam": 5, "word_lm": "arpa", "word_bonus": 0.3, "token_mass": 0.99, "max_tokens": 3},
    ),
    "CTC, beam, Deep Speech 2": (DEEP_SPEECH_2, {"beam": 4}),
    "transducer, greedy, Deep Speech 2 of GRUs": (
        {**DEEP_SPEECH_2, "kind": "transducer", "cell": "gru"},
        {"beam": 1},
    ),
    "CTC, greedy, frames stacked": (
        {"front_end": "mfcc", "cell": "tanh", "stack_frames": 3},
        {"beam": 1},
    ),
    "transducer, beam, LSTMP": (
        {"kind": "transducer", "front_end": "spectrogram", "projection": 4},
        {"beam": 4, "length_normalise": True},
    ),
    "transducer, beam, LM": (
        {"kind": "transducer", "delta": "--delta-order=1\n", "cmvn": None, "conf": "--dither=1\n"},
        {"beam": 3, "lm": "arpa", "insertion_bonus": 0.2},
    ),
    "transducer, beam, LM that is a network": (
        {"kind": "transducer"},
        {"beam": 3, "lm": "network", "lm_weight": 0.4},
    ),
    "transducer, greedy": (
        {"kind": "transducer", "front_end": "mfcc", "stack_frames": 2},
        {"beam": 1, "max_tokens_per_frame": 2},
    ),
}


@pytest.fixture
def recogniser(
    make_model: Callable[..., Path], tmp_path: Path
) -> Callable[..., StreamingRecogniser]:
    def make(case: str, *, seed: int = 0) -> StreamingRecogniser:
        model, options = CASES[case]
        if options.get("lm") == "arpa":
            (tmp_path / "lm.arpa").write_text(ARPA)
            options = {**options, "lm": str(tmp_path / "lm.arpa")}
        if "word_lm" in options:
            (tmp_path / "words.arpa").write_text(WORDS)
            options = {**options, "word_lm": str(tmp_path / "words.arpa")}
        if options.get("lm") == "network":
            options = {**options, "lm": str(make_model("predictor", seed=seed))}
        path = make_model(seed=seed, **model)
        return StreamingRecogniser(path, options=AnySearchOptions(**options))

    return make


def random_cut(samples: np.ndarray, g: np.random.Generator) -> Iterator[np.ndarray]:
    """Chunks of random sizes, some of them empty, some of one sample, some long."""
    most, at = int(g.choice([3, 60, 300, 3000])), 0
    while at < len(samples):
        size = int(g.integers(0, most + 1))
        yield samples[at : at + size]
        at += size


def streamed(
    recogniser: StreamingRecogniser, chunks: Iterator[np.ndarray], rate: int = RATE, **options: Any
) -> Recognition:
    """The final result; on the way what is settled may not change."""
    stream, settled = recogniser.start(rate, **options), ()
    for chunk in chunks:
        stream.accept_waveform(chunk)
        recogniser.advance([stream])
        assert not stream.is_ready
        partial = stream.partial_result()
        assert partial.tokens[: len(settled)] == settled
        settled = partial.tokens[: partial.settled]
    found = stream.finish()
    assert all(hyp.tokens[: len(settled)] == settled for hyp in found.hyps)
    return found


def compare(recogniser: StreamingRecogniser, cuts: int, seed: int) -> None:
    g = np.random.default_rng(seed)
    for number in range(cuts):
        count = int(g.integers(300, 5000))
        samples = noise(count, seed=int(g.integers(1000)))
        whole = recogniser.recognise_samples(samples, RATE)
        assert streamed(recogniser, random_cut(samples, g)) == whole, f"cut {number}"


@pytest.mark.parametrize("case", CASES)
def test_any_cut_gives_the_whole_recordings_hypotheses_to_the_last_bit(recogniser, case) -> None:
    model = recogniser(case)
    samples = noise(2500, seed=1)
    whole = model.recognise_samples(samples, RATE)
    assert whole.hyps[0].tokens
    assert streamed(model, iter([samples])) == whole
    assert (
        streamed(model, iter([samples[:0], samples[:2000], samples[:0], samples[2000:]])) == whole
    )
    compare(model, 5, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_two_hundred_random_cuts(recogniser, case) -> None:
    for seed in range(4):
        compare(recogniser(case, seed=seed), 50, seed=seed)


@pytest.mark.parametrize("case", ["CTC, beam, deltas", "transducer, greedy"])
def test_one_sample_at_a_time(recogniser, case) -> None:
    model, samples = recogniser(case), noise(700, seed=2)
    chunks = (samples[n : n + 1] for n in range(len(samples)))
    assert streamed(model, chunks) == model.recognise_samples(samples, RATE)


@pytest.mark.parametrize("case", CASES)
def test_streams_advanced_together_are_those_advanced_alone(recogniser, case) -> None:
    model, g = recogniser(case), np.random.default_rng(3)
    recordings = [noise(int(g.integers(400, 3000)), seed=n) for n in range(5)]
    chunks = [random_cut(one, g) for one in recordings]
    streams = [model.start() for _ in recordings]
    going = set(range(5))
    while going:
        for n in list(going):
            chunk = next(chunks[n], None)
            if chunk is None:
                streams[n].input_finished()
                going.discard(n)
            else:
                streams[n].accept_waveform(chunk)
        model.advance(streams)
    assert not any(stream.is_ready for stream in streams)
    for stream, samples in zip(streams, recordings, strict=True):
        assert stream.finish() == model.recognise_samples(samples, RATE)
        assert stream.finish() == stream.finish()


@pytest.mark.parametrize("case", CASES)
def test_spans_are_those_of_the_whole_recording(recogniser, case) -> None:
    model, samples = recogniser(case), noise(3000, seed=4)
    feats = model.front_end(samples, RATE)
    whole = model.recognise("u", feats, with_spans=True)
    g = np.random.default_rng(4)
    assert streamed(model, random_cut(samples, g), with_spans=True) == whole
    assert len(whole.spans) == len(whole.hyps[0].tokens)


@pytest.mark.parametrize("how", ["soxr", "linear"])
@pytest.mark.parametrize("rate", [11025, 16000])
def test_another_rate_is_resampled_as_in_a_whole_recording(make_model, how: str, rate: int) -> None:
    conf = "--allow-downsample=true\n" if how == "linear" else ""
    model = StreamingRecogniser(make_model(conf=conf))
    samples, g = noise(6000, seed=5), np.random.default_rng(5)
    feats = model.front_end(samples, rate, resampled=True)
    whole = model.recognise("u", feats)
    for _ in range(3):
        assert streamed(model, random_cut(samples, g), rate, resampled=True) == whole


def test_samples_may_come_while_another_thread_advances(recogniser) -> None:
    model, samples = recogniser("CTC, beam, deltas"), noise(20_000, seed=6)
    stream, done = model.start(), threading.Event()

    def advance() -> None:
        while not done.is_set() or stream.is_ready:
            model.advance([stream])

    worker = threading.Thread(target=advance)
    worker.start()
    for first in range(0, len(samples), 97):
        stream.accept_waveform(samples[first : first + 97])
    stream.input_finished()
    done.set()
    worker.join()
    assert stream.finish() == model.recognise_samples(samples, RATE)


def test_the_look_ahead_is_that_of_frame_deltas_and_stack(make_model) -> None:
    plain = StreamingRecogniser(make_model())
    assert plain.look_ahead() == (25.0, 0.0, 0.0)
    path = make_model(seed=1, delta="--delta-order=2\n", stack_frames=3)
    look_ahead = StreamingRecogniser(path).look_ahead()
    assert look_ahead == (25.0, 40.0, 20.0)
    assert look_ahead.total_ms == 85.0


# ---- ten minutes ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("case", ["CTC, beam, deltas", "transducer, beam, LSTMP"])
def test_time_and_memory_of_a_chunk_do_not_grow_in_ten_minutes(recogniser, case) -> None:
    import tracemalloc

    model = recogniser(case)
    stream, times, sizes = model.start(), [], []
    one_second = [noise(RATE, seed=seed) for seed in range(40)]
    g = np.random.default_rng(7)
    tracemalloc.start()
    for second in range(600):
        samples = one_second[int(g.integers(40))]
        begin = time.process_time()
        for chunk in np.split(samples, 10):
            stream.accept_waveform(chunk)
            model.advance([stream])
            stream.partial_result()
        times.append(time.process_time() - begin)
        if second % 60 == 59:
            sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    tokens = len(stream.partial_result().tokens)
    assert tokens > 1000
    assert np.median(times[-60:]) < 1.5 * np.median(times[5:65])
    assert sizes[-1] - sizes[0] < 1e6 + 200 * tokens


# ---- what is refused -----------------------------------------------------------------------------


def test_a_bidirectional_model_says_what_can(make_model) -> None:
    path = make_model(bidirectional=True)
    problem = "cannot read a stream: its layers read each utterance in both directions"
    with pytest.raises(ModelError, match=problem) as caught:
        StreamingRecogniser(path)
    assert "bidirectional = false" in str(caught.value)
    assert "Deep Speech 2 with row convolution" in str(caught.value)


def test_statistics_of_a_speaker_and_a_mean_of_the_utterance(make_model) -> None:
    with pytest.raises(ModelError, match=r"statistics of the speaker .*--cmvn=global"):
        StreamingRecogniser(make_model(cmvn="speaker"))
    with pytest.raises(FeatureError, match="--subtract-mean=true, the mean of a whole utterance"):
        StreamingRecogniser(make_model(seed=1, conf="--subtract-mean=true\n"))


def test_searches_that_need_whole_utterances(make_model) -> None:
    path = make_model()
    with pytest.raises(UsageError, match="--prefix-search reads whole utterances; use a beam"):
        StreamingRecogniser(path, options=AnySearchOptions(prefix_search=True))
    network = make_model("predictor")
    problem = "predictor-fbank: a language model that is a network cannot read streams with CTC"
    with pytest.raises(UsageError, match=problem):
        StreamingRecogniser(path, options=AnySearchOptions(lm=str(network)))


def test_another_rate_is_refused_when_a_stream_starts(make_model) -> None:
    model = StreamingRecogniser(make_model())
    with pytest.raises(
        AudioError, match=r"mic 1: has a sample rate of 16000 Hz, but the model 8000"
    ):
        model.start(16000, name="mic 1")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_not_numbers(make_model, value: float) -> None:
    stream = StreamingRecogniser(make_model()).start(name="mic 1")
    with pytest.raises(AudioError, match="mic 1: holds NaN or infinite samples"):
        stream.accept_waveform(np.array([0.0, value], np.float32))


def test_samples_of_two_channels(make_model) -> None:
    stream = StreamingRecogniser(make_model()).start()
    with pytest.raises(AudioError, match=r"shape \(2, 3\); give one channel"):
        stream.accept_waveform(np.zeros((2, 3), np.float32))


def test_samples_after_the_end(make_model) -> None:
    stream = StreamingRecogniser(make_model()).start()
    stream.accept_waveform(noise(400, seed=1))
    stream.finish()
    with pytest.raises(UsageError, match="the stream has ended; start another"):
        stream.accept_waveform(noise(400, seed=1))


def test_a_stream_of_another_recogniser(make_model) -> None:
    path = make_model()
    stream = StreamingRecogniser(path).start(name="call 7")
    with pytest.raises(UsageError, match="call 7: another recogniser made this stream"):
        StreamingRecogniser(path).advance([stream])


def test_a_stream_that_is_named_twice_is_advanced_once(make_model) -> None:
    recogniser = StreamingRecogniser(make_model())
    samples = np.random.default_rng(0).normal(0, 3000, 8000).astype(np.float32)
    results = []
    for times in (1, 2):
        stream = recogniser.start()
        for chunk in np.array_split(samples, 5):
            stream.accept_waveform(chunk)
            recogniser.advance([stream] * times)
        results.append(stream.finish())
    assert results[0] == results[1]


def test_a_stream_shorter_than_a_frame(make_model) -> None:
    model = StreamingRecogniser(make_model())
    stream = model.start()
    stream.accept_waveform(noise(50, seed=1))
    with pytest.raises(FeatureError) as of_stream:
        stream.finish()
    with pytest.raises(FeatureError) as of_whole:
        model.recognise_samples(noise(50, seed=1), RATE)
    assert str(of_stream.value) == str(of_whole.value)


def test_a_recogniser_keeps_nothing_of_its_streams(make_model) -> None:
    model = StreamingRecogniser(make_model())
    before = {name: id(value) for name, value in vars(model).items()}
    stream: Stream = model.start()
    stream.accept_waveform(noise(2000, seed=1))
    model.advance([stream])
    assert {name: id(value) for name, value in vars(model).items()} == before


def test_the_pages_program_runs(make_model, tmp_path, monkeypatch, capsys) -> None:
    import soundfile

    page = (Path(__file__).resolve().parents[2] / "docs" / "streaming.md").read_text("utf-8")
    program = page.partition("```python\n")[2].partition("```")[0]
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp" / "lstm").symlink_to(make_model())
    soundfile.write(tmp_path / "a.wav", noise(4000, seed=1) / 32768.0, RATE)
    monkeypatch.chdir(tmp_path)
    exec(compile(program, "docs/streaming.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 21
    assert len(lines[-1]) > 5
