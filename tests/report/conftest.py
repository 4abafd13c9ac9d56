"""Two systems with made-up scores on a made-up set, and a browser that shows pages."""

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.frontend.audio import wave_bytes

EPS = "<eps>"
BAD = "<script>alert(1)</script>"
Pairs = list[tuple[str, str]]

# What the two systems make of each utterance: reference and hypothesis, token by token.
ALIGNED: dict[str, list[Pairs]] = {
    "amy-1": [[("a", "a"), ("b", "c"), ("c", EPS)], [("a", "a"), ("b", "b"), ("c", "c")]],
    "amy-2": [[("a", "a"), (EPS, "b"), ("c", "c")], [("a", EPS), (EPS, "b"), ("c", "c")]],
    "bob-1": [[(t, t) for t in "abcabc"], [(t, t) for t in "abcabc"]],
    "bob-2": [[("b", BAD), ("c", "c")], [("b", "c"), ("c", "c")]],
}


def tally(pairs: list[Pairs]) -> dict[str, object]:
    """Counts of utterances as score.json has them."""
    steps = [pair for one in pairs for pair in one]
    ins = sum(ref == EPS for ref, _ in steps)
    del_ = sum(hyp == EPS for _, hyp in steps)
    sub = sum(ref != hyp and EPS not in (ref, hyp) for ref, hyp in steps)
    tokens, errors = len(steps) - ins, ins + del_ + sub
    wrong = sum(any(ref != hyp for ref, hyp in one) for one in pairs)
    return {
        "ref_tokens": tokens,
        "hyp_tokens": tokens - del_ + ins,
        "cor": tokens - del_ - sub,
        "ins": ins,
        "del": del_,
        "sub": sub,
        "errors": errors,
        "error_rate": 100.0 * errors / tokens if tokens else None,
        "sentences": len(pairs),
        "wrong_sentences": wrong,
        "sentence_error_rate": 100.0 * wrong / len(pairs) if pairs else None,
    }


def write_scores(decode_dir: Path, data_dir: Path, aligned: dict[str, Pairs]) -> None:
    """What score.py leaves in a decode directory, as far as a report reads it."""
    scoring = decode_dir / "scoring"
    scoring.mkdir(parents=True)
    lines = [
        f"{utt} " + " ; ".join(f"{r} {h}" for r, h in pairs) + " " for utt, pairs in aligned.items()
    ]
    (scoring / "alignments").write_text("\n".join(lines) + "\n")
    steps = Counter(pair for pairs in aligned.values() for pair in pairs)
    wrong = [(r, h, n) for (r, h), n in steps.most_common() if r != h]
    speakers = sorted({utt.partition("-")[0] for utt in aligned})
    by_speaker = {
        s: tally([pairs for utt, pairs in aligned.items() if utt.startswith(s)]) for s in speakers
    }
    rate = tally(list(aligned.values()))["error_rate"]
    score = {
        "format_version": 1,
        "name": "PER",
        "rule": "tokens as they stand & nothing forgiven",
        "data_dir": str(data_dir),
        "decode_dir": str(decode_dir),
        "total": tally(list(aligned.values())),
        "interval": {
            "level": 0.95,
            "low": rate - 9,
            "high": rate + 9,
            "replications": 99,
            "seed": 0,
        },
        "groups": {"speaker": by_speaker},
        "confusions": [(r, h, n) for r, h, n in wrong if EPS not in (r, h)],
        "insertions": [(h, n) for r, h, n in wrong if r == EPS],
        "deletions": [(r, n) for r, h, n in wrong if h == EPS],
        "correct": [(r, n) for (r, h), n in steps.items() if r == h],
    }
    (scoring / "score.json").write_text(json.dumps(score))


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    """``exp/one`` and ``exp/two``, scored on ``data/dev`` with its recordings."""
    data = tmp_path / "data" / "dev"
    data.mkdir(parents=True)
    for number, utt in enumerate(ALIGNED):
        samples = 3000 * np.sin(np.arange(8000) * (0.1 + 0.02 * number))
        (data / f"{utt}.wav").write_bytes(wave_bytes(samples.astype(np.float32), 16000))
    (data / "wav.scp").write_text("".join(f"{utt} {data}/{utt}.wav\n" for utt in ALIGNED))
    (data / "utt2spk").write_text("".join(f"{utt} {utt.partition('-')[0]}\n" for utt in ALIGNED))
    (data / "text_words").write_text("".join(f"{utt} WORDS OF {utt}\n" for utt in ALIGNED))
    for number, name in enumerate(("one", "two")):
        model = tmp_path / "exp" / name
        aligned = {utt: versions[number] for utt, versions in ALIGNED.items()}
        write_scores(model / "decode_dev", data, aligned)
        provenance = {"command": ["train_ctc.py", "a b", BAD], "commit": "c0ffee", "seed": 7}
        (model / "provenance.json").write_text(json.dumps(provenance))
    return tmp_path


