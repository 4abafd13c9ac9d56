"""Which process of a torchrun or Slurm job step this is, by the environment.

Slurm's variables count only in what ``srun`` starts. In a batch script outside ``srun`` there is no
step, and the program is one process, however many tasks the job asks for.
"""

from collections.abc import Mapping

from pipeline.errors import UsageError

NO_STEP = 0xFFFFFFF0  # Slurm numbers batch scripts and interactive shells from here


def is_step(environ: Mapping[str, str]) -> bool:
    """Whether this is one of several tasks that ``srun`` started together."""
    step = environ.get("SLURM_STEP_ID", "")
    return (
        step.isdecimal()
        and int(step) < NO_STEP
        and "SLURM_PROCID" in environ
        and environ.get("SLURM_STEP_NUM_TASKS", "1") != "1"
    )


def local_rank(environ: Mapping[str, str]) -> int:
    """The number of this process among those that one launcher started on its machine, from 0.

    Raises:
        UsageError: a variable of the environment is not a number.
    """
    slurms = environ.get("SLURM_LOCALID", "0") if is_step(environ) else "0"
    return number(environ, "LOCAL_RANK", slurms)


def number(environ: Mapping[str, str], name: str, default: str = "") -> int:
    """A variable that is a whole number. Raises UsageError, naming it, if it is not."""
    value = environ.get(name, default)
    if not value.isdecimal():
        raise UsageError(f"{name} is {value!r} in the environment, which is no number; set it")
    return int(value)
