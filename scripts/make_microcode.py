"""Rebuild the embedded data set: python scripts/make_microcode.py [FOLDER]

Writes {train,valid,test,problems}.jsonl.gz, metadata.json and tokenizer.model, the same bytes each time.
"""
import argparse
import gzip
import json
from pathlib import Path

from wmtp.data.tokenizer import train_tokenizer
from wmtp.microcode.dataset import write_microcode

VOCAB_SIZE = 768

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument('folder', nargs='?', default='storage/datasets/microcode')
folder = Path(p.parse_args().folder)
folder.mkdir(parents=True, exist_ok=True)
metadata = write_microcode(folder)
rows = [json.loads(line) for line in gzip.open(folder/'train.jsonl.gz')]
texts = [text for row in rows for text in (row['instruction'] + '\n', row['output'])]
(folder/'tokenizer.model').write_bytes(train_tokenizer(texts, VOCAB_SIZE))
for name, file in metadata['files'].items():
    print(f"{name:20} {file['rows']:6} rows  sha256 {file['sha256_text'][:16]}")
