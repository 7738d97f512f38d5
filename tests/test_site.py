"""The site of the notebooks, from three of them; the workflow builds the whole."""
import json
import sys

from commands import ROOT

sys.path.insert(0, str(ROOT/'scripts'))
import build_site  # noqa: E402


def test_pages_link_to_pages_and_to_files_of_the_repository(tmp_path):
    paths = [ROOT/'nbs'/name for name in ('index.ipynb', '00_core.ipynb', '9_reports/93_scarce_study.ipynb')]
    build_site.build(ROOT, tmp_path, paths)
    page = (tmp_path/'9_reports'/'93_scarce_study.html').read_text('utf-8')
    assert 'href="../index.html"' in page and '/blob/main/configs/study/scarce.yaml"' in page
    assert '.ipynb"' not in page and 'default_exp' not in page and 'data:image/png' in page
    made = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob('*.html')}
    assert made == {'index.html', '00_core.html', '9_reports/93_scarce_study.html'}
    sections = json.loads((tmp_path/'sections.js').read_text('utf-8').removeprefix('const SECTIONS = '))
    ours = [anchor for name, _, anchor, *_ in sections if name.startswith('9_reports')]
    assert len(ours) > 5 and all(f'id="{anchor}"' in page for anchor in ours)
    dead = {line.split(': ')[1].partition('#')[0] for line in build_site.dead_links(tmp_path)}
    assert dead and all(link.endswith('.html') for link in dead) # pages that were not made
    (tmp_path/'00_core.html').unlink()
    assert 'index.html: 00_core.html' in {*build_site.dead_links(tmp_path)}
