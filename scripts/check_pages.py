"""What a page shows its reader: links that lead somewhere, lines that fit, outputs that say something.

For check_notebooks.py.
"""
import ast
import json
import re
from urllib.parse import unquote

WIDTH = 110  # characters of a code line, at most
CROWD = 15   # notebooks of a folder, at most
LINK = re.compile(r'\]\(([^()\s]+)\)')
MACHINE = re.compile(r'(?<![\w.])/(?:home|root|work|Users|mnt|tmp/tmp|var/folders)/?\w[^\s\'"\\]*')
UNSEEN = re.compile(r'^#\|\s*(?:hide|slow|gpu|net|eval)', re.M)  # cells that leave no output in the page

def source(cell): return ''.join(cell['source'])

def plain_python(cell):
    "The code of a cell with its magic lines taken out."
    return re.sub(r'^(\s*)[%!].*', r'\1pass', source(cell), flags=re.M)

def markdown(path):
    "The Markdown of a page, be it a notebook or a .md file."
    text = path.read_text(encoding='utf-8')
    if path.suffix != '.ipynb': return text
    return '\n\n'.join(source(cell) for cell in json.loads(text)['cells'] if cell['cell_type'] == 'markdown')

def anchors(path):
    "The places in a page that a link can name, as JupyterLab and as GitHub spell them."
    text = markdown(path)
    for heading in re.findall(r'^#{1,6} +(.+?) *$', text, re.M):
        yield heading.replace(' ', '-')
        yield re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-')
    yield from re.findall(r'<a (?:id|name)="([^"]+)"', text)

def broken_links(path):
    "A line for each relative link of a page that leads nowhere."
    for link in LINK.findall(markdown(path)):
        if re.match(r'[a-z]+:', link): continue
        name, _, anchor = unquote(link).partition('#')
        target = (path.parent/name).resolve() if name else path
        if not target.exists(): yield f'links to {link}, which is not there'
        elif anchor and target.suffix in ('.ipynb', '.md') and anchor not in anchors(target):
            yield f'links to {link}, which has no such heading'

def bare_mentions(text, numbers):
    "A line for each mention of another notebook that is no link."
    prose = re.sub(r'\[[^\]]*\]\([^()\s]*\)|`[^`]*`|\$[^$]*\$', '', text)
    for name in map(''.join, re.findall(r'\b(\d\d[a-z])\b|\bnotebooks? (\d\d)\b|\b(conventions \d)', prose)):
        if name in numbers or name.startswith('conventions'): yield f'mentions {name!r} without a link'

def silent(cell):
    "Whether a code cell ends in a value of which nothing is shown."
    for output in cell['outputs']:
        value = ''.join(output.get('data', {}).get('text/plain', output.get('text', 'a picture or an error')))
        if value.strip() in ('', "''", '""'): return True
    last = (ast.parse(plain_python(cell)).body or [None])[-1]
    if not isinstance(last, ast.Expr) or isinstance(last.value, (ast.Call, ast.Constant)): return False
    return not (cell['outputs'] or source(cell).rstrip().endswith(';') or UNSEEN.search(source(cell)))

def heap(cell):
    "Whether a cell shows a dictionary over several lines, where a table would be read."
    shown = [''.join(out.get('data', {}).get('text/plain', '')) for out in cell['outputs']]
    return any(text.startswith('{') and '\n' in text for text in shown)

def page_faults(path, nb, numbers):
    "What a reader of one notebook would stumble over, a line each; `numbers` are those of all notebooks."
    yield from broken_links(path)
    yield from bare_mentions(markdown(path), numbers)
    for k, cell in enumerate(nb['cells']):
        if cell['cell_type'] != 'code' or source(cell).startswith('%%'): continue
        for line in source(cell).splitlines():
            if len(line) > WIDTH:
                yield f'has {len(line)} characters, at most {WIDTH}, in a line of cell {k}: {line[:40]}'
        for mention in re.findall(r'conventions \d', source(cell)):
            yield f'says {mention!r} in the code of cell {k}'
        if silent(cell): yield f'ends cell {k} in a value and shows nothing'
        if heap(cell): yield f'shows a dictionary over several lines in cell {k}; make it a table'
        if machine := MACHINE.search(str(cell['outputs'])): yield f'shows {machine[0][:50]} in cell {k}'

def crowded(paths):
    "A line for each folder that holds too many notebooks to be taken in."
    folders = [p.parent for p in paths]
    for folder in sorted({*folders}):
        n = folders.count(folder)
        if n > CROWD: yield f'{folder.name}/ holds {n} notebooks, at most {CROWD}'
