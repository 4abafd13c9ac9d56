"""Records: numbers and arrays that kernels share, and functions of Python that they call."""

import numpy as np
import pytest
import torch

from pipeline.kernels.compiler.compiling import Floats, Longs, kernel
from pipeline.kernels.compiler.records import Record, call, doubles, floats, ints, longs

COUNT, ROOM, FAILED, GROW, ADD, OF_FLOATS, OF_DOUBLES, OF_LONGS, OF_INTS, END = range(10)


@kernel
def add(record: Longs, like: Floats, first: int, last: int) -> None:
    """One more of each array's numbers, which all go to the array of doubles."""
    for i in range(first, last):
        sum_ = floats(record, OF_FLOATS, like)[i] + longs(record, OF_LONGS)[i]
        doubles(record, OF_DOUBLES)[i] += sum_ + ints(record, OF_INTS)[i]
    record[COUNT] += last - first


@kernel
def fill(record: Longs, like: Floats, first: int, last: int) -> None:
    """Numbers first … last - 1 in an array that is made longer where need be."""
    for i in range(first, last):
        if record[COUNT] == record[ROOM]:
            call(record[GROW], record, like, ROOM, record[COUNT] + 1)
        if record[FAILED]:
            break
        doubles(record, OF_DOUBLES)[record[COUNT]] = i
        record[COUNT] += 1


@kernel
def add_by_address(record: Longs, like: Floats, first: int, last: int) -> None:
    """`add`, called by its address."""
    call(record[ADD], record, like, first, last)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kernels_read_and_write_what_a_record_has(dtype: torch.dtype) -> None:
    record, x = Record(END), torch.tensor([0.5, 1.5, 2.5], dtype=dtype)
    record[OF_FLOATS], record[OF_DOUBLES] = x, np.zeros(3)
    record[OF_LONGS], record[OF_INTS] = np.array([1, 2, 3]), np.array([10, 20, 30], np.int32)
    record[ADD] = add.address(dtype)
    add_by_address[dtype](record.numbers, x, 1, 3)
    assert record.array(OF_DOUBLES).tolist() == [0.0, 23.5, 35.5]
    assert record[COUNT] == 2


def test_an_array_grows_while_a_kernel_runs() -> None:
    record, x = Record(END), torch.zeros(1)
    record[OF_DOUBLES] = np.zeros(0)
    asked = []

    def grow(room: int, count: int) -> None:
        asked.append(count)
        record.grow(OF_DOUBLES, 2 * count)
        record[room] = 2 * count

    record.handle(GROW, grow, FAILED)
    fill[x.dtype](record.numbers, x, 5, 15)
    record.close()
    assert asked == [1, 3, 7]
    assert record.array(OF_DOUBLES)[:10].tolist() == list(range(5, 15))


def test_what_a_function_of_python_raises_is_raised_afterwards() -> None:
    record, x = Record(END), torch.zeros(1)

    def grow(room: int, count: int) -> None:
        raise MemoryError(f"no room for {count}")

    record.handle(GROW, grow, FAILED)
    fill[x.dtype](record.numbers, x, 0, 10)
    assert record[COUNT] == 0
    with pytest.raises(MemoryError, match="no room for 1"):
        record.close()
