"""Write "previous · up · next" under each notebook:  python scripts/make_footers.py

The book is read in the order of its numbers, the whole method first, each wing of the appendix in its own.
"""
import json
import os
import re
from math import inf
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

FIRST = '00_method'

def number(path):
    "Where a notebook stands: the first page < 01_x < 01a_y < 10_z; one without a number comes last."
    if path.stem == FIRST: return -1, ''
    digits = re.match(r'(\d+)([a-z]?)_', path.name)
    return (int(digits[1]), digits[2]) if digits else (inf, path.stem)

def footers(root):
    "Each notebook and the Markdown of its footer; the index has none."
    shelves, nbs = {}, root/'nbs'
    for path in sorted(nbs.rglob('[0-9]*.ipynb'), key=number):
        if '.ipynb_checkpoints' in path.parts: continue
        shelves.setdefault(path.parent if 'appendix' in path.relative_to(nbs).parts else nbs, []).append(path)
    for shelf in shelves.values():
        for before, path, after in zip([None, *shelf], shelf, [*shelf[1:], None]):
            link = lambda target: f'[{target.stem}]({Path(os.path.relpath(target, path.parent)).as_posix()})'
            targets = {'previous': before, 'up': nbs/'index.ipynb', 'next': after}
            links = [f'{word}: {link(target)}' for word, target in targets.items() if target]
            yield path, '---\n' + ' · '.join(links)

def with_footer(path, text):
    "The notebook's JSON with this footer as its last cell."
    nb = json.loads(path.read_text(encoding='utf-8'))
    cell = {'cell_type': 'markdown', 'id': 'footer', 'metadata': {}, 'source': text.splitlines(keepends=True)}
    # an editor that has lost the id leaves the text behind
    is_footer = lambda c: c['cell_type'] == 'markdown' and ''.join(c['source']).startswith('---')
    nb['cells'] = [c for c in nb['cells'] if not is_footer(c)] + [cell]
    return json.dumps(nb, sort_keys=True, indent=1, ensure_ascii=False) + '\n'

def write(root):
    "Give every notebook its footer."
    for path, text in footers(root): path.write_text(with_footer(path, text), encoding='utf-8')

if __name__ == '__main__': write(ROOT)
