"""Compute a reference's losses on the training programs once, for any number of Rho-1 runs.

    python scripts/score_reference.py storage/models/micro-reference-losses.safetensors
    python scripts/score_reference.py storage/models/losses.safetensors --config rho1   # the A100's

Then:  wmtp_rho1 --set models.reference.path=null models.reference.losses_path=FILE
The file belongs to the training data, tokenizer and length limit it was made with; any other run refuses it.
"""
import argparse
import sys

from wmtp.cli import Arguments, guarded
from wmtp.config.load import load_config
from wmtp.pipelines.rho1 import score_training_data
from wmtp.pipelines.setup import prepare_run
from wmtp.runtime.output import say


def make_parser():
    parser = Arguments(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('file', help='where the losses go, ending in .safetensors')
    parser.add_argument('--config', metavar='FILE|NAME',
                        help='a configuration of wmtp_rho1 with models.reference.path (default: rho1_local)')
    parser.add_argument('--set', metavar='KEY=VALUE', nargs='+', default=[], help='change single keys')
    return parser


def score(args, stop):
    cfg = load_config(args.config, [*args.set, 'mlflow.enabled=false'], 'rho1')
    say(f"{score_training_data(prepare_run(cfg, say), args.file)} programs scored: {args.file}")
    return 0


if __name__ == '__main__': sys.exit(guarded(make_parser(), score))
