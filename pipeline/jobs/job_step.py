"""The place of this process in a job of torchrun or a Slurm job step, from the environment.

Slurm's variables are used only in programs that ``srun`` has started. A program in a batch script
that runs without ``srun`` is a single process, however many tasks the job requests.
"""

from collections.abc import Mapping

from pipeline.errors import UsageError

NO_STEP = 0xFFFFFFF0  # batch scripts and interactive shells have step numbers from here on


def is_step(environ: Mapping[str, str]) -> bool:
    """Whether this process is one of several tasks that ``srun`` has started together."""
    step = environ.get("SLURM_STEP_ID", "")
    return (
        step.isdecimal()
        and int(step) < NO_STEP
        and "SLURM_PROCID" in environ
        and environ.get("SLURM_STEP_NUM_TASKS", "1") != "1"
    )


def local_rank(environ: Mapping[str, str]) -> int:
    """The number, from 0, of this process among those that were started on the same machine.

    Raises:
        UsageError: a variable of the environment is not a number.
    """
    slurms = environ.get("SLURM_LOCALID", "0") if is_step(environ) else "0"
    return number(environ, "LOCAL_RANK", slurms)


def number(environ: Mapping[str, str], name: str, default: str = "") -> int:
    """The value of a variable as a whole number. Raises UsageError if it is not a whole number."""
    value = environ.get(name, default)
    if not value.isdecimal():
        raise UsageError(
            f"the environment variable {name} must be a whole number, not {value!r}; set it"
        )
    return int(value)
