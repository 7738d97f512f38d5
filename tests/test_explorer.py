"""The explorer in a real browser: what it shows is what the package computes."""
import json
import shutil
import time
from pathlib import Path

import pytest
import torch

from wmtp.explain import load_critic
from wmtp.explore import PROGRAM, PROMPT, alternatives, explore
from wmtp.explorer import Explorer, ProgramCredit
from wmtp.models.mtp import MetaLlamaMTPAdapter
from wmtp.value_weighting.advantage import compute_advantages
from wmtp.value_weighting.td_error import end_value
from wmtp.value_weighting.weight_builder import build_weights, ess_share

GAMMA = .95
SETTINGS = [(.9, 0, .1, 3, 1), (.03, 0, .1, 3, 1), (.3, .5, .1, 3, 1), (.3, 1, 0, 10, 1), (.5, 0, .2, 5, 3)]


@pytest.fixture(scope='module')
def browser():
    "Chromium, driven by playwright; the tests are skipped where either is missing."
    sync_api = pytest.importorskip('playwright.sync_api', reason='pip install playwright')
    with sync_api.sync_playwright() as p:
        found = [shutil.which('chromium'), shutil.which('google-chrome'), p.chromium.executable_path]
        path = next((path for path in found if path and Path(path).exists()), None)
        if not path: pytest.skip('no browser: apt-get install chromium, or playwright install chromium')
        chromium = p.chromium.launch(executable_path=path, args=['--no-sandbox'])
        yield chromium
        chromium.close()


@pytest.fixture
def programs():
    "Eight programs of random values as a batch, one correct and one incorrect in turn, one of them cut off."
    g = torch.Generator().manual_seed(0)
    values, rewards = torch.rand(8, 31, generator=g), torch.tensor([0., 1] * 4)
    mask = torch.arange(31) < torch.tensor([[30], [12], [25], [30], [7], [19], [22], [28]])
    return values, rewards, mask, torch.arange(8) != 2

