"""Whether wmtp/ is what the notebooks export, and its rooms have kept their size and their doors.

For check_notebooks.py.
"""
import re
import shutil
import tempfile
from pathlib import Path

from nbdev.export import nb_export

MODULE = 350  # lines of a module, at most
SHARE = 1/6   # of the package's lines in one room, at most
ALONE = {'sandbox': {'core'}}  # rooms that could be published alone, and what they may import

def differences(root, notebooks):
    "A line for each module that differs from a fresh export beside a copy of the notebooks."
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)/'wmtp'
        fresh.mkdir()
        shutil.copytree(root/'nbs', Path(folder)/'nbs')
        for path in notebooks: nb_export(Path(folder)/path.relative_to(root), lib_path=fresh)
        exported = {p.relative_to(folder): p.read_text(encoding='utf-8') for p in fresh.rglob('*.py')}
    committed = {p.relative_to(root): p for p in (root/'wmtp').rglob('*.py')
                 if p.name not in ('__init__.py', '_modidx.py')}
    for path in sorted(committed.keys() - exported.keys()): yield f'{path} comes from no notebook'
    for path in sorted(exported.keys() - committed.keys()): yield f'{path} has not been exported'
    for path in sorted(exported.keys() & committed.keys()):
        text = committed[path].read_text(encoding='utf-8')
        if text != exported[path]: yield f'{path} differs from its notebook'

def overgrown(root):
    "A line for each module or room that has become too large to be taken in."
    modules = [p for p in (root/'wmtp').rglob('*.py') if p.name != '_modidx.py']
    lines = {p.relative_to(root): len(p.read_text(encoding='utf-8').splitlines()) for p in modules}
    for path, n in lines.items():
        if n > MODULE: yield f'{path} has {n} lines, at most {MODULE}'
    for room in sorted({path.parent for path in lines} - {Path('wmtp')}):
        n = sum(lines[path] for path in lines if path.parent == room)
        total = sum(lines.values())
        if n > SHARE * total: yield f'{room} holds {n} of {total} lines, at most a sixth'

def wrong_doors(root):
    "A line for each import by which a room that stands alone would need another."
    for room, allowed in ALONE.items():
        for path in sorted((root/'wmtp'/room).glob('*.py')):
            text = path.read_text(encoding='utf-8')
            needed = {*re.findall(r'^\s*from (?:\.\.|wmtp\.)(\w+)', text, re.M)}
            for name in sorted(needed - allowed - {room}):
                yield f'{path.relative_to(root)} imports {name}; {room} needs but {", ".join(allowed)}'
