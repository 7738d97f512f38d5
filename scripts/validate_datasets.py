"""Check files of labelled programs before anything is trained on them or uploaded.

    data=storage/datasets/codecontests/processed
    python scripts/validate_datasets.py $data                                        # also its hashes
    python scripts/validate_datasets.py train.jsonl valid.jsonl --tokenizer T.model  # they share no problem
    python scripts/validate_datasets.py $data --skip-programs                        # programs are not parsed
    python scripts/validate_datasets.py $data --audit 200 --executor wmtp.sandbox.sandbox:check_program

Looks for: rows that cannot be read, wrong types, hashes that differ, repeated tasks and programs, one
program with both labels, names that contradict their labels, problems in two files, prompts that leave no
room, levels that contradict ratings, programs that do not compile. Exit code: 0 no fault, 1 faults (with
--strict also warnings), 2 something could not be looked at.

--audit runs a sample of programs against their tests. Programs of strangers must not run unguarded, so it
works only with an executor that you name, MODULE:FUNCTION, called as function(program, test) and answering
true or false, or with an object that has .passed.
"""
import argparse
import gzip
import json
import sys
from importlib import import_module
from pathlib import Path

from wmtp.cli import Arguments, guarded
from wmtp.core import InputError
from wmtp.runtime.output import say


def make_parser():
    p = Arguments(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('paths', nargs='+', help='files of rows (.jsonl, plain or .gz), or folders with '
                                            'metadata.json')
    p.add_argument('--tokenizer', help='.model file or Hugging Face folder: count lengths, and compare with '
                                       'those in the metadata')
    p.add_argument('--max-length', type=int, default=2048, help='the window in tokens (default: 2048)')
    p.add_argument('--skip-programs', action='store_true',
                   help='do not parse programs; copies are then found by their text only')
    p.add_argument('--strict', action='store_true', help='warnings count as faults')
    p.add_argument('--audit', type=int, metavar='N', help='run N programs of each label against their tests')
    p.add_argument('--executor', metavar='MODULE:FUNCTION', help='what runs them')
    p.add_argument('--problems', type=Path, help='where the tests are (default: problems.jsonl.gz beside the '
                                                 'first file)')
    return p


def audit(args, files):
    from wmtp.data.schema import read_rows
    from wmtp.prepare.validate import audit_labels
    module, _, name = (args.executor or '').partition(':')
    try: check = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as e:
        raise InputError(f"--audit needs --executor MODULE:FUNCTION, which must be importable ({e}); nothing "
                         f"was run") from None
    path = args.problems or files[0].parent/'problems.jsonl.gz'
    if not path.is_file():
        raise InputError(f"{path}: no such file; the audit needs the tests, name them with --problems")
    tests = {p['problem']: p['tests'] for p in map(json.loads, gzip.open(path))}
    return audit_labels((row for file in files for row in read_rows(file, 'skip')[0]), tests, check,
                        args.audit)


def look(args, stop):
    from wmtp.data.tokenizer import load_tokenizer
    from wmtp.prepare.validate import validate
    tokenizer = load_tokenizer(args.tokenizer) if args.tokenizer else None
    report = validate(args.paths, tokenizer, args.max_length, not args.skip_programs)
    if args.audit: report.audit = audit(args, [Path(file.path) for file in report.files])
    say(*str(report).split('\n'))
    return int(bool(report.n_faults or args.strict and report.n_warnings))


if __name__ == '__main__': sys.exit(guarded(make_parser(), look))
