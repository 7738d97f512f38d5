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

from check_package import differences, locale_dependent, overgrown, wrong_doors
from check_pages import broken_links, crowded, markdown, page_faults, plain_python, source
from make_footers import footers, number, with_footer
from make_readme import is_current

ROOT = Path(__file__).resolve().parents[1]

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
    "Faults of one notebook; `exporters` maps a module to its notebook. What exports nothing imports freely."
    opening = '\n'.join(map(source, nb['cells'][:4]))
    if '한글 요약' not in opening: yield 'has no 한글 요약 in its first four cells'
    cleaned = json.loads(json.dumps(nb))
    clean_nb(cleaned, clean_ids=True)
    if nb2str(cleaned) != path.read_text(encoding='utf-8'): yield 'is not clean'
    packages = {name.rpartition('.')[0] for name in exporters if name}
    for name in sorted(set(imported(nb, packages))):
        if name.startswith(('wmtp.configs', 'wmtp.vendor')): continue
        if name not in exporters: yield f'imports {name}, which no notebook exports'
        elif module(nb) and number(exporters[name]) >= number(path):
            yield f'imports {name} from {exporters[name].name}, which does not come before it'

def python_faults(root):
    "Names that nothing defines or uses, lines that are too long."
    ruff = [sys.executable, '-m', 'ruff', 'check', '--quiet', '--output-format=concise']
    done = subprocess.run(ruff, cwd=root, capture_output=True, encoding='utf-8')
    return done.stdout.splitlines() + done.stderr.splitlines()

def front_faults(root, read):
    "Footers, the index and the README: what leads a reader to the notebooks."
    nbs = root/'nbs'
    for path, text in footers(root):
        if with_footer(path, text) != path.read_text(encoding='utf-8'):
            yield f'{path.relative_to(root)} has not the footer that its place gives'
    contents = markdown(nbs/'index.ipynb')
    for path in read:
        name = path.relative_to(nbs).as_posix()
        link = f'({path.parent.relative_to(nbs).as_posix()}/' if name.startswith('appendix') else f'({name})'
        if name != 'index.ipynb' and link not in contents:
            yield f'nbs/{name} is not in the contents of the index'
    if not is_current(root): yield 'README.md is not what nbs/index.ipynb gives'
    yield from (f'README.md {fault}' for fault in broken_links(root/'README.md'))

def faults(root):
    "All faults of a checkout, a line each."
    paths = sorted(p for p in (root/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
    read = {}
    for path in paths:
        try: read[path] = json.loads(path.read_text(encoding='utf-8'))
        except ValueError as e: yield f'{path.relative_to(root)} is not valid JSON: {e}'
    exporters = {module(nb): path for path, nb in read.items()}
    numbers = {re.match(r'\d+[a-z]?', path.name)[0] for path in paths if path.name[0].isdigit()}
    for path, nb in read.items():
        for fault in [*notebook_faults(path, nb, exporters), *page_faults(path, nb, numbers)]:
            yield f'{path.relative_to(root)} {fault}'
    yield from crowded(paths)
    if len(read) == len(paths): yield from [*differences(root, paths), *front_faults(root, read)]
    yield from [*overgrown(root), *wrong_doors(root), *locale_dependent(root), *python_faults(root)]

if __name__ == '__main__':
    lines = list(faults(ROOT))
    print('\n'.join(lines) or 'notebooks: valid, clean, in step, in order')
    sys.exit(bool(lines))
