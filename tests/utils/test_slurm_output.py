"""What is read from sbatch and squeue amid what sites print beside it."""

from random import Random

import pytest

from pipeline.jobs import slurm_output
from pipeline.jobs.slurm_output import KNOWN, Number, Task

NOISE = [
    "-" * 60, "   Welcome to the Example6 Supercomputer", "login2 ... OK", "quota: 12% of 100 GB",
    "2 jobs of yours ended; see ticket 4711", "\x1b[1;33mMaintenance on 2026-12-01\x1b[0m", "",
    "CLUSTER: alpha", "JOBID PARTITION NAME", "sbatch: warning: 3 nodes are down", "\ttabs\t1\t2",
    "99 bottles", "1;2;3", "12;", "0", "99999999999", "-7", "7.5", "#SBATCH 3", "\ufeff", "\x07",
    "\x1b]0;title 5\x07", "é 音 3",
]  # fmt: skip


def noisy(random: Random, answers: list[str]) -> str:
    """The answers in order, each a line of its own, amid noise, colours and ends of lines."""
    lines: list[str] = []
    for answer in answers:
        lines += random.choices(NOISE, k=random.randrange(4))
        colour = random.choice(["{}", "\x1b[32m{}\x1b[0m", "  {} ", "\x1b[2K{}", "\x1b(B{}\x1b[m"])
        lines.append(colour.format(answer))
    lines += random.choices(NOISE, k=random.randrange(4))
    end = random.choice(["\n", "\r\n", "\r\r\n"])
    return end.join(lines) + random.choice([end, ""])


@pytest.mark.parametrize("seed", range(60))
def test_the_number_amid_noise(seed: int) -> None:
    random = Random(seed)
    number = str(random.choice([1, 9, 4711, 67108863, 2**32 - 1, random.randrange(1, 2**31)]))
    cluster = random.choice(["", "", "alpha", "c-2.lab"])
    answer = f"{number};{cluster}" if cluster else number
    if seed % 5 == 0:
        answer = f"Submitted batch job {number}" + (f" on cluster {cluster}" if cluster else "")
    assert slurm_output.numbers(noisy(random, [answer])) == [Number(number, cluster)]


def test_no_number_or_several() -> None:
    assert slurm_output.numbers("\n".join(NOISE)) == []
    assert slurm_output.numbers("2026\nhello 3\n17\n17\n") == [Number("2026"), Number("17")]
    assert slurm_output.numbers("Checking 1 of 2\r17") == [Number("17")]


@pytest.mark.parametrize("seed", range(60))
def test_states_amid_noise(seed: int) -> None:
    random = Random(seed)
    jobs = random.sample(range(1, 2000), k=random.randrange(1, 9))
    if seed % 7 == 0:
        jobs = [0]
    reasons = ["None", "Resources", "(null)", "launch failed requeued held", "", "Nodes 3 DOWN"]
    states = [*sorted(KNOWN), "NEW_STATE"]
    found = {j: Task(random.choice(states), random.choice(reasons)) for j in jobs}
    rows = [f"{job or 'N/A'} {state} {reason}".rstrip() for job, (state, reason) in found.items()]
    assert slurm_output.tasks(noisy(random, rows)) == found


def test_a_state_of_slurm_counts_more_than_another_word() -> None:
    rows = ["2 RUNNING None", "2 NODES are down", "3 NODES are down", "3 PENDING Priority"]
    assert slurm_output.tasks("\n".join(rows)) == {
        2: Task("RUNNING", "None"),
        3: Task("PENDING", "Priority"),
    }


def test_arrays_by_their_name() -> None:
    text = "Welcome\n7 COMPLETED\n7 FAILED\n2026\n9 PENDING\r\n9 COMPLETED\n11 NODES\n"
    assert slurm_output.arrays(text) == {"7": False, "9": True}
    assert slurm_output.arrays("7\n9\n") == {"7": True, "9": True}


@pytest.mark.parametrize("state", sorted(KNOWN))
def test_every_state_ends_goes_on_or_is_told(state: str) -> None:
    task = Task(state, "None")
    assert task.obstacle == ("" if state not in slurm_output.PAUSED else state)
    assert not (task.is_held and not task.is_active)
    assert task.is_held == (state in slurm_output.GIVEN_UP)


@pytest.mark.parametrize("reason", ["JobHeldUser", "JobHeldAdmin", "job requeued in held state"])
def test_a_job_that_a_person_holds_is_told(reason: str) -> None:
    assert Task("PENDING", reason).obstacle == reason
    assert not Task("PENDING", reason).is_held
    assert "unknown to slurm.py" in Task("FLYING", "None").obstacle
