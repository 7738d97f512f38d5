"""No float64 and no complex number off the CPU: Apple's accelerators lack them. The CPU stands in for one."""
import pytest
import torch
from torch.overrides import TorchFunctionMode

from wmtp.config.load import load_config
from wmtp.data.tokenizer import load_tokenizer
from wmtp.evaluation.generate import generate
from wmtp.models.mtp import MetaLlamaMTPAdapter
from wmtp.pipelines.critic import run_critic
from wmtp.pipelines.rho1 import run_rho1
from wmtp.pipelines.setup import tiny_settings
from wmtp.pipelines.verifiable import run_verifiable

REFUSED = torch.float64, torch.complex64, torch.complex128


class Refused(Exception): pass


HOST = torch.device('cpu', 0) # of a tensor of the host; the accelerator is plain `cpu`, as a run resolves it


def tensors(tree):
    "Those of arguments or of a result, however they are nested."
    if isinstance(tree, torch.Tensor): return [tree]
    parts = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, (tuple, list)) else ()
    return [x for part in parts for x in tensors(part)]


class Accelerator(TorchFunctionMode):
    """What `.cpu()` gives and what is made without a device is the host's, and so is all that comes of it.
    Everything else lies on the accelerator, where a wide dtype can be neither made nor brought."""
    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, getattr(func, '__name__', '')
        if func == torch.Tensor.device.__get__: return HOST if hasattr(args[0], 'on_host') else func(*args)
        inputs, outputs = tensors((args, kwargs)), func(*args, **kwargs)
        if name == '__iter__': outputs = list(outputs)
        named = [x for x in (*args, *kwargs.values()) if isinstance(x, torch.device)]
        if name == 'cpu': named = [HOST]
        if name in ('cpu', 'to') and named: outputs = outputs.view_as(outputs) # its own, though nothing moved
        host = named == [HOST] if named else all(hasattr(x, 'on_host') for x in inputs)
        for out in tensors(outputs):
            if host: out.on_host = True
            elif out.dtype in REFUSED and (named or not any(x.dtype in REFUSED for x in inputs)):
                raise Refused(f'{name} makes {out.dtype} on the accelerator')
        return iter(outputs) if name == '__iter__' else outputs


def test_the_stand_in_refuses():
    x = torch.ones(3, device=torch.device('cpu'))
    with Accelerator():
        assert x.cpu().double().mean().float().to(x.device).dtype == torch.float32
        for work in (x.double, lambda: x.to(torch.float64), lambda: x.cpu().double().to(x.device),
                     lambda: torch.polar(x, x), lambda: torch.zeros(3, dtype=torch.float64, device=x.device)):
            with pytest.raises(Refused): work()


def test_training_evaluation_and_generation(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, 'from_numpy', torch.as_tensor) # the one maker that no mode sees
    def configure(run, *changes):
        short = ('training.max_steps=1', 'training.eval_every_steps=1', 'training.eval_max_batches=1')
        settings = tiny_settings(run, tmp_path/run, *short, 'report.n_examples=1', *changes)
        return load_config(None, settings, run)
    reference, tokenizer = tmp_path/'reference', load_tokenizer(configure('critic').tokenizer.path)
    micro = MetaLlamaMTPAdapter.micro(tokenizer.vocab_size, 32, 2, 2, 64, n_future_tokens=1)
    micro.save_pretrained(reference)
    tokenizer.save(reference)
    with Accelerator():
        run_critic(configure('critic'))
        run_verifiable(configure('verifiable', f"models.value_model.checkpoint_path={tmp_path/'critic'}",
                                 'weighting.advantage=logit', 'weighting.target_ess=.8',
                                 'weighting.control=program_mean'))
        done = run_rho1(configure('rho1', f'models.reference.path={reference}', 'rho1.kind=soft',
                                  'data.packing=true'))
        policy = MetaLlamaMTPAdapter.from_pretrained(done.summary['checkpoint']['best']).eval()
        for options in (dict(temperature=1., top_p=.9), dict(speculative=True)):
            generate(policy, tokenizer, ['return'], max_new_tokens=4, **options)
