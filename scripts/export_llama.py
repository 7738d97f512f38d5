"""One head of a policy as a plain Hugging Face Llama, for vLLM, lm-eval, EvalPlus or GGUF.

  python scripts/export_llama.py --checkpoint storage/checkpoints/verifiable_local --head 1 --out llama

PATH is a policy, its LoRA, the folder of a run (its best checkpoint) or an address runs:/<id>/<path>.
A LoRA is merged into the policy it was trained on; --base says where that is, if it has moved. Head 1 is an
ordinary language model; head K gives, after each token, the K-th next one.

DIR must not exist. What cannot be exported ends in one line and exit code 2.
"""
import argparse
import sys
import tempfile

from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, GenerationConfig

from wmtp.cli import Arguments, guarded
from wmtp.convert.llama import mtp_to_llama
from wmtp.convert.meta import new_folder
from wmtp.core import InputError
from wmtp.data.tokenizer import load_tokenizer
from wmtp.models.causal_lm import open_causal_lm
from wmtp.pipelines.evaluate import find_model
from wmtp.runtime.output import say


def export(checkpoint, head, target, base=None):
    "Write the Llama of a head, with the tokenizer and the ids that begin and end a text."
    with tempfile.TemporaryDirectory() as cache, new_folder(target) as part:
        folder = find_model(checkpoint, cache)
        door, tokenizer = open_causal_lm(folder, base=base), load_tokenizer(folder)
        if not door.is_ours: raise InputError(f"{folder} is Hugging Face's already; wanted a policy of ours")
        llama = mtp_to_llama(door.network, head)
        ids = {f'{name}_token_id': getattr(tokenizer, f'{name}_id') for name in ('bos', 'eos', 'pad')}
        llama.config.update(ids)
        llama.generation_config = GenerationConfig(**ids)
        llama.save_pretrained(part)
        save_tokenizer(tokenizer, part)
    return llama.num_parameters()

def save_tokenizer(tokenizer, folder):
    "Write it for AutoTokenizer, which then puts BOS in front of a text, as training did."
    tokenizer.save(folder)
    theirs = AutoTokenizer.from_pretrained(folder)
    bos = theirs.convert_ids_to_tokens(tokenizer.bos_id), tokenizer.bos_id
    theirs.backend_tokenizer.post_processor = TemplateProcessing(single=f'{bos[0]} $A', special_tokens=[bos])
    theirs.save_pretrained(folder)

def make_parser():
    p = Arguments(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--checkpoint', required=True, metavar='PATH', help='a policy, its LoRA, or a run')
    p.add_argument('--head', type=int, default=1, metavar='K', help='which one, from 1 (default: 1)')
    p.add_argument('--out', required=True, metavar='DIR', help='folder to make')
    p.add_argument('--base', metavar='PATH', help='the policy under a LoRA (default: as recorded)')
    return p


def export_head(a, stop):
    n = export(a.checkpoint, a.head, a.out, a.base)
    say(f'{n:,} parameters in {a.out}; open it with transformers.AutoModelForCausalLM')
    return 0


if __name__ == '__main__': sys.exit(guarded(make_parser(), export_head))