def credits(values, rewards, mask, terminated):
    "The same as the page gets them."
    ends = end_value(values, rewards, mask, GAMMA, terminated)
    for i, (v, m) in enumerate(zip(values, mask)):
        v, wrong = v[m].tolist(), not rewards[i]
        texts, bug, kind = [f' t{t}' for t in range(len(v))], (3, 4), ('constant', 'logic')[i // 4]
        yield ProgramCredit(f'sentence{i}', f'p{i // 2}', not wrong, texts, [1] * len(v), v, ends[i].item(),
                            *((bug, kind, 'family', i + 1) if wrong else ()))

def share(page, row):
    "The share of effective samples in a row of the table."
    return float(page.locator('[data-part=numbers] tr').nth(row).locator('td').nth(3).text_content())

def slide_beta(page, beta):
    "Move the slider of beta by the keyboard, an arrow at a time, until it says what is wanted."
    says = page.locator('[data-part=beta-says]')
    for _ in range(30):
        if (now := float(says.text_content())) == beta: return
        page.locator('[data-part=beta]').press('ArrowLeft' if now > beta else 'ArrowRight')
    raise AssertionError(f'beta cannot be {beta}')


def test_slid_to_003_the_page_shows_the_sample_size_of_build_weights(browser, programs, tmp_path):
    (tmp_path/'page.html').write_text(Explorer([*credits(*programs)], GAMMA).page(), 'utf-8')
    page = browser.new_page()
    page.goto((tmp_path/'page.html').as_uri())
    values, rewards, mask, terminated = programs
    seen = []
    for beta, lam, low, high, head in SETTINGS:
        slide_beta(page, beta)
        for name, number in dict(lam=lam, low=low, high=high).items():
            page.fill(f'[data-part={name}]', str(number))
        page.select_option('[data-part=k]', str(head))
        A = compute_advantages('gae', values, rewards, mask, GAMMA, lam, terminated)
        A, on = (torch.nn.functional.pad(x, (head - 1, 0)) for x in (A, mask)) # a head stands in the prompt
        weights = build_weights(A, beta, low, high, on, head_weight='path', n_future=head)[:, :31, head - 1]
        expected = [ess_share(weights[0][mask[0]]), ess_share(weights[1][mask[1]]), ess_share(weights[mask])]
        assert [share(page, row) for row in range(3)] == pytest.approx(expected, abs=1e-3)
        seen.append(expected)
    assert abs(seen[0][0] - seen[1][0]) > .2 # .9 and .03 are far apart
    page.close()


def test_programs_are_found_and_read_by_keyboard(browser, programs, tmp_path):
    (tmp_path/'page.html').write_text(Explorer([*credits(*programs)], GAMMA).page(), 'utf-8')
    page = browser.new_page(color_scheme='dark')
    page.goto((tmp_path/'page.html').as_uri())
    count, token = page.locator('[data-part=count]'), page.locator('[data-part=token]')
    page.locator('[data-part=search]').press_sequentially('sentence6')
    assert count.text_content() == '1 of 4 incorrect programs'
    page.locator('[data-part=search]').fill('')
    page.select_option('[data-part=mutation]', 'constant')
    assert count.text_content() == '2 of 4 incorrect programs'
    page.locator('[data-part=list]').press('End')
    assert page.locator('[data-part=prompt]').text_content() == 'sentence2'
    page.locator('[data-part=program] .token').first.press('ArrowRight')
    values = programs[0][2]
    for text in ('" t1"', f'before {values[1]:.3f}', f'after {values[2]:.3f}'):
        assert text in token.text_content()
    assert page.locator('[data-part=program] .bug').all_text_contents() == [' t3', ' t4']
    background = page.locator('.wmtp').evaluate('section => getComputedStyle(section).backgroundColor')
    assert background == 'rgb(23, 25, 28)'
    page.close()


ALL_COLOURED = '() => !document.querySelector(".wmtp-live pre").lastChild.data.trim()'
PUT_CURSOR = '(field, at) => { field.focus(); field.setSelectionRange(at, at) }'
FRONT = """
const state = STATE, listeners = []
const model = {
  get: name => state[name], set: (name, value) => { state[name] = value },
  on: (_, react) => listeners.push(react),
  save_changes: async () => {
    state.answer = await kernel(state.question)
    listeners.forEach(react => react())
  },
}
front.render({ model, el: document.body })
"""


@pytest.fixture(scope='module')
def live_page(browser):
    "The widget's front end in a page; what it asks is answered by the widget in this process."
    critic = load_critic()
    policy = MetaLlamaMTPAdapter.micro(critic.tokenizer.vocab_size, 32, 4, 2, 64).eval()
    widget = explore(critic, policy)
    def kernel(question):
        widget.question = question
        return widget.answer
    page = browser.new_page()
    page.expose_function('kernel', kernel)
    state = {name: getattr(widget, name) for name in ('names', 'scales', 'question', 'answer')}
    page.set_content(f'<style>{widget._css}</style>')
    page.add_script_tag(type='module', content=widget._esm.replace('export default', 'const front =')
                        + FRONT.replace('STATE', json.dumps(state)))
    page.wait_for_selector('.wmtp-live .token')
    yield page, widget
    page.close()


def test_typed_in_the_page_a_mistake_lowers_v_within_a_second(live_page):
    page, widget = live_page
    program = page.locator('[data-part=program]')
    end = lambda: float(page.locator('[data-part=title0]').text_content().split()[-4])
    at = PROGRAM.index('>=') + 2
    times, right = [], end()
    for _ in range(3): # the fastest counts: other processes share the machine
        program.evaluate(PUT_CURSOR, at)
        began = time.monotonic()
        page.keyboard.press('Backspace')
        page.wait_for_function(ALL_COLOURED)
        times.append(time.monotonic() - began)
        assert '> 3' in program.input_value() and end() < right - .3
        program.press_sequentially('=')
        page.wait_for_function('([id, text]) => document.querySelector(id).textContent.includes(text)',
                               arg=['[data-part=title0]', f'{right:.3f}'])
    assert min(times) < 1


def test_the_cursor_chooses_the_token_whose_alternatives_are_shown(live_page):
    expect = pytest.importorskip('playwright.sync_api').expect
    page, widget = live_page
    at = PROGRAM.index('acc += 1')
    page.locator('[data-part=program]').evaluate(PUT_CURSOR, at + 3)
    page.keyboard.press('Shift')
    tokens = widget.answer['texts']
    place = next(i for i in range(len(tokens)) if len(''.join(tokens[:i + 1])) >= at + 3)
    expected = alternatives(widget.critics, widget.policy, PROMPT, PROGRAM, place)
    assert tokens[place].strip() == 'acc' and len(expected) == 5
    quoted = [json.dumps(a['text'], ensure_ascii=False) for a in expected]
    rows = [f"{text}{a['probability']:.3f}{a['values'][0]:.3f}" for text, a in zip(quoted, expected)]
    expect(page.locator('[data-part=alternatives] tbody tr')).to_have_text(rows)
