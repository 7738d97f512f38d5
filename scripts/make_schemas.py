"""Write configs/schema/<run>.json, from which editors complete and check configuration files.

    python scripts/make_schemas.py        # after a change of a setting or of the comment above it
"""
import json

from wmtp.config.editor_schema import run_schema
from wmtp.config.load import config_folder
from wmtp.config.runs import SCHEMAS


def main():
    folder = config_folder()/'schema'
    folder.mkdir(exist_ok=True)
    for run in SCHEMAS:
        (folder/f'{run}.json').write_text(json.dumps(run_schema(run), indent=1) + '\n', encoding='utf-8')


if __name__ == '__main__': main()
