"""The parts of scripts/bench_gpu.py that train: the four runs, a policy's step, its critic, shares."""
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from gpu_measure import Bench
from peft.tuners.lora import LoraLayer
from torch.distributed.checkpoint.staging import BlockingAsyncStager
from transformers import LlamaConfig, LlamaForCausalLM

from wmtp.config.load import load_config
from wmtp.data.tokenizer import load_tokenizer
from wmtp.models.lora import add_lora
from wmtp.models.mtp import MetaLlamaMTPAdapter
from wmtp.models.value_model import ValueModel
from wmtp.pipelines.baseline import run_baseline
from wmtp.pipelines.critic import critic_losses, run_critic
from wmtp.pipelines.policy import head1_nll, policy_losses
from wmtp.pipelines.rho1 import run_rho1
from wmtp.pipelines.setup import tiny_settings
from wmtp.pipelines.verifiable import run_verifiable
from wmtp.runtime.journal import read_journal
from wmtp.runtime.rehearsal import rehearse_step
from wmtp.runtime.sharding import gather_weights, named_moments, save_shards, trained_weights
from wmtp.runtime.training_loop import TrainingLoop, compile_blocks, compile_seconds
from wmtp.value_weighting.rho1 import reference_nll


def losses_of_runs(home, device, dtype):
    "The training losses of micro runs of all four commands, as a user starts them, and of one gone on with."
    changes = ('training.max_steps=2', 'training.eval_every_steps=2', 'training.eval_max_batches=1',
               'checkpoint.save_every_steps=1', 'report.n_examples=0', f'runtime.device={device}',
               f'runtime.dtype={dtype}')
    def start(work, run, *own, resume=None):
        work(load_config(None, tiny_settings(run, home/run, *changes, *own), run), resume)
        return [row['train/loss'] for row in read_journal(home/run/'journal.jsonl')[0] if 'train/loss' in row]
    tokenizer, reference = load_tokenizer(load_config(run='rho1').tokenizer.path), home/'reference'
    micro = MetaLlamaMTPAdapter.micro(tokenizer.vocab_size, 32, 2, 2, 64, n_future_tokens=1)
    micro.save_pretrained(reference)
    tokenizer.save(reference)
    return {'critic': start(run_critic, 'critic'), 'baseline': start(run_baseline, 'baseline'),
            'verifiable': start(run_verifiable, 'verifiable',
                                f"models.value_model.checkpoint_path={home/'critic'}"),
            'rho1': start(run_rho1, 'rho1', f'models.reference.path={reference}'),
            'baseline, resumed': start(run_baseline, 'baseline', resume=home/'baseline'/'step-000001')}


def lora_gradients(device):
    "The gradients of a micro policy's LoRA layers in float32, all in one row on the CPU."
    bench = Bench(device, tiny=True)
    torch.manual_seed(0)
    model = add_lora(MetaLlamaMTPAdapter(bench.config), 4, dropout=0.)
    for name, p in model.named_parameters():
        if 'lora_B' in name: torch.nn.init.normal_(p, std=.02) # at 0, as they begin, A has no gradient
    loss, counts = policy_losses(load_config('baseline', run='baseline'), 4)
    batch = bench.batch(8192)
    out = loss(model.to(device), batch.to(device), 0, counts(batch, 0))
    out.total().backward()
    return torch.cat([p.grad.flatten().cpu() for p in model.parameters() if p.requires_grad])


def smoke(bench):
    "Micro runs of the four commands on the device, beside the CPU in float32."
    def losses(device, dtype):
        torch.manual_seed(0)
        with tempfile.TemporaryDirectory() as home: return losses_of_runs(Path(home), device, dtype)
    expected = losses('cpu', 'float32')
    if not bench.on_gpu: yield 'losses', expected
    for dtype in ('float32', 'bfloat16') if bench.on_gpu else ():
        measured = losses('cuda', dtype)
        yield dtype, {run: max(abs(a / b - 1) for a, b in zip(measured[run], expected[run]))
                      for run in expected} # at most 1e-3 in float32, 2e-2 in bfloat16
    wanted = lora_gradients(torch.device('cpu'))
    error = (lora_gradients(bench.device) - wanted).norm() / wanted.norm()
    yield 'gradients of LoRA in float32', {'norm': wanted.norm().item(),
                                            'gradient_error': error.item()} # at most 1e-5


