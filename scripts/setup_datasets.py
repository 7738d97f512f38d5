"""Make a data set ready for training and evaluation: CodeContests, MBPP or HumanEval.

From the hub (once, on a machine with network; about 8 GB are read for CodeContests):

    python scripts/setup_datasets.py codecontests --tokenizer storage/models/llama/tokenizer.model \\
        --num-proc 8
    python scripts/setup_datasets.py mbpp         --tokenizer storage/models/llama/tokenizer.model
    python scripts/setup_datasets.py humaneval    --tokenizer storage/models/llama/tokenizer.model

From files that are here (a folder, a file, or a quoted pattern of .parquet, .arrow, .json or .jsonl files,
plain or .gz; the word train, valid or test in a file's name, or in its folder's, says its split):

    python scripts/setup_datasets.py codecontests --source downloads/code_contests --tokenizer T.model
    python scripts/setup_datasets.py mbpp         --source downloads/mbpp.jsonl    --tokenizer T.model

Writes storage/datasets/NAME/processed/: train, valid, test .jsonl, problems.jsonl.gz (tests), stats/,
schema.json, metadata.json (SHA-256). Stopped or killed, the same command goes on with the first unfinished
shard. The bytes do not depend on --num-proc. Then: python scripts/validate_datasets.py
storage/datasets/NAME/processed
"""
import argparse
import sys
from pathlib import Path

from wmtp.cli import Arguments, guarded
from wmtp.runtime.output import say


def make_parser():
    p = Arguments(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('name', choices=['codecontests', 'mbpp', 'humaneval'], help='which data set')
    p.add_argument('--source', help='files that are here, or a name on the hub (default: '
                                    'deepmind/code_contests, or the benchmark on the hub)')
    p.add_argument('--tokenizer', required=True, help='.model file or Hugging Face folder; lengths are '
                                                      'counted with it')
    p.add_argument('--out', type=Path, help='folder to make (default: storage/datasets/NAME/processed)')
    g = p.add_argument_group('codecontests only')
    g.add_argument('--num-proc', type=int, default=1, help='processes, one shard at a time each (default: 1)')
    g.add_argument('--max-tokens', type=int, default=2048,
                   help='drop programs over this, with prompt, BOS and EOS (default: 2048)')
    g.add_argument('--cap', type=int, help='at most so many programs of each label per problem, drawn by '
                                           'hash (default: all)')
    g.add_argument('--python2', action='store_true',
                   help='take Python 2 submissions too, where they compile; marked language: python2')
    g.add_argument('--tests', type=int, default=16,
                   help='tests to keep per problem in problems.jsonl.gz (default: 16)')
    return p


def prepare(args, stop):
    from wmtp.config.load import project_root
    from wmtp.prepare.merge import prepare_codecontests
    from wmtp.prepare.parts import Settings
    from wmtp.prepare.publish import prepare_benchmark
    out = args.out or project_root()/'storage'/'datasets'/args.name/'processed'
    if args.name == 'codecontests':
        settings = Settings(args.max_tokens, args.python2, args.tests)
        made = prepare_codecontests(args.source or 'deepmind/code_contests', out, args.tokenizer, settings,
                                    args.cap, args.num_proc)
    else: made = prepare_benchmark(args.name, args.source, out, args.tokenizer)
    for name, file in made['files'].items():
        if 'rows' in file:
            rows, size, digest = file['rows'], file['bytes'], file['sha256']
            say(f"{name:12} {rows:9,} rows  {size:13,} bytes  sha256 {digest[:16]}")
    say(f'what was left out, and why: {out}/stats/dropped.json',
        f'next: python scripts/validate_datasets.py {out}')
    return 0


if __name__ == '__main__': sys.exit(guarded(make_parser(), prepare))
