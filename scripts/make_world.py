"""Write one world of scarce correct programs, made of microcode (nbs/appendix/study/12f_worlds.ipynb).

    python scripts/make_world.py --world 0 --regimes 0.01:0.25 0.5:1 --out storage/world-0

A regime is RHO:COVERAGE, the share of correct programs among those of the studied problems, and the share of
these problems that have any. Each gives a file seen-RHO-COVERAGE.jsonl.gz to learn from.
"""
import argparse
import json
import shutil
import sys
from pathlib import Path

from wmtp.cli import Arguments, guarded
from wmtp.config.load import project_root
from wmtp.core import InputError
from wmtp.evaluation.benchmarks import read_lines
from wmtp.microcode.worlds import make_world, write_world
from wmtp.runtime.output import say


def regime(text):
    "The two shares of RHO:COVERAGE, as numbers that print as they were written."
    rho, coverage = map(json.loads, text.split(':'))
    if not (0 < rho < 1 and 0 < coverage <= 1): raise ValueError
    return rho, coverage


def make_parser():
    parser = Arguments(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--world', type=int, required=True, help='its number, from 0')
    parser.add_argument('--regimes', type=regime, nargs='+', required=True, metavar='RHO:COVERAGE')
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='a folder that does not exist')
    return parser


def make(args, stop):
    if args.out.exists(): raise InputError(f'{args.out} exists already; move it away to make it anew')
    home = project_root()/'storage'/'datasets'/'microcode'
    rows = {split: read_lines(home/f'{split}.jsonl.gz') for split in ('train', 'valid', 'test')}
    world = make_world(rows, read_lines(home/'problems.jsonl.gz'), args.world)
    part = args.out.with_name(f'.part-{args.out.name}')
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    write_world(world, part, args.regimes)
    part.rename(args.out)
    say(f'{args.out}: world {args.world}, {len(world.right)} studied problems, {len(args.regimes)} regimes')
    return 0


if __name__ == '__main__': sys.exit(guarded(make_parser(), make))
