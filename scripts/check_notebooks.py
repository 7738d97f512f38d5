"""Check notebooks, package, README and code:  python scripts/check_notebooks.py

Notebooks are valid, clean, in step with wmtp/, import downward only and show what a reader can use; names
and lines of the code are right. Changes nothing. One line per fault, exit code 1 if there is any. Mend with
`nbdev_clean`, `nbdev_export`, `python scripts/make_footers.py`, `python scripts/make_readme.py`.
"""
import ast
import json
import re
import subprocess
import sys
from pathlib import Path

from execnb.nbio import nb2str
from nbdev.clean import clean_nb

from check_package import differences, overgrown, wrong_doors
from check_pages import broken_links, crowded, page_faults, plain_python, source
from make_footers import number
from make_readme import README, is_current

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted(p for p in (ROOT/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)

def module(nb):
    "The module a notebook exports to, or None."
    directive = re.search(r'^#\|\s*default_exp\s+(\S+)', '\n'.join(map(source, nb['cells'])), re.M)
    return directive and f'wmtp.{directive[1]}'

def imported(nb, packages):
    "The wmtp modules that a notebook's code imports; a package is a folder of them."
    for cell in nb['cells']:
        if cell['cell_type'] != 'code' or source(cell).startswith('%%'): continue
        for node in ast.walk(ast.parse(plain_python(cell))):
            if isinstance(node, ast.Import):
                yield from (a.name for a in node.names if a.name.startswith('wmtp'))
            if isinstance(node, ast.ImportFrom) and (node.module or '').split('.')[0] == 'wmtp':
                names = [f'{node.module}.{a.name}' for a in node.names]
                yield from names if node.module in packages else [node.module]

def notebook_faults(path, nb, exporters):
    "Faults of one notebook; `exporters` maps a module to its notebook."
    opening = '\n'.join(map(source, nb['cells'][:4]))
    if '한글 요약' not in opening: yield 'has no 한글 요약 in its first four cells'
    cleaned = json.loads(json.dumps(nb))
    clean_nb(cleaned, clean_ids=True)
    if nb2str(cleaned) != path.read_text(encoding='utf-8'): yield 'is not clean'
    packages = {name.rpartition('.')[0] for name in exporters if name}
    for name in sorted(set(imported(nb, packages))):
        if name.startswith(('wmtp.configs', 'wmtp.vendor')): continue
        if name not in exporters: yield f'imports {name}, which no notebook exports'
        elif number(exporters[name]) >= number(path):
            yield f'imports {name} from {exporters[name].name}, which does not come before it'

def python_faults():
    "Names that nothing defines or uses, lines that are too long."
    ruff = [sys.executable, '-m', 'ruff', 'check', '--quiet', '--output-format=concise']
    done = subprocess.run(ruff, cwd=ROOT, capture_output=True, text=True)
    return done.stdout.splitlines() + done.stderr.splitlines()

def faults():
    "All faults of the checkout, a line each."
    read = {}
    for path in NOTEBOOKS:
        try: read[path] = json.loads(path.read_text(encoding='utf-8'))
        except ValueError as e: yield f'{path.relative_to(ROOT)} is not valid JSON: {e}'
    exporters = {module(nb): path for path, nb in read.items()}
    numbers = {re.match(r'\d+[a-z]?', path.name)[0] for path in NOTEBOOKS if path.name[0].isdigit()}
    for path, nb in read.items():
        for fault in [*notebook_faults(path, nb, exporters), *page_faults(path, nb, numbers)]:
            yield f'{path.relative_to(ROOT)} {fault}'
    yield from crowded(NOTEBOOKS)
    if len(read) == len(NOTEBOOKS): yield from differences(ROOT, NOTEBOOKS)
    yield from [*overgrown(ROOT), *wrong_doors(ROOT), *python_faults()]
    if not is_current(): yield 'README.md is not what nbs/index.ipynb gives'
    if README.is_file(): yield from (f'README.md {fault}' for fault in broken_links(README))

if __name__ == '__main__':
    found = list(faults())
    print('\n'.join(found) or f'{len(NOTEBOOKS)} notebooks: valid, clean, in step, in order')
    sys.exit(bool(found))