# ---- a browser -----------------------------------------------------------------------------------

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-breakpad",
    "--disable-crash-reporter",
    "--disable-component-update",
    "--disable-background-networking",
    "--disable-extensions",
    "--no-first-run",
    "--mute-audio",
    "--autoplay-policy=no-user-gesture-required",
    "--remote-debugging-pipe",
)
TIMEOUT_S = 20.0


@dataclass
class Browser:
    """The DevTools protocol over two pipes: JSON messages, each ended by a NUL."""

    to_browser: int
    from_browser: int
    buffer: bytes = b""
    last_id: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)

    def call(self, method: str, session: str = "", **params: object) -> dict[str, Any]:
        """Send a command and wait for its answer; events that come meanwhile are kept."""
        self.last_id += 1
        message: dict[str, object] = {"id": self.last_id, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self.to_browser, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            answer = self.read(deadline)
            if answer.get("id") == self.last_id:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self.events.append(answer)

    def wait(self, method: str, session: str) -> None:
        """Wait for an event."""
        deadline = time.monotonic() + TIMEOUT_S
        while not any(e.get("method") == method and e["sessionId"] == session for e in self.events):
            self.events.append(self.read(deadline))

    def read(self, deadline: float) -> dict[str, Any]:
        """The next message."""
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.from_browser], [], [], deadline - time.monotonic())
            assert ready, "the browser does not answer"
            chunk = os.read(self.from_browser, 1 << 20)
            assert chunk, "the browser has ended"
            self.buffer += chunk
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)


@dataclass(frozen=True)
class Tab:
    """A page in the browser."""

    browser: Browser
    session: str
    uri: str

    def call(self, method: str, **params: object) -> dict[str, Any]:
        """A command about this page."""
        return self.browser.call(method, self.session, **params)

    def value(self, expression: str) -> Any:
        """What a JavaScript expression, or its promise, comes to."""
        done = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press and release a key."""
        about = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **about)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def problems(self) -> list[object]:
        """Errors, failed requests, and requests for anything but the page and what is in it."""
        found: list[object] = []
        for event in self.browser.events:
            method, params = event.get("method", ""), event.get("params", {})
            if event.get("sessionId") != self.session:
                continue
            entry = params.get("entry", params)
            level = entry.get("level", "") if method == "Log.entryAdded" else entry.get("type", "")
            said = method in ("Runtime.consoleAPICalled", "Log.entryAdded")
            if method in ("Runtime.exceptionThrown", "Network.loadingFailed") or (
                said and level in ("error", "warning")
            ):
                found.append(params)
            elif method == "Network.requestWillBeSent":
                url = params["request"]["url"]
                if url != self.uri and not url.startswith("data:"):
                    found.append(url)
        return found


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser without a window; the test skips where there is none."""
    program = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    profile = tmp_path_factory.mktemp("browser")
    ends = [os.pipe(), os.pipe()]  # to the browser, from it
    # High numbers, so that the shell's 3 and 4 cannot be among them.
    theirs = [fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in (ends[0][0], ends[1][1])]
    shell = f'exec "$0" "$@" 3<&{theirs[0]} 4>&{theirs[1]}'
    command = ["bash", "-c", shell, program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=theirs,
        start_new_session=True,
    )
    for fd in (*theirs, ends[0][0], ends[1][1]):
        os.close(fd)
    found = Browser(ends[0][1], ends[1][0])
    try:
        found.call("Browser.getVersion")
        yield found
        with contextlib.suppress(AssertionError, OSError):
            found.call("Browser.close")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its own session: only what it started
        process.wait()
        os.close(found.to_browser)
        os.close(found.from_browser)


@pytest.fixture
def open_page(browser: Browser) -> Callable[..., Tab]:
    """Load a file at a width in pixels, with or without JavaScript."""

    def open_at(path: Path, width: int, *, scripts: bool = True, dark: bool = False) -> Tab:
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = Tab(browser, session, path.resolve().as_uri())
        for domain in ("Page", "Runtime", "Log", "Network"):
            tab.call(f"{domain}.enable")
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        tab.call("Emulation.setEmulatedMedia", features=[scheme])
        tab.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        if not scripts:
            tab.call("Emulation.setScriptExecutionDisabled", value=True)
        tab.call("Page.navigate", url=tab.uri)
        browser.wait("Page.loadEventFired", session)
        return tab

    return open_at
