"""Make README.md from nbs/index.ipynb:  python scripts/make_readme.py [--check]

With --check nothing is written; exit code 1 says that README.md is not current. The same notebook always
gives the same bytes.
"""
import argparse, re, sys
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parents[1]
INDEX, README = ROOT/'nbs'/'index.ipynb', ROOT/'README.md'
HIDDEN = ('hide', 'default_exp')

def directives(cell): return re.findall(r'^#\|\s*(\w+)', cell.source, re.M)

def visible(cell): # a cell as the page shows it, or None
    if cell.cell_type == 'code':
        if set(directives(cell)) & set(HIDDEN): return None
        cell.source = re.sub(r'^#\|.*\n?', '', cell.source, flags=re.M)
    return cell

def relink(match): # a link as it reads from the root, where README.md lies
    link = match[2]
    if re.match(r'[a-z]+:|[#/]', link): return match[0]
    there = (INDEX.parent/link.partition('#')[0]).resolve()
    place = there.relative_to(ROOT).as_posix() if there.is_relative_to(ROOT) else link
    return f'{match[1]}{place}{link[len(link.partition("#")[0]):]})'

def make():
    "README.md's text: the notebook's page without hidden cells and generated pictures."
    nb = nbformat.read(INDEX, as_version=4)
    nb.cells = [cell for cell in map(visible, nb.cells) if cell is not None]
    text, _ = MarkdownExporter().from_notebook_node(nb)
    text = re.sub(r'^[ \t]*!\[[^\]]*\]\(output_\w+\.\w+\)[ \t]*$', '', text, flags=re.M)
    text = re.sub(r'(\]\()([^()\s]+)\)', relink, text)
    text = re.sub(r'[ \t]+$', '', text, flags=re.M)
    return re.sub(r'\n{3,}', '\n\n', text).strip() + '\n'

def is_current():
    "Whether README.md is what the notebook gives; true where there is no index notebook."
    return not INDEX.is_file() or README.read_text(encoding='utf-8') == make()

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--check', action='store_true', help='only say whether README.md is current')
    if parser.parse_args().check:
        sys.exit(0 if is_current() else 'README.md is not current: run python scripts/make_readme.py')
    README.write_text(make(), encoding='utf-8')
