"""The lambda-return of a large batch, beside torchrl, the plain loop and one masked copy (the floor)."""
import torch
from measure import median, table, timed

from wmtp.core import last_true_index
from wmtp.value_weighting.lambda_return import compute_lambda_return


def loop_lambda_return(values, rewards, mask, gamma=1., lam=.95):
    "The definition as a loop over rows and tokens."
    out = torch.zeros_like(values)
    for b in range(len(values)):
        at = mask[b].nonzero()[:, 0].tolist()
        if not at: continue
        G = out[b, at[-1]] = rewards[b]
        for t, after in zip(at[-2::-1], at[:0:-1]):
            G = out[b, t] = gamma * ((1 - lam) * values[b, after] + lam * G)
    return out


def torchrl_lambda_return(values, rewards, mask, gamma=1., lam=.95):
    "torchrl's vectorised lambda-return as a call with its inputs made beforehand; None without torchrl."
    try: from torchrl.objectives.value.functional import vec_td_lambda_return_estimate
    except ImportError: return None
    done = torch.zeros_like(mask).scatter_(1, last_true_index(mask)[:, None], True)
    following = torch.where(mask, values, 0).roll(-1, 1)
    reward = torch.where(done, rewards[:, None], 0.)
    following, reward, done = (x[..., None].contiguous() for x in (following, reward, done))
    return lambda: vec_td_lambda_return_estimate(gamma, lam, following, reward, done, done)


def run(draws, device):
    "compute_lambda_return at 64 x 2048 beside torchrl, the loop and a masked copy (the floor); no holes."
    g, position = torch.Generator().manual_seed(0), torch.arange(2048)
    n, start = torch.randint(1024, 2049, (64, 1), generator=g), torch.randint(0, 256, (64, 1), generator=g)
    values = torch.rand(64, 2048, generator=g).to(device)
    rewards = (torch.rand(64, generator=g) < .5).float().to(device)
    mask = ((position >= start) & (position < n)).to(device)
    # torchrl knows no holes, so there are none
    cases = {'compute_lambda_return': lambda: compute_lambda_return(values, rewards, mask),
             'one masked copy (floor)': lambda: torch.where(mask, values, 0),
             'torchrl vec_td_lambda_return_estimate': torchrl_lambda_return(values, rewards, mask)}
    loop = lambda: loop_lambda_return(values, rewards, mask)
    error = (cases['compute_lambda_return']() - loop()).abs().max().item()
    seconds = {name: [] for name, work in cases.items() if work}
    for _ in range(3 + 5 * draws):
        for name in seconds: seconds[name].append(timed(cases[name]))
    medians = {name: median(s[3:]) for name, s in seconds.items()}
    medians['loop over rows and tokens'] = median(timed(loop) for _ in range(draws))
    ours = medians['compute_lambda_return']
    table(f'lambda: 64 x 2048, {int(mask.sum())} choices, largest difference from the loop {error:.0e}; '
          'ratios of time', [(name, 1000 * s, 'ms', s / ours) for name, s in medians.items()])
    if len(seconds) < len(cases):
        print('  torchrl is missing: pip install --no-deps --target DIR torchrl tensordict pyvers; '
              'PYTHONPATH=DIR')
