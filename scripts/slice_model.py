"""Cut a small policy out of a big one: evenly spaced blocks, heads, channels, units; the same tokenizer.

  python scripts/slice_model.py storage/models/mtp_7b storage/models/mtp_sliced \\
      --dim 256 --n-layers 8 --n-heads 8 --head-dim 32 --hidden-dim 688

A size that is not given stays as it is; with fewer --n-future-tokens the trunk keeps its length.
--head-dim must divide the big model's, so that every kept pair of coordinates goes on turning at its
frequency. --n-layers counts all blocks, along with those of the heads.

From a folder of any size only what is kept is read into memory. The vocabulary stays whole: with 32,000
tokens and dim 256 the two embeddings alone are 16.4 million parameters. The result is a start for
training, not a model to use: it has lost most of what it knew.

TARGET must not exist. Sizes that the big model does not contain end in one line and exit code 2.
"""
import argparse
import json
import shutil
import sys
from pathlib import Path

from wmtp.cli import Arguments, guarded
from wmtp.convert.meta import new_folder
from wmtp.convert.slice import slice_mtp
from wmtp.runtime.output import say

SIZES = {'dim': 'width of the hidden state', 'n-layers': 'all blocks, those of the heads among them',
         'n-heads': 'of attention', 'n-kv-heads': 'groups of keys and values',
         'head-dim': 'coordinates of one attention head', 'hidden-dim': 'feed-forward width',
         'n-future-tokens': 'heads for future tokens', 'max-seq-len': 'longest row'}


def make_parser():
    p = Arguments(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('source', metavar='SOURCE', help='folder of the big policy')
    p.add_argument('target', metavar='TARGET', help='folder to make')
    for name, meaning in SIZES.items(): p.add_argument(f'--{name}', type=int, metavar='N', help=meaning)
    return p


def slice_folder(a, stop):
    sizes = {name.replace('-', '_'): getattr(a, name.replace('-', '_')) for name in SIZES}
    policy = slice_mtp(a.source, **sizes)
    with new_folder(a.target) as part:
        policy.save_pretrained(part)
        tokenizer_files = [file for file in Path(a.source).glob('tokenizer*') if file.is_file()]
        for file in tokenizer_files: shutil.copyfile(file, part/file.name)
    facts = policy.describe()
    say(json.dumps({name: facts[name] for name in [*sizes, 'dtype']}))
    say(f"{facts['n_parameters']:,} parameters in {a.target}"
        + ('' if tokenizer_files else '; no tokenizer in the source, so none here'))
    return 0


if __name__ == '__main__': sys.exit(guarded(make_parser(), slice_folder))
