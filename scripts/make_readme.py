"""Make README.md from nbs/index.ipynb, and its pictures:  python scripts/make_readme.py [--check]

A picture is the output of a cell that says `# README.md shows this as NAME.png`; it is written to
nbs/pictures/. With --check nothing is written; exit code 1 says that something is not current. The same
notebooks always give the same bytes.
"""
import argparse
import base64
import re
import sys
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parents[1]
HIDDEN = {'hide', 'default_exp'}

def visible(cell):
    "A cell as the page shows it, or None."
    if cell.cell_type == 'code':
        if HIDDEN & {*re.findall(r'^#\|\s*(\w+)', cell.source, re.M)}: return None
        cell.source = re.sub(r'^#\|.*\n?', '', cell.source, flags=re.M)
    return cell

def relink(link, root):
    "A link of the index as it reads from the root, where README.md lies."
    name, sharp, anchor = link.partition('#')
    if re.match(r'[a-z]+:|[#/]', link): return link
    target = (root/'nbs'/name).resolve()
    return f'{target.relative_to(root).as_posix() if target.is_relative_to(root) else name}{sharp}{anchor}'

def readme(root):
    "The text of README.md: the index without hidden cells and generated pictures."
    nb = nbformat.read(root/'nbs'/'index.ipynb', as_version=4)
    nb.cells = [cell for cell in map(visible, nb.cells) if cell is not None]
    text, _ = MarkdownExporter().from_notebook_node(nb)
    text = re.sub(r'^[ \t]*!\[[^\]]*\]\(output_\w+\.\w+\)[ \t]*$', '', text, flags=re.M)
    text = re.sub(r'(?<=\]\()[^()\s]+(?=\))', lambda link: relink(link[0], root), text)
    text = re.sub(r'[ \t]+$', '', text, flags=re.M)
    return re.sub(r'\n{3,}', '\n\n', text).strip() + '\n'

def pictures(root):
    "Each picture of README.md by its path: what the notebook that makes it has shown."
    found = {}
    for path in sorted((root/'nbs').rglob('*.ipynb')):
        if not (text := path.read_text(encoding='utf-8')).count('# README.md shows this as '): continue
        for cell in nbformat.reads(text, as_version=4).cells:
            name = re.search(r'^# README\.md shows this as (\w+\.png)$', cell.source, re.M)
            if cell.cell_type != 'code' or not name: continue
            shown, = [out.data['image/png'] for out in cell.outputs if 'image/png' in out.get('data', {})]
            found[root/'nbs'/'pictures'/name[1]] = base64.b64decode(shown)
    return found

def wanted(root):
    "Everything that this script writes, bytes by path."
    return {root/'README.md': readme(root).encode('utf-8'), **pictures(root)}

def is_current(root):
    "Whether README.md and its pictures are what the notebooks give."
    return all(path.is_file() and path.read_bytes() == content for path, content in wanted(root).items())

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--check', action='store_true', help='only say whether README.md is current')
    if parser.parse_args().check:
        sys.exit(0 if is_current(ROOT) else 'README.md is not current: run python scripts/make_readme.py')
    for path, content in wanted(ROOT).items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
