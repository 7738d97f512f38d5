"""Decoding with a policy that has learnt something: every way to the same greedy tokens, on many prompts."""
import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from wmtp.core import seed_everything
from wmtp.data.collate import collate, join_ids
from wmtp.data.tokenizer import load_tokenizer
from wmtp.config.load import project_root
from wmtp.evaluation.benchmarks import load_benchmark
from wmtp.evaluation.generate import generate
from wmtp.evaluation.speculative import acceptance
from wmtp.losses.mtp_loss import compute_mtp_ce_loss
from wmtp.models.mtp import MetaLlamaMTPAdapter

TOKENIZER = load_tokenizer(project_root()/'storage'/'datasets'/'microcode'/'tokenizer.model')
TASKS = [task for name in ('microcode', 'microcode-valid') for task in load_benchmark(name).tasks]
PROMPTS = [task.prompt for task in TASKS]


@pytest.fixture(scope='module')
def policy():
    "A policy that has seen the references of every other problem for some seconds."
    rows = [join_ids(TOKENIZER.encode(t.prompt), TOKENIZER.encode(t.reference), TOKENIZER, 200)
            for t in TASKS[::2]]
    seed_everything(1)
    model = MetaLlamaMTPAdapter.micro(TOKENIZER.vocab_size, 64, 5, 2, 128, 256, 4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for _ in range(100):
        batch = collate([rows[i] for i in torch.randperm(len(rows))[:8]], 0, [1.] * 8)
        sums, counts = compute_mtp_ce_loss(model.hidden_states(batch.input_ids), model.output_weight,
                                           batch.labels)
        optimizer.zero_grad()
        (sums / counts).mean().backward()
        optimizer.step()
    return model.eval()


def ids_of(generations): return [g.ids for g in generations]


def test_drafts_change_no_greedy_token(policy):
    assert len(PROMPTS) >= 50
    plain = generate(policy, TOKENIZER, PROMPTS, 60)
    drafted = generate(policy, TOKENIZER, PROMPTS, 60, speculative=True)
    assert [(g.ids, g.text, g.finish) for g in plain] == [(g.ids, g.text, g.finish) for g in drafted]
    assert acceptance(drafted, 4)['tokens_per_pass'] > 1.3
    assert sum(g.n_steps for g in drafted) < .8 * sum(g.n_steps for g in plain)


def test_neighbours_do_not_matter(policy):
    for options in ({}, {'temperature': .9, 'top_p': .9}, {'temperature': .9, 'speculative': True}):
        together = generate(policy, TOKENIZER, PROMPTS[:12], 40, batch_size=5, **options)
        one_by_one = [generate(policy, TOKENIZER, [prompt], 40, seeds=[i], **options)[0]
                      for i, prompt in enumerate(PROMPTS[:12])]
        assert ids_of(together) == ids_of(one_by_one)


def test_bfloat16_keeps_most_answers(policy):
    half = copy.deepcopy(policy).bfloat16()
    plain, drafted = (generate(half, TOKENIZER, PROMPTS[:24], 40, speculative=drafts)
                      for drafts in (False, True))
    same = sum(a.ids == b.ids for a, b in zip(plain, drafted))
    print(f'{same} of 24 answers identical in bfloat16')
    assert same >= 12


def test_a_model_of_hugging_face_with_lora():
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=TOKENIZER.vocab_size, hidden_size=32, intermediate_size=64,
                         num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=256,
                         bos_token_id=1, eos_token_id=2, pad_token_id=3, initializer_range=.3)
    lora = LoraConfig(r=2, target_modules=['q_proj', 'v_proj'], init_lora_weights=False)
    model = get_peft_model(LlamaForCausalLM(config), lora).eval()
    prompts = [[1, *TOKENIZER.encode(prompt)] for prompt in PROMPTS[:9]]
    theirs = [model.generate(input_ids=torch.tensor([ids]), max_new_tokens=20,
                             do_sample=False)[0, len(ids):].tolist() for ids in prompts]
    ours = ids_of(generate(model, TOKENIZER, prompts, 20, batch_size=4))
    assert ours == [[i for i in ids if i != 2] for ids in theirs]


def test_any_of_several_ids_ends_an_answer():
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=TOKENIZER.vocab_size, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=256, initializer_range=.3)).eval()
    prompts = [[1, *TOKENIZER.encode(prompt)] for prompt in PROMPTS[:6]]
    long = ids_of(generate(model, TOKENIZER, prompts, 20, end_ids=()))
    second = long[0][7]  # the tokenizer's EOS is the first of the two, and does not come
    assert second != TOKENIZER.eos_id and [len(ids) for ids in long] == [20] * 6
    ends = [TOKENIZER.eos_id, second]
    theirs = [model.generate(torch.tensor([ids]), max_new_tokens=20, do_sample=False, pad_token_id=3,
                             eos_token_id=ends)[0, len(ids):].tolist() for ids in prompts]
    ours = generate(model, TOKENIZER, prompts, 20, batch_size=4, end_ids=ends)
    assert ours[0].finish == 'eos' and len(ours[0].ids) <= 7
    assert ids_of(ours) == [[i for i in ids if i != second] for ids in theirs]


def test_no_prompts_no_answers(policy):
    assert generate(policy, TOKENIZER, []) == []
