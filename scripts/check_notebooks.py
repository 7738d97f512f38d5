"""Check that notebooks, package and README agree, and the code's names and lines:  python scripts/check_notebooks.py

Changes nothing. One line per fault, exit code 1 if there is any. Mend with `nbdev_clean`, `nbdev_export`, `python scripts/make_readme.py`.
"""
import ast, json, re, shutil, subprocess, sys, tempfile
from math import inf
from pathlib import Path

from execnb.nbio import nb2str
from nbdev.clean import clean_nb
from nbdev.export import nb_export

from make_readme import is_current

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted(p for p in (ROOT/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)

def source(cell): return ''.join(cell['source'])

def order(path): # 01_x < 01a_y < 10_z; a notebook without a number comes after all
    number = re.match(r'(\d+)([a-z]?)_', path.name)
    return (int(number[1]), number[2]) if number else (inf, '')

def module(nb): # the module a notebook exports to, or None
    found = re.search(r'^#\|\s*default_exp\s+(\S+)', '\n'.join(map(source, nb['cells'])), re.M)
    return found and f'wmtp.{found[1]}'

def imported(nb, packages): # the wmtp modules that a notebook's code imports; a package is a folder of them
    for cell in nb['cells']:
        if cell['cell_type'] != 'code' or source(cell).startswith('%%'): continue
        lines = [re.sub(r'^(\s*)[%!].*', r'\1pass', line) for line in source(cell).splitlines()]
        for node in ast.walk(ast.parse('\n'.join(lines))):
            if isinstance(node, ast.Import):
                yield from (a.name for a in node.names if a.name.startswith('wmtp'))
            if isinstance(node, ast.ImportFrom) and (node.module or '').split('.')[0] == 'wmtp':
                yield from ([f'{node.module}.{a.name}' for a in node.names] if node.module in packages
                            else [node.module])

def check_notebook(path, nb, rooms): # faults of one notebook; `rooms` maps a module to its notebook
    opening = '\n'.join(map(source, nb['cells'][:4]))
    if '한글 요약' not in opening: yield 'has no 한글 요약 in its first four cells'
    cleaned = json.loads(json.dumps(nb))
    clean_nb(cleaned, clean_ids=True)
    if nb2str(cleaned) != path.read_text(encoding='utf-8'): yield 'is not clean'
    packages = {name.rpartition('.')[0] for name in rooms if name}
    for name in sorted(set(imported(nb, packages))):
        if name.startswith(('wmtp.configs', 'wmtp.vendor')): continue
        if name not in rooms: yield f'imports {name}, which no notebook exports'
        elif order(rooms[name]) >= order(path):
            yield f'imports {name} from {rooms[name].name}, which does not come before it'

def check_package(): # faults of wmtp/ against a fresh export beside a copy of the notebooks
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)/'wmtp'
        fresh.mkdir()
        shutil.copytree(ROOT/'nbs', Path(folder)/'nbs')
        for path in NOTEBOOKS: nb_export(Path(folder)/path.relative_to(ROOT), lib_path=fresh)
        made = {p.relative_to(folder): p.read_text(encoding='utf-8') for p in fresh.rglob('*.py')}
    kept = {p.relative_to(ROOT): p for p in (ROOT/'wmtp').rglob('*.py')
            if p.name not in ('__init__.py', '_modidx.py')}
    for path in sorted(kept.keys() - made.keys()): yield f'{path} comes from no notebook'
    for path in sorted(made.keys() - kept.keys()): yield f'{path} has not been exported'
    for path in sorted(made.keys() & kept.keys()):
        if kept[path].read_text(encoding='utf-8') != made[path]: yield f'{path} differs from its notebook'

def check_python(): # names that nothing defines or uses, lines that are too long
    done = subprocess.run([sys.executable, '-m', 'ruff', 'check', '--quiet', '--output-format=concise'],
                          cwd=ROOT, capture_output=True, text=True)
    return done.stdout.splitlines() + done.stderr.splitlines()

def main():
    faults, read = [], {}
    for path in NOTEBOOKS:
        try: read[path] = json.loads(path.read_text(encoding='utf-8'))
        except ValueError as e: faults.append(f'{path.relative_to(ROOT)} is not valid JSON: {e}')
    rooms = {module(nb): path for path, nb in read.items()}
    for path, nb in read.items():
        faults += [f'{path.relative_to(ROOT)} {fault}' for fault in check_notebook(path, nb, rooms)]
    if len(read) == len(NOTEBOOKS): faults += check_package()
    faults += check_python()
    if not is_current(): faults.append('README.md is not what nbs/index.ipynb gives')
    print('\n'.join(faults) or f'{len(NOTEBOOKS)} notebooks: valid, clean, in step, in order')
    return bool(faults)

if __name__ == '__main__': sys.exit(main())
