"""Whether wmtp/ is what the notebooks export, and its rooms have kept their size and their doors;
whether files are read and written as UTF-8 whatever the locale.

For check_notebooks.py.
"""
import ast
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
    committed = {p.relative_to(root): p for p in (root/'wmtp').rglob('*.py') if p.name != '_modidx.py'
                 and (p.name != '__init__.py' or p.relative_to(root) in exported)}
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

BINARY = {'os', 'tarfile', 'fsspec', 'safetensors'}  # modules whose `open` gives bytes
PACKED = {'gzip', 'bz2', 'lzma'}  # modules whose `open` gives bytes unless 't' is in the mode

def opens_text(call):
    "Whether a call reads or writes text, in the locale's encoding unless it says which."
    named = {k.arg: k.value for k in call.keywords}
    if getattr(named.get('text'), 'value', False) is True: return True
    name = getattr(call.func, 'attr', getattr(call.func, 'id', None))
    if name in ('read_text', 'write_text'): return len(call.args) < (1 if name == 'read_text' else 2)
    if name not in ('open', 'fdopen', 'NamedTemporaryFile', 'TemporaryFile'): return False
    home = getattr(getattr(call.func, 'value', None), 'id', None)
    if name == 'open' and home in BINARY: return False
    modes = [a.value for a in (*call.args, named.get('mode'))
             if isinstance(a, ast.Constant) and re.fullmatch('[rwxabt+]+', str(a.value))]
    mode = modes[0] if modes else 'b' if home in PACKED or 'Temporary' in name else 'r'
    return 't' in mode if home in PACKED else 'b' not in mode

def locale_dependent(root):
    "A line for each call that reads or writes text without saying that it is UTF-8."
    for path in sorted([*(root/'wmtp').rglob('*.py'), *(root/'scripts').rglob('*.py')]):
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if not isinstance(node, ast.Call) or not opens_text(node): continue
            if 'encoding' not in {k.arg for k in node.keywords}:
                yield f"{path.relative_to(root)}:{node.lineno} reads or writes text; say encoding='utf-8'"
