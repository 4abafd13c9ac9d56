"""Calls between the processes of an asynchronous training.

Everything goes through one function, ``call(to, method, *args)``, so another library can take the
place of torch.distributed.rpc by another class with this function.
"""

import os
import threading
import warnings
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch.distributed import rpc

from pipeline.errors import PipelineError

EXTRA_THREADS = 8


class Lost(PipelineError):
    """Another process has ended, or cannot be reached. ``who`` is its name."""

    def __init__(self, who: str, why: str) -> None:
        super().__init__(f"{who} is lost ({why})")
        self.who, self.why = who, why

    def __reduce__(self) -> tuple[type["Lost"], tuple[str, str]]:
        return Lost, (self.who, self.why)


class Answer(Protocol):
    """What a call will return."""

    def wait(self) -> Any:
        """The result. Raises `Lost`, or what the method raised."""

    def done(self) -> bool:
        """Whether `wait` would return at once."""


class Engine(Protocol):
    """Calls methods of the objects that other processes serve."""

    def call(self, to: str, method: str, *args: Any) -> Answer:
        """Begin ``method(*args)`` of the object that the process ``to`` serves."""


# ---- within one process --------------------------------------------------------------------------


class Given:
    """An answer that is there already, or an exception."""

    def __init__(self, value: Any = None, error: Exception | None = None) -> None:
        self.value, self.error = value, error

    def wait(self) -> Any:
        """See `Answer.wait`."""
        if self.error is not None:
            raise self.error
        return self.value

    def done(self) -> bool:
        """See `Answer.done`."""
        return True


class LocalEngine:
    """An engine whose objects are all in this process."""

    def __init__(self, objects: Mapping[str, Any]) -> None:
        self.objects = objects

    def call(self, to: str, method: str, *args: Any) -> Answer:
        """See `Engine.call`."""
        try:
            found = getattr(self.objects[to], method)(*args)
        except Exception as error:
            return Given(error=error)
        return found if isinstance(found, torch.futures.Future) else Given(found)


# ---- torch.distributed.rpc -----------------------------------------------------------------------


class RpcEngine:
    """An engine on torch.distributed.rpc with TensorPipe.

    A process that ends is noticed within milliseconds by whoever calls it. A process cannot join
    later.
    """

    def __init__(self, name: str, served: Any, *, threads: int, minutes: float) -> None:
        """Prepare, without a connection yet.

        Args:
            name: of this process.
            served: the object whose methods the others call.
            threads: CPU threads of what they compute.
            minutes: the longest time to wait for an answer.
        """
        self.name, self.seconds = name, 60.0 * minutes
        _here.served, _here.threads = served, threads

    def connect(self, *, rank: int, size: int, address: str, port: int) -> None:
        """Wait for all processes.

        Raises:
            PipelineError: they do not come in time.
        """
        options = rpc.TensorPipeRpcBackendOptions(
            num_worker_threads=size + EXTRA_THREADS,  # each of the others may wait for one
            rpc_timeout=self.seconds,
            _transports=["uv"],  # that through shared memory never rests: it takes a core of each
            _channels=["basic"],
            init_method=f"tcp://{address}:{port}",
        )
        hosted = os.environ.pop("TORCHELASTIC_USE_AGENT_STORE", None)  # rank 0 hosts this store
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it is in maintenance mode
                begin: Any = rpc.init_rpc
                begin(self.name, rank=rank, world_size=size, rpc_backend_options=options)
        except (RuntimeError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise PipelineError(
                f"{self.name}: no connection to the others at {address}:{port} ({reason}); "
                "TP_SOCKET_IFNAME names the network interface to use"
            ) from error
        finally:
            if hosted is not None:
                os.environ["TORCHELASTIC_USE_AGENT_STORE"] = hosted

    def call(self, to: str, method: str, *args: Any) -> Answer:
        """See `Engine.call`."""
        try:
            return _Remote(to, rpc.rpc_async(to, _answer, (method, args)))
        except RuntimeError as error:
            return Given(error=Lost(to, _reason(error)))

    def leave(self) -> None:
        """Close the connections, without waiting for the others."""
        rpc.shutdown(graceful=False)


class _Here(threading.local):
    """What a thread that answers calls needs."""

    is_set_up = False


class _Process:
    served: Any = None
    threads = 1


_here, _thread = _Process(), _Here()


class _Remote:
    """The answer of another process."""

    def __init__(self, who: str, future: Any) -> None:
        self.who, self.future = who, future

    def wait(self) -> Any:
        try:
            found = self.future.wait()
        except RuntimeError as error:  # of the connection: those of the method are in a `_Raised`
            raise Lost(self.who, _reason(error)) from error
        if isinstance(found, _Raised):
            raise found.error
        return found

    def done(self) -> bool:
        return bool(self.future.done())


class _Raised:
    """An exception as an answer."""

    def __init__(self, error: Exception) -> None:
        self.error = error


@rpc.functions.async_execution  # type: ignore[untyped-decorator]
def _answer(method: str, args: tuple[Any, ...]) -> Any:
    """Call a method of the served object; the answer comes in a Future."""
    if not _thread.is_set_up:  # these settings are those of a thread
        torch.set_num_threads(_here.threads)
        torch.set_flush_denormal(True)
        _thread.is_set_up = True
    try:
        found = getattr(_here.served, method)(*args)
    except Exception as error:
        found = _Raised(error)
    if isinstance(found, torch.futures.Future):
        return found
    future: Any = torch.futures.Future()
    future.set_result(found)
    return future


def _reason(error: Exception) -> str:
    """The first line of an error of torch, without the place in torch's source code."""
    return str(error).partition("\n")[0].partition(" (this error originated")[0]
