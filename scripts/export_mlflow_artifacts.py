"""Export a run from MLflow as files: metrics.csv, parameters.json, run.json (status, tags), artifacts/.

    python scripts/export_mlflow_artifacts.py --run 0123456789abcdef0123456789abcdef --out exports/critic
    export MLFLOW_TRACKING_URI=https://mlflow.example.org     # where the run is, if not here

The run is looked up where MLFLOW_TRACKING_URI says, else in storage/mlflow/mlflow.db; runs:/ID does too.
metrics.csv has a row for each step and a column for each metric; times are UTC. DIR is whole or absent; one
that holds something is left alone. Exit code: 0 exported, 1 the server is away or the disk is full, 2 wrong
arguments or no such run.
"""
import argparse
import sys

from wmtp.cli import Arguments, guarded
from wmtp.runtime.output import say


def make_parser():
    parser = Arguments(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--run', required=True, metavar='ID|URI', help='the id of a run, or runs:/ID')
    parser.add_argument('--out', required=True, metavar='DIR', help='the folder to make')
    return parser


def export(args, stop):
    from wmtp.pipelines.setup import mlflow_place
    from wmtp.runtime.export import export_run
    say(f'exported: {export_run(args.run, args.out, mlflow_place(None)[0])}')
    return 0


if __name__ == '__main__': sys.exit(guarded(make_parser(), export))
