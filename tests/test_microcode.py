"""The embedded data set is what its script makes, byte for byte."""
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT/'storage'/'datasets'/'microcode'


def test_rebuilding_gives_the_shipped_files(tmp_path):
    subprocess.run([sys.executable, 'scripts/make_microcode.py', str(tmp_path)], cwd=ROOT, check=True,
                   capture_output=True)
    metadata = json.loads((tmp_path/'metadata.json').read_text())
    # holds the SHA-256 of each file's text
    assert metadata == json.loads((SHIPPED/'metadata.json').read_text())
    assert (tmp_path/'tokenizer.model').read_bytes() == (SHIPPED/'tokenizer.model').read_bytes()
    if sys.version_info[:2] == (3, 11):  # the compressed bytes belong to one zlib
        for name in metadata['files']: assert (tmp_path/name).read_bytes() == (SHIPPED/name).read_bytes()
