"""Show what an upload of a folder to a VESSL volume would be, or do it.

    volume=volume://vessl-storage/wmtp-codecontests
    python scripts/sync_to_vessl_storage.py storage/datasets/codecontests $volume         # sends nothing
    python scripts/sync_to_vessl_storage.py storage/datasets/codecontests $volume --go    # sends
    python scripts/sync_to_vessl_storage.py storage/checkpoints/critic --check            # the checklist

Shows every file with its size and SHA-256, what is left out (trainer/ of checkpoints, indices, caches),
what speaks against the upload, and the commands that would be run. --check goes through the checklist of
storage/README.md point by point: `ok` and `NO` are this program's, `look` is for you. While one point says
NO nothing is sent. Only --go needs the vessl command, set up with `vessl configure`. Exit code: 0 nothing
speaks against it (with --go: all was sent), 1 something does, or sending failed, 2 wrong arguments.
"""
import argparse
import sys
import tempfile
from pathlib import Path

from wmtp.cli import Arguments, guarded
from wmtp.core import InputError
from wmtp.runtime.output import say


def make_parser():
    p = Arguments(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('folder', type=Path, help='what to upload: a prepared data set, a model, a checkpoint or '
                                             'a whole run')
    p.add_argument('destination', nargs='?', help='volume://STORAGE/VOLUME or volume://STORAGE/VOLUME/FOLDER')
    p.add_argument('--check', action='store_true', help='only the checklist; nothing is sent')
    p.add_argument('--go', action='store_true', help='really send, if nothing speaks against it')
    p.add_argument('--leave-out', nargs='+', default=[], metavar='NAME',
                   help='names or patterns that stay here, such as report.html')
    p.add_argument('--skip-programs', action='store_true',
                   help='millions of rows: programs are not parsed; copies are found by their text')
    return p


def show(upload, destination, scratch):
    "The listing of a dry run."
    from wmtp.prepare.send import commands, stage
    from wmtp.prepare.upload import human_size
    for file in upload.files: say(f'{file.sha256}  {file.size:>16,}  {file.name}')
    for name, why in upload.left_out: say(f'left out: {name} ({why})')
    for _, what in upload.refused: say(f'REFUSED: {what}')
    say(f'{len(upload.files)} files, {human_size(sum(file.size for file in upload.files))}')
    if destination and not upload.refused:
        for _, command in commands(upload, destination, stage(upload, scratch)): say(' '.join(command))
        say('nothing was sent; the same command with --go sends')


def sync(args, stop):
    from wmtp.prepare.send import check_client, check_destination, send_upload
    from wmtp.prepare.upload import checklist, inspect
    destination = args.destination and check_destination(args.destination)
    if args.go and not destination:
        raise InputError('--go needs a destination; wanted volume://STORAGE/VOLUME after the folder')
    if args.go and args.check: raise InputError('--check sends nothing and --go sends; give one of them')
    if args.go: check_client()
    with tempfile.TemporaryDirectory() as scratch:
        upload = inspect(args.folder, scratch, tuple(args.leave_out), not args.skip_programs)
        if args.check: say(*checklist(upload, destination))
        elif args.go and not upload.refused:
            say(f'{send_upload(upload, destination, scratch)} files were sent')
        else: show(upload, destination, Path(scratch))
    return int(bool(upload.refused))


if __name__ == '__main__': sys.exit(guarded(make_parser(), sync))
