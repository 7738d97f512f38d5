"""Write the programs that a critic reads or is judged by: microcode's, instruction twins, a policy's own.

    python scripts/make_critic_data.py --siblings --out DIR      # the training split, and twins of it
    python scripts/make_critic_data.py --split valid --own EVALUATION --only-new --out DIR

EVALUATION is the folder of a wmtp_evaluate on microcode; its programs are labelled by their verdicts
(nbs/7_evaluation/72b_samples.ipynb). Twins are a program under its own sentence and a sibling's
(nbs/4_losses/42_instruction_twins.ipynb). The rows go to DIR/rows.jsonl.
"""
import argparse
import json
import sys
from pathlib import Path

from wmtp.cli import Arguments, guarded
from wmtp.config.load import project_root
from wmtp.evaluation.benchmarks import read_lines
from wmtp.evaluation.samples import labelled_samples
from wmtp.microcode.problems import make_problems
from wmtp.microcode.siblings import instruction_twin_rows
from wmtp.runtime.checkpoint import replace_text
from wmtp.runtime.output import say


def shipped(split): return read_lines(project_root()/'storage'/'datasets'/'microcode'/f'{split}.jsonl.gz')

def new_rows(args, rows):
    "What comes to the rows of the split."
    new = []
    if args.siblings:
        new += instruction_twin_rows(make_problems(36), rows, shipped('valid') + shipped('test'))
    if args.own:
        lines = (read_lines(args.own/f'{name}.jsonl') for name in ('samples', 'verdicts'))
        new += labelled_samples(*lines, rows + new)
    return new


def make_parser():
    parser = Arguments(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--split', choices=('train', 'valid'), default='train', help='rows and problems')
    parser.add_argument('--siblings', action='store_true', help='instruction twins of the split too')
    parser.add_argument('--own', type=Path, metavar='EVALUATION', help="a policy's programs too")
    parser.add_argument('--only-new', action='store_true', help='without the rows of the split')
    parser.add_argument('--out', type=Path, required=True, metavar='DIR')
    return parser


def write_rows(args, stop):
    rows = shipped(args.split)
    new = new_rows(args, rows)
    rows = new if args.only_new else rows + new
    args.out.mkdir(parents=True, exist_ok=True)
    replace_text(args.out/'rows.jsonl', ''.join(json.dumps(row) + '\n' for row in rows))
    say(f'{args.out}: {len(rows)} rows, {len(new)} of them new')
    return 0


if __name__ == '__main__': sys.exit(guarded(make_parser(), write_rows))
