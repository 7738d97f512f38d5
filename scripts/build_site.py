"""Make the site of all notebooks:  python scripts/build_site.py --out _site

Plain pages that need no server: the book in its order, the appendix wing by wing, search over every section,
light and dark. Links to notebooks lead to pages, links to other files to the repository. Only formulas are
drawn by a script from the network.
"""
import argparse
import configparser
import json
import re
import shutil
import sys
from pathlib import Path

import nbformat
from jinja2 import Environment, FileSystemLoader
from nbconvert import HTMLExporter
from pygments.formatters import HtmlFormatter

from make_footers import number
from make_readme import visible

ROOT, PARTS = Path(__file__).resolve().parents[1], Path(__file__).parent/'site'


def notebooks(root):
    "All notebooks as they are read: the index, the book by its numbers, then the appendix by its wings."
    found = [path for path in (root/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in path.parts]
    wing = lambda path: path.parent.name if 'appendix' in path.parts else ''
    return sorted(found, key=lambda path: (path.stem != 'index', wing(path), number(path)))

def title_of(nb):
    "The heading of a notebook."
    return re.search(r'^# (.+)', '\n'.join(cell.source for cell in nb.cells), re.M)[1]

def sections(nb):
    "The prose of a notebook, section by section: (anchor, heading, text)."
    text = '\n'.join(cell.source for cell in nb.cells if cell.cell_type == 'markdown' and cell.id != 'footer')
    parts = re.split(r'^#+ (.+)$', text, flags=re.M)[1:]
    for heading, body in zip(parts[::2], parts[1::2]):
        plain = re.sub(r'\[([^\]]*)\]\([^)]*\)|[*`|#>$]+', lambda link: link[1] or '', body)
        yield heading.replace(' ', '-'), heading, ' '.join(plain.split())

def relink(html, page, root, source):
    "The links of a page: to notebooks as pages, to other files of the repository where they are shown."
    def new(match):
        name, sharp, anchor = match[2].partition('#')
        if re.match(r'[a-z]+:|/', name) or not name: return match[0]
        target = (page.parent/name).resolve()
        if target.suffix == '.ipynb': link = name.removesuffix('.ipynb') + '.html'
        elif target.is_relative_to(root): link = f'{source}/{target.relative_to(root).as_posix()}'
        else: return match[0]
        return f'{match[1]}"{link}{sharp}{anchor}"'
    return re.sub(r'(<a [^>]*?href=|<img [^>]*?src=)"([^"]*)"', new, html)


def build(root, out, paths=None):
    "Write the site of some notebooks, by default of all, into a folder that is made anew."
    settings = configparser.ConfigParser()
    settings.read(root/'settings.ini')
    source = f"{settings['DEFAULT']['git_url']}/blob/{settings['DEFAULT']['branch']}"
    paths = paths or notebooks(root)
    books = {path: nbformat.read(path, as_version=4) for path in paths}
    place = {path: path.relative_to(root/'nbs').with_suffix('.html') for path in paths}
    shelves = {}
    for path in paths: shelves.setdefault(place[path].parent.as_posix(), []).append(path)
    env = Environment(loader=FileSystemLoader(PARTS), autoescape=False)
    page, exporter, index = env.get_template('page.html'), HTMLExporter(template_name='basic'), []
    shutil.rmtree(out, ignore_errors=True)
    for i, path in enumerate(paths):
        nb = books[path]
        index += [[place[path].as_posix(), title_of(nb), *section] for section in sections(nb)]
        nb.cells = [cell for cell in map(visible, nb.cells) if cell is not None]
        body, _ = exporter.from_notebook_node(nb)
        up = '../' * (len(place[path].parts) - 1)
        shelf = [(name, [(up + place[p].as_posix(), p.stem, p == path) for p in some])
                 for name, some in sorted(shelves.items())]
        html = page.render(title=title_of(nb), body=relink(body, path, root, source), up=up, shelves=shelf)
        (out/place[path]).parent.mkdir(parents=True, exist_ok=True)
        (out/place[path]).write_text(html, encoding='utf-8')
    text = json.dumps(index, ensure_ascii=False)
    (out/'sections.js').write_text(f'const SECTIONS = {text}\n', encoding='utf-8')
    light, dark = (HtmlFormatter(style=name).get_style_defs('.highlight')
                   for name in ('default', 'github-dark'))
    style = (PARTS/'style.css').read_text(encoding='utf-8')
    style += f'\n{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n'
    (out/'style.css').write_text(style, encoding='utf-8')
    shutil.copy(PARTS/'search.js', out/'search.js')

def dead_links(out):
    "Links between pages of the site that lead nowhere."
    ids = {}
    def anchors(path):
        if path not in ids: ids[path] = {*re.findall(r'\bid="([^"]+)"', path.read_text(encoding='utf-8'))}
        return ids[path]
    for page in sorted(out.rglob('*.html')):
        for link in re.findall(r'(?:href|src)="([^"]+)"', page.read_text(encoding='utf-8')):
            name, _, anchor = link.partition('#')
            if re.match(r'[a-z]+:', link): continue
            target = (page.parent/name).resolve() if name else page
            if not target.is_file() or anchor and target.suffix == '.html' and anchor not in anchors(target):
                yield f'{page.relative_to(out)}: {link}'


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=ROOT/'_site', metavar='DIR', help='made anew each time')
    args = parser.parse_args()
    build(ROOT, args.out)
    for link in (dead := [*dead_links(args.out)]): print(link, file=sys.stderr)
    return f'{len(dead)} links lead nowhere' if dead else 0

if __name__ == '__main__': sys.exit(main())
