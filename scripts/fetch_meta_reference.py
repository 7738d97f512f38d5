"""Bring Meta's own `llama/*.py` beside ours, if Meta gave you access; notebook 19a then compares the two.

    python scripts/fetch_meta_reference.py           # into vendor/meta_llama/reference/, which git ignores
    python scripts/fetch_meta_reference.py --revision main

The files are Meta's, under its Multi-token Prediction Research License: accept it at
https://huggingface.co/facebook/multi-token-prediction and run `hf auth login` first. Nothing of them may be
committed.
"""
import argparse
import shutil
import sys
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (EntryNotFoundError, GatedRepoError, HfHubHTTPError,
                                    LocalEntryNotFoundError, RepositoryNotFoundError)

from wmtp.core import file_sha256

REPO = 'facebook/multi-token-prediction'
FILES = 'model.py', 'tokenizer.py', 'generation.py'  # no __init__.py: the folder stays outside the package
FOLDER = Path(__file__).resolve().parent.parent/'vendor'/'meta_llama'/'reference'


def fetch(revision):
    "Downloads the files of one revision into FOLDER; prints the hash of each."
    first = Path(hf_hub_download(REPO, f'llama/{FILES[0]}', revision=revision))
    commit = first.parents[1].name  # the cache keeps snapshots/<commit>/llama/<file>
    cached = [first] + [Path(hf_hub_download(REPO, f'llama/{name}', revision=commit)) for name in FILES[1:]]
    FOLDER.mkdir(exist_ok=True)
    for name, path in zip(FILES, cached):
        shutil.copyfile(path, FOLDER/name)
        print(f'{file_sha256(FOLDER/name)}  {name}')
    print(f'{REPO} at {commit}: now compare by '
          f'`nbdev_test --flags net --path nbs/2_models/19a_meta_llama.ipynb`')


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--revision', default='main', help='branch, tag or commit of the repository')
    args = parser.parse_args()
    page = f'https://huggingface.co/{REPO}'
    try: fetch(args.revision)
    except GatedRepoError:
        sys.exit(f"{REPO} is gated; accept Meta's licence at {page}, then `hf auth login` with that account")
    except RepositoryNotFoundError:
        sys.exit(f'{REPO} is not visible with this login; open {page}, then `hf auth login`')
    except LocalEntryNotFoundError:
        sys.exit(f'{REPO} cannot be reached; connect to the network, or unset HF_HUB_OFFLINE if it is set')
    except (EntryNotFoundError, HfHubHTTPError) as e:
        sys.exit(f'{REPO} at {args.revision}: {str(e).splitlines()[0]}')


if __name__ == '__main__': main()