def trainer(bench, model, n_tokens, run='baseline', **options):
    "The training loop of a run on one batch, as configured."
    cfg = load_config(run, options.pop('changes', ()), run=run)
    loss, counts = critic_losses(cfg) if run == 'critic' else policy_losses(cfg, 4)
    batch = bench.batch(n_tokens)
    return TrainingLoop(model, loss, lambda n: batch, counts, n_steps=1000, learning_rate=1e-5,
                        device=bench.device, dtype=torch.bfloat16, **options)


def rehearsed(bench, n_tokens, lora=True, checkpointed=False):
    "GiB of the same step, by `--check`'s count."
    with torch.device('meta'):
        model = MetaLlamaMTPAdapter(bench.config)
        if lora: model = add_lora(model.to(torch.bfloat16), 64 if not bench.tiny else 4)
    if checkpointed: model.set_checkpointing('full')
    loss, counts = policy_losses(load_config('baseline', run='baseline'), 4)
    parts = rehearse_step(model.train(), loss, counts, bench.batch(n_tokens), torch.bfloat16,
                          bench.device.type)
    return round(parts['peak'] / 2**30, 2)


def policy_step(bench, n_tokens=4096, checkpointed=False, casts=False, compiled=False):
    "One micro-batch and one update of a policy with LoRA."
    model = add_lora(bench.policy(), 64 if not bench.tiny else 4)
    if checkpointed: model.set_checkpointing('full')
    for layer in model.modules() if casts else ():
        if isinstance(layer, LoraLayer): layer._forward_pre_hooks.clear() # PEFT as it comes
    if compiled: compile_blocks(model, 'eager' if bench.tiny else 'inductor')
    loop = trainer(bench, model, n_tokens)
    numbers = bench.share_of_peak(bench.timed(loop.one_step, tokens=n_tokens))
    if compiled: numbers['compile_s'] = round(compile_seconds(), 1)
    numbers['estimate_gib'] = rehearsed(bench, n_tokens, checkpointed=checkpointed)
    yield f'{n_tokens} tokens', numbers
    if bench.on_gpu and not compiled: yield 'host waits and kernels', waits_and_kernels(loop)


def waits_and_kernels(loop):
    "How often a step makes the CPU wait for the GPU, and the kernels that take longest."
    torch.cuda.set_sync_debug_mode('warn')
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        loop.one_step()
    torch.cuda.set_sync_debug_mode('default')
    with torch.profiler.profile() as profile:
        for _ in range(3): loop.one_step()
    table = profile.key_averages().table(sort_by='self_device_time_total', row_limit=15)
    return {'host_waits': len(caught), 'kernels': table.splitlines()}


def critic(bench):
    "What a critic costs: to read a batch, as beside a policy, and a step of its own training."
    with bench.making(torch.float32): model = ValueModel.micro(*bench.backbone)
    loop = trainer(bench, model, 4096, 'critic', changes=('critic.lm_coef=0',))
    numbers = bench.timed(loop.one_step, tokens=4096)
    with torch.device('meta'): blank = ValueModel.micro(*bench.backbone)
    parts = rehearse_step(blank.train(), loop.loss, loop.counts, loop.batch(0), loop.dtype,
                          bench.device.type)
    yield 'a step of training', numbers | {'estimate_gib': round(parts['peak'] / 2**30, 2)}
    del loop
    model, b = model.eval().to(torch.bfloat16), bench.batch(8192).to(bench.device)
    model.head.float()
    with torch.no_grad(), torch.autocast(bench.device.type, torch.bfloat16):
        yield 'reads', bench.timed(lambda: model(b.input_ids, b.attention_mask), tokens=8192)


