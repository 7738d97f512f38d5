"""What every section measures with."""
import time
from statistics import median  # noqa: F401  sections take it from here

import torch


def timed(work):
    "Seconds that a call takes; waits for the accelerator where there is one."
    started = time.perf_counter()
    work()
    if torch.cuda.is_available(): torch.cuda.synchronize()
    return time.perf_counter() - started


def table(title, rows):
    "One section: a heading, and a line per case with its median and its ratio to the first."
    print(f'\n{title}')
    for name, value, unit, ratio in rows: print(f'  {name:<44} {value:>12,.1f} {unit:<12} {ratio:>7.2f}x')
