"""Package metadata lives in settings.ini; this file only hands it to setuptools."""
import shlex
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

cfg = ConfigParser(delimiters=['='], interpolation=None)
cfg.read('settings.ini', encoding='utf-8')
s = cfg['DEFAULT']

# configs/ and vendor/ stay at the top of a checkout and travel in the wheel as wmtp.configs and wmtp.vendor
# (the wmtp/vendor/ of a checkout only points to vendor/ and is left out).
packages = find_packages(include=['wmtp', 'wmtp.*'], exclude=['wmtp.vendor'])
vendored = [p.replace('vendor', 'wmtp.vendor', 1) for p in find_packages(include=['vendor', 'vendor.*'])]

setup(
    name=s['lib_name'], version=s['version'], description=s['description'], author=s['author'],
    license='Apache-2.0', python_requires=f">={s['min_python']}",
    long_description=Path('README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    packages=packages + ['wmtp.configs'] + vendored,
    package_dir={'wmtp.configs': 'configs', 'wmtp.vendor': 'vendor'},
    package_data={'wmtp': ['web/*'], 'wmtp.configs': ['*.yaml', '*/*.yaml'], 'wmtp.vendor': ['**/*.md']},
    install_requires=shlex.split(s['requirements']),
    extras_require={'dev': shlex.split(s['dev_requirements'])},
    entry_points={'console_scripts': shlex.split(s['console_scripts'])},
    zip_safe=False,
)
