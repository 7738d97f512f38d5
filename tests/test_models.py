"""Folders of other people in the commands: what opens is asked as its maker did, what does not is a line."""
import json

import pytest
import torch
from commands import run
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from wmtp.config.load import project_root
from wmtp.core import seed_everything
from wmtp.data.tokenizer import load_tokenizer
from wmtp.pipelines.setup import tiny_settings

MICROCODE = project_root()/'storage/datasets/microcode'
BOS, EOS, TURN = '<s>', '</s>', '<turn>'


def rewrite(folder, file='config.json', **changes):
    fields = json.loads((folder/file).read_text()) if (folder/file).exists() else {}
    (folder/file).write_text(json.dumps(fields | changes))
    return folder


def byte_tokenizer(folder, bos=BOS, template=False):
    "One token a byte, and three more."
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({c: i for i, c in enumerate([BOS, EOS, TURN, *alphabet])}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    if template:
        core.post_processor = processors.TemplateProcessing(single=f'{BOS} $A', special_tokens=[(BOS, 0)])
    names = {'eos_token': EOS, 'additional_special_tokens': [TURN]} | ({'bos_token': bos} if bos else {})
    PreTrainedTokenizerFast(tokenizer_object=core, **names).save_pretrained(folder)


def llama(folder, end=2, **sizes):
    "A random Llama that writes the token `end` first."
    seed_everything(0)
    fields = dict(vocab_size=259, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                  num_attention_heads=2, max_position_embeddings=512, bos_token_id=0, eos_token_id=1)
    model = LlamaForCausalLM(LlamaConfig(**fields | sizes))
    torch.nn.init.constant_(model.model.norm.weight, 0.)  # all logits are equal, and the first is the largest
    model.save_pretrained(folder)
    return folder


def evaluate(folder, out, *changes):
    return run('evaluate', '--set', *tiny_settings('evaluate', out, f'models.policy.checkpoint_path={folder}',
               'benchmark.max_tasks=1', 'benchmark.pass_at=1', 'generation.n_samples=1',
               'generation.temperature=0', 'generation.max_new_tokens=6', *changes))


@pytest.mark.parametrize('name, bos, template, prefix', [
    ('no BOS', None, False, []), ('BOS by template', BOS, True, [0]), ('taken away', BOS, True, [])])
def test_prompts_begin_as_the_tokenizer_says(name, bos, template, prefix, tmp_path):
    "The result says what stood in front; every listed id ends an answer, here the first one written."
    byte_tokenizer(llama(tmp_path/'model'), bos, template)
    if name == 'taken away': rewrite(tmp_path/'model', 'tokenizer_config.json', add_bos_token=False)
    rewrite(tmp_path/'model', 'generation_config.json', eos_token_id=[1, 0])
    done = evaluate(tmp_path/'model', tmp_path/'run')
    assert done.returncode == 0, done.stderr
    about = json.loads((tmp_path/'run'/'summary.json').read_text())['model']
    assert (about['prefix_ids'], about['prefix_rule']) == (prefix, "the tokenizer's own")
    assert (about['end_ids'], about['longest_row']) == ([1, 0], 512)
    sample = json.loads((tmp_path/'run'/'samples.jsonl').read_text())
    assert (sample['finish'], sample['ids']) == ('eos', [])


def headless(folder):
    state = load_file(folder/'model.safetensors')
    save_file({k: t for k, t in state.items() if k != 'lm_head.weight'}, folder/'model.safetensors',
              metadata={'format': 'pt'})


@pytest.mark.parametrize('change, words', [
    (headless, 'weight lm_head.weight is missing'),
    (lambda f: rewrite(f, model_type='mistral', sliding_window=8), 'attends through a window'),
    (lambda f: llama(f, max_position_embeddings=32), 'takes 32 with'),
    (lambda f: llama(f, vocab_size=200), 'the tokenizer has 259 ids, the model 200')])
def test_what_does_not_open_is_one_line(change, words, tmp_path):
    byte_tokenizer(llama(tmp_path/'model'))
    change(tmp_path/'model')
    done = evaluate(tmp_path/'model', tmp_path/'run')
    assert (done.returncode, done.stderr.count('\n')) == (2, 1) and words in done.stderr, done.stderr
    assert not (tmp_path/'run').exists()


def test_a_name_of_the_hub_says_how_to_fetch_it(tmp_path):
    done = evaluate('Qwen/Qwen2.5-Coder-0.5B', tmp_path/'run')
    assert (done.returncode, done.stderr.count('\n')) == (2, 1)
    assert 'hf download Qwen/Qwen2.5-Coder-0.5B --local-dir' in done.stderr


@pytest.mark.parametrize('make, words', [
    (lambda f, n: GPT2LMHeadModel(GPT2Config(vocab_size=n, n_positions=64, n_embd=32, n_layer=1, n_head=2)
                                  ).save_pretrained(f), 'reads at most 64 tokens; lower it'),
    (lambda f, n: llama(f, vocab_size=500), '500; wanted a reference for all of them')])
def test_a_reference_that_cannot_read_the_rows(make, words, tmp_path):
    tokenizer = load_tokenizer(MICROCODE/'tokenizer.model')
    make(tmp_path/'reference', tokenizer.vocab_size)
    tokenizer.save(tmp_path/'reference')
    done = run('rho1', settings=tiny_settings('rho1', tmp_path/'run', 'training.max_steps=1',
                                              f'models.reference.path={tmp_path}/reference'))
    assert (done.returncode, done.stderr.count('\n')) == (2, 1) and words in done.stderr, done.stderr


def test_a_critic_needs_no_padding_token(tmp_path):
    "A backbone whose padding token is outside its embedding trains, and its checkpoint opens."
    tokenizer = load_tokenizer(MICROCODE/'tokenizer.model')
    llama(tmp_path/'llama', vocab_size=tokenizer.vocab_size, max_position_embeddings=2048)
    rewrite(tmp_path/'llama', pad_token_id=5000)
    done = run('critic', settings=tiny_settings(
        'critic', tmp_path/'run', 'training.max_steps=1', 'training.eval_max_batches=1', 'critic.lm_coef=0',
        'report.n_examples=0', f'models.value_model.backbone_path={tmp_path}/llama'))
    assert done.returncode == 0, done.stderr
