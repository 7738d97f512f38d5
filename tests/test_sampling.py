"""What sampling promises, over many draws: labels, difficulty, processes that share a step, resumed runs.

Three kinds of tests. Where the number of draws is fixed by counting, the check is exact. Where batches end
between whole programs, so that a share scatters, the count is compared with independent draws: |z| < 3.29
for labels and chi-square below its critical value for bins, both at p = .001, in two tails and in one. A
row may come twice in one batch, but not in two batches of one step.
"""
import numpy as np
import pytest
from scipy.stats import chi2

from wmtp.data.curriculum import BINS, CurriculumPlan, Stage, bin_of, shares
from wmtp.data.row_table import RowTable
from wmtp.data.sampling import BatchPlan

N, BUDGET, Z = 6000, 4096, 3.29
EVERY_PLAN = ['uniform', 'balanced', 'per_problem', 'pairs', 'matched_pairs', 'curriculum']
STAGES = [Stage(.3, unrated=1, low=7, medium=2), Stage(.7, unrated=1, low=3, medium=5, high=1),
          Stage(1., unrated=1, low=2, medium=3, high=4)]


@pytest.fixture(scope='module')
def table():
    "Six thousand programs: 30 % correct, 40 % unrated, hard ones rare and longer; 300 problems."
    rng = np.random.default_rng(0)
    level = rng.choice(12, N, p=[.4] + [.1] * 3 + [.05] * 4 + [.025] * 4).astype(np.int8)
    lengths = np.minimum(rng.lognormal(4.5 + level / 15, .6), 1000).astype(np.int32) + 8
    return RowTable(rng.random(N) < .3, rng.integers(0, 300, N).astype(np.int32), lengths, difficulty=level)


def draws(plan, first, last):
    return np.concatenate([plan[n] for n in range(first, last)])


def whole(table, sampling, n_epochs=6, **kwargs):
    "A plan, its number of batches, and all its draws."
    plan = BatchPlan(table, 3, sampling, BUDGET, n_epochs, **kwargs)
    return plan, len(plan), draws(plan, 0, len(plan))


def test_balanced_draws_are_half_correct_exactly_over_whole_epochs(table):
    _, _, rows = whole(table, 'balanced')
    assert len(rows) >= 10_000 and 2 * table.labels[rows].sum() == len(rows)


@pytest.mark.parametrize('sampling, share', [('balanced', .5), ('uniform', None)])
def test_ten_thousand_draws_from_the_middle_match_the_share(table, sampling, share):
    plan, n, _ = whole(table, sampling, 8)
    first = n // 3
    labels = table.labels[draws(plan, first, n)[:10_000]]
    assert len(labels) == 10_000
    share = share or table.labels.mean()
    assert abs(labels.sum() - share * len(labels)) / np.sqrt(len(labels) * share * (1 - share)) < Z


def test_that_test_can_fail(table):
    rng = np.random.default_rng(1)
    counts = [(rng.random(10_000) < .53).sum() for _ in range(200)]  # three points off
    assert sum(abs(count - 5000) / 50 > Z for count in counts) > 190


def test_per_problem_draws_are_balanced_within_each_problem_exactly(table):
    _, _, rows = whole(table, 'per_problem', 4)
    signed = np.bincount(table.problems[rows], weights=2 * table.labels[rows] - 1., minlength=300)
    assert len(rows) >= 10_000 and not signed.any()


@pytest.mark.parametrize('labels', ['uniform', 'balanced'])
def test_the_mix_of_every_stage_is_the_schedules(table, labels):
    plan = CurriculumPlan(table, 3, STAGES, BUDGET, n_total=1700, labels=labels, window=4)
    for first, last, stage in zip([0, *plan.ends], plan.ends, STAGES):
        rows, share = draws(plan, first, last), shares(stage.weights, np.ones(4, bool))
        counts, used = np.bincount(bin_of(table.difficulty[rows]), minlength=4), share > 0
        assert len(rows) >= 10_000 and not counts[~used].any()
        statistic = ((counts - len(rows) * share)[used] ** 2 / (len(rows) * share[used])).sum()
        assert statistic < chi2.ppf(.999, used.sum() - 1), dict(zip(BINS, counts / len(rows)))
        if labels == 'balanced': assert abs(2 * table.labels[rows].sum() - len(rows)) / np.sqrt(len(rows)) < Z


def test_before_packing_the_mix_is_exact_to_one_row_of_each_bin(table):
    plan = CurriculumPlan(table, 3, STAGES, BUDGET, n_total=1500)
    len(plan)
    for block in range(len(plan.starts) - 1):
        stage = STAGES[next(i for i, end in enumerate(plan.ends) if plan.starts[block] < end)]
        counts = plan.drawn[block + 1] - plan.drawn[block]
        assert (abs(counts - counts.sum() * shares(stage.weights, np.ones(4, bool))) < 1 + 1e-6).all()


def make(table, sampling, window):
    "Any plan, by name."
    if sampling == 'curriculum':
        return CurriculumPlan(table, 5, STAGES, BUDGET, n_total=400, labels='balanced', window=window)
    return BatchPlan(table, 5, sampling, BUDGET, 3, window=window)


@pytest.mark.parametrize('sampling', EVERY_PLAN)
def test_processes_share_no_row_in_a_step_and_together_have_the_one_process_batch(table, sampling):
    # 4 = two processes with two batches each
    single, plans = make(table, sampling, 4), [make(table, sampling, 4) for _ in range(2)]
    for step in range(min(len(single) // 4, 100)):
        ranks = [np.concatenate([plan[4 * step + rank + 2 * i] for i in range(2)])
                 for rank, plan in enumerate(plans)]
        assert not np.intersect1d(*ranks).size
        together = np.concatenate([single[4 * step + i] for i in range(4)])
        assert sorted(np.concatenate(ranks)) == sorted(together)


@pytest.mark.parametrize('sampling', EVERY_PLAN)
def test_a_resumed_plan_draws_what_it_would_have_drawn(table, sampling):
    plan = make(table, sampling, 2)
    n = len(plan)
    for start in (1, n // 2, n - 3):
        resumed = make(table, sampling, 2)
        for k in range(start, min(start + 40, n)): assert np.array_equal(resumed[k], plan[k])
    a, b = (BatchPlan(table, seed, 'uniform', BUDGET, 1)[0] for seed in (5, 6))
    assert not np.array_equal(a, b)