def rho1_scores(bench):
    "What Rho-1's selection costs: the policy's first head and the reference read a batch."
    vocab, width, blocks, heads, inner = bench.backbone
    sizes = LlamaConfig(vocab_size=vocab, hidden_size=width, num_hidden_layers=blocks,
                        num_attention_heads=heads, intermediate_size=inner)
    b, policy = bench.batch(8192).to(bench.device), bench.policy().eval()
    yield 'policy, head 1', bench.timed(lambda: head1_nll(policy, b, False), tokens=8192)
    with bench.making(torch.bfloat16): model = LlamaForCausalLM(sizes).eval()
    score = lambda: reference_nll(model, b.input_ids, b.attention_mask, b.labels)
    yield 'reference', bench.timed(score, tokens=8192)


def all_weights(bench):
    "A step in which every weight is trained: 108 GB of weights, gradients and moments."
    if bench.on_gpu and torch.cuda.mem_get_info()[0] < 125 * 2**30:
        yield 'a step', {'skipped': 'less than 125 GiB free'}
        return
    model = bench.policy(torch.float32).set_checkpointing('full')
    numbers = bench.timed(trainer(bench, model, 4096).one_step, n=3, tokens=4096)
    yield 'a step', numbers | {'estimate_gib': rehearsed(bench, 4096, lora=False, checkpointed=True)}


def shares(bench):
    "The same policy in shares among one process, and the seconds of its checkpoint."
    whole = add_lora(bench.policy(), 64 if not bench.tiny else 4)
    loop = trainer(bench, whole, 4096, shard=True, changes=('runtime.shard=full',))
    model, moments = loop.model, named_moments(loop.model, loop.optimizer)
    numbers = bench.share_of_peak(bench.timed(loop.one_step, tokens=4096))
    yield 'a step', numbers | {'estimate_gib': rehearsed(bench, 4096)}
    def seconds(work, *args):
        began = time.perf_counter()
        work(*args)
        return round(time.perf_counter() - began, 2)
    with tempfile.TemporaryDirectory() as folder:
        for what, tensors in (('moments', moments), ('weights', dict(model.state_dict()))):
            took = seconds(save_shards, tensors, f'{folder}/{what}')
            yield f'{what} saved', {'s': took, 'gb': round(sum(t.nbytes for t in tensors.values()) / 1e9, 2)}
        yield 'saved while training goes on', saved_meanwhile(loop, moments, f'{folder}/meanwhile')
    yield 'weights gathered', {'s': seconds(gather_weights, model, whole)}
    torch.distributed.destroy_process_group()


def saved_meanwhile(loop, moments, folder):
    "Seconds that training waits for a save in the background, and that the save takes."
    group, began = torch.distributed.new_group(backend='gloo'), time.perf_counter()
    staged = BlockingAsyncStager().stage(trained_weights(loop.model) | moments)
    waits, steps = time.perf_counter() - began, 0
    with ThreadPoolExecutor(1) as writer:
        save = writer.submit(save_shards, staged, folder, group)
        while not save.done():
            loop.one_step()
            steps += 1
        save.result()
    return {'waits_s': round(waits, 2), 's': round(time.perf_counter() - began, 2), 'steps_meanwhile': steps,
            'gb': round(sum(t.nbytes for t in staged.values()) / 1e9, 2)}


FIRST = {'smoke': smoke,
         'step, as configured': policy_step,
         'step, checkpointed': partial(policy_step, n_tokens=8192, checkpointed=True),
         'step, with casts': partial(policy_step, n_tokens=8192, checkpointed=True, casts=True),
         'step, compiled': partial(policy_step, compiled=True),
         'critic': critic, 'rho1': rho1_scores}
LAST = {'all weights': all_weights, 'shares': shares}
