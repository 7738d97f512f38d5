"""Turn a checkpoint as Meta publishes it into a model folder, or back.

  python scripts/convert_meta.py downloads/7B_1T_4 storage/models/mtp_7b \\
      --tokenizer downloads/tokenizer.model --origin 'facebook/multi-token-prediction 7B_1T_4'
  python scripts/convert_meta.py storage/models/mtp_7b elsewhere/7B_1T_4 --back

There: SOURCE holds consolidated.pth and params.json, and tokenizer.model unless --tokenizer names it.
TARGET gets config.json, model.safetensors (in shards when large), tokenizer.model and metadata.json with
the SHA-256 of every file. Tensors, names and dtype stay as they are. Memory: one shard. Time: 8 seconds a
GB there and 15 back on two busy cores (7B in float16 has 13.5 GB).

Back: SOURCE is such a folder, or that of a trained policy; TARGET gets consolidated.pth, params.json and
tokenizer.model.

TARGET must not exist. Whatever does not fit (a missing, extra or misshapen weight, mixed dtypes, a
damaged file, a pickle that holds more than tensors, a rope_theta that the file contradicts) ends in one
line and exit code 2, and nothing is left behind.
"""
import argparse
import sys

from wmtp.cli import Arguments, guarded
from wmtp.convert.meta import SHARD_BYTES, convert_from_meta, convert_to_meta
from wmtp.core import InputError
from wmtp.runtime.output import say


def make_parser():
    p = Arguments(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('source', metavar='SOURCE', help='the folder to read')
    p.add_argument('target', metavar='TARGET', help='the folder to make')
    p.add_argument('--back', action='store_true', help='from a model folder to the files Meta publishes')
    p.add_argument('--tokenizer', metavar='FILE',
                   help='tokenizer.model, where it lies outside SOURCE (in the MTP release: one level up)')
    p.add_argument('--origin', metavar='TEXT',
                   help="where the weights come from, for metadata.json; default: SOURCE's name")
    p.add_argument('--rope-theta', type=float, metavar='X',
                   help='if you know it: refuse a params.json that says otherwise')
    p.add_argument('--max-seq-len', type=int, default=4096, metavar='N',
                   help="longest row; Meta's files do not say (default 4096)")
    p.add_argument('--shard-gb', type=float, default=SHARD_BYTES / 1e9, metavar='X',
                   help='size of one weight file (default 2)')
    return p


def convert(a, stop):
    if a.back and (a.tokenizer or a.origin or a.rope_theta):
        raise InputError('--back takes no other options; the folder says everything')
    if a.shard_gb <= 0: raise InputError(f'--shard-gb is {a.shard_gb}; wanted a size above 0')
    if a.back: hashes = convert_to_meta(a.source, a.target)
    else:
        record = convert_from_meta(a.source, a.target, a.tokenizer, a.origin, a.rope_theta, a.max_seq_len,
                                   int(a.shard_gb * 1e9))
        hashes = record['files']
        say(f"{record['n_parameters']:,} parameters, {record['dtype']}, unchanged")
    for name, digest in hashes.items(): say(f'{digest[:16]}  {name}')
    if not a.back:
        say(f'next: python scripts/slice_model.py {a.target} TARGET for a small one, '
            f'or give {a.target} to a run')
    return 0


if __name__ == '__main__': sys.exit(guarded(make_parser(), convert))
