"""Speed, measured where it is claimed: medians of interleaved runs, ratios within one run.

    python scripts/bench.py                            # every section
    python scripts/bench.py --only batches --draws 9   # one of them, more patiently
    python scripts/bench.py --threads 1

Each section is a file in scripts/benchmarks/; its first line says what is compared.
"""
import argparse
import sys
from importlib import import_module
from pathlib import Path

import torch

# section -> file in scripts/benchmarks, where it has another name
FILES = {'lambda': 'credit', 'help': 'startup'}
SECTIONS = ['batches', 'lambda', 'help', 'mtp_loss', 'trunk', 'sandbox', 'decoding', 'prepare', 'row_index']


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', nargs='+', choices=SECTIONS, default=SECTIONS, help='sections to run')
    parser.add_argument('--draws', type=int, default=5, help='repetitions of which the median is taken')
    parser.add_argument('--threads', type=int, default=2, help='CPU threads of torch')
    parser.add_argument('--device', default='cpu', help='cpu, cuda or mps, where a section allows it')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    print(f'torch {torch.__version__}, {args.threads} threads, {args.device}')
    sys.path.insert(0, str(Path(__file__).parent/'benchmarks'))
    for name in args.only: import_module(FILES.get(name, name)).run(args.draws, args.device)


if __name__ == '__main__': main()
