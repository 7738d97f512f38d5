"""Decoding: with a cache beside without one, 16 rows beside 1, drafts of the extra heads beside plain greedy.

Goals: the cache at least 5 times faster over 256 new tokens (at the micro policy's size a step costs mostly
its hundred or so calls, so a larger size stands beside it); 16 rows at least 4 times the tokens per second
of one; drafts at least 1.3 times plain greedy, one row at a time, with a trained micro policy on
microcode's prompts. Drafts depend on training, so that part needs storage/models/micro-policy: `python
scripts/make_micro_models.py --only policy`, some minutes. A model of Hugging Face's, greedily, beside its own
generate(): the same tokens, at least as fast; a random Llama of SmolLM2's shape with a smaller vocabulary,
or the folder that WMTP_CAUSAL_LM names.
"""
import os
from functools import partial

import torch
from measure import median, table, timed
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from wmtp.config.load import project_root
from wmtp.data.tokenizer import load_tokenizer
from wmtp.evaluation.benchmarks import load_benchmark
from wmtp.evaluation.generate import generate
from wmtp.evaluation.speculative import acceptance, speedup_bound
from wmtp.models.mtp import MetaLlamaMTPAdapter

FOLDER = project_root()/'storage'/'models'/'micro-policy'


class NoEnd:
    "A tokenizer without an end of text, so that every answer has full length."
    def __init__(self, vocab_size=768): self.bos_id, self.eos_id, self.vocab_size = 1, -1, vocab_size

    def decode(self, ids): return ''


def interleaved(works, draws):
    "Median seconds of each call, the calls in turn; the first round warms up."
    seconds = {name: [] for name in works}
    for _ in range(1 + draws):
        for name, work in works.items(): seconds[name].append(timed(work))
    return {name: median(s[1:]) for name, s in seconds.items()}


@torch.inference_mode()
def read_again(model, prompt, n):
    "Greedy decoding that reads the whole row for every token."
    row = torch.tensor([prompt], device=model.device)
    for _ in range(n): row = torch.cat([row, model(row)[:, -1:].argmax(-1)], 1)


def sizes(draws, device, dim, n_layers, hidden_dim):
    "Cache and batch, by a random policy."
    torch.manual_seed(0)
    model = MetaLlamaMTPAdapter.micro(768, dim, n_layers, 4, hidden_dim, 512).to(device).eval()
    prompts = torch.randint(4, 768, (16, 40)).tolist()
    took = interleaved({'everything read again': lambda: read_again(model, prompts[0], 256),
                        'with cache': lambda: generate(model, NoEnd(), prompts[:1], 256),
                        'with cache, 16 rows': lambda: generate(model, NoEnd(), prompts, 256)}, draws)
    speed = {name: 256 * (16 if '16' in name else 1) / s for name, s in took.items()}
    rows = [(name, v, 'tokens/s', v / speed['everything read again']) for name, v in speed.items()]
    size = f'dim {dim}, {n_layers - 3} blocks'
    table(f'decoding: 256 new tokens after 40, {size}; goal: 5.00x with the cache', rows)
    print(f"  16 rows beside 1: {speed['with cache, 16 rows'] / speed['with cache']:.2f}x; goal: 4.00x")


def drafts(draws, device):
    "Plain and speculative greedy decoding of the trained policy."
    if not FOLDER.exists():
        print(f'\ndecoding with drafts: not measured, {FOLDER.relative_to(project_root())} is missing; see '
              f'the head of this file')
        return
    model, tokenizer = MetaLlamaMTPAdapter.from_pretrained(FOLDER).to(device), load_tokenizer(FOLDER)
    prompts = [task.prompt for task in load_benchmark('microcode').tasks][::2]
    for batch_size in (1, 16):
        write = partial(generate, model, tokenizer, prompts, 200, batch_size=batch_size)
        works = {'plain greedy': write, 'with drafts': partial(write, speculative=True)}
        written = {name: work() for name, work in works.items()}
        same = sum(a.ids == b.ids for a, b in zip(*written.values()))
        took = interleaved(works, draws)
        tokens = sum(len(g.ids) for g in written['plain greedy'])
        rows = [(name, tokens / s, 'tokens/s', took['plain greedy'] / s) for name, s in took.items()]
        table(f'decoding: {len(prompts)} microcode prompts, {batch_size} at a time, {same} answers '
              f'identical; goal: 1.30x one at a time', rows)
    length = acceptance(written['with drafts'], model.n_future)['tokens_per_pass']
    n_trunk = len(model.layers) - 1
    print(f'  {length:.2f} tokens per pass: by blocks at most '
          f'{speedup_bound(length, n_trunk, model.n_future):.2f}x here, '
          f'{speedup_bound(length, 28, 4):.2f}x with the 28 blocks of trunk and 4 heads of the 7B model')


def causal_lm():
    "The model that is written with beside generate(), and what to call it."
    if folder := os.environ.get('WMTP_CAUSAL_LM'):
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), folder
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=8192, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
                         num_attention_heads=9, num_key_value_heads=3, max_position_embeddings=2048,
                         initializer_range=.1)
    return LlamaForCausalLM(config), "a random Llama of SmolLM2's shape"


def beside_generate(draws, device, n_new=100):
    "Greedy decoding of one row by a model of Hugging Face's, and by its own generate()."
    model, name = causal_lm()
    model, vocab_size = model.to(device).eval(), model.config.vocab_size
    model.generation_config.eos_token_id = None
    prompts = torch.randint(4, vocab_size, (8, 150)).to(device)
    options = dict(max_new_tokens=n_new, do_sample=False, pad_token_id=0)
    def theirs(row): return model.generate(row[None], **options)[0, len(row):].tolist()
    def ours(row): return generate(model, NoEnd(vocab_size), [row.tolist()], n_new)[0].ids
    same = sum(ours(row) == theirs(row) for row in prompts)
    took = interleaved({'generate() of transformers': lambda: theirs(prompts[0]),
                        'ours': lambda: ours(prompts[0])}, draws)
    rows = [(what, n_new / s, 'tokens/s', took['generate() of transformers'] / s) for what, s in took.items()]
    table(f'decoding of a Hugging Face model beside generate(): {name}, {same} of {len(prompts)} answers of '
          f'{n_new} tokens identical; goal: 1.00x', rows)


def run(draws, device):
    "Cache and batch, a model of Hugging Face's, then drafts."
    for size in ((128, 7, 336), (256, 11, 688)): sizes(draws, device, *size)
    beside_generate(draws, device)
    drafts(draws, device)
