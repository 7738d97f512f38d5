"""Make README.md from nbs/index.ipynb:  python scripts/make_readme.py [--check]

With --check nothing is written; exit code 1 says that README.md is not current. The same notebook always
gives the same bytes.
"""
import argparse
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

def is_current(root):
    "Whether README.md is what the notebook gives."
    path = root/'README.md'
    return path.is_file() and path.read_text(encoding='utf-8') == readme(root)

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--check', action='store_true', help='only say whether README.md is current')
    if parser.parse_args().check:
        sys.exit(0 if is_current(ROOT) else 'README.md is not current: run python scripts/make_readme.py')
    (ROOT/'README.md').write_text(readme(ROOT), encoding='utf-8')
