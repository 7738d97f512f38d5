// The explorer of a page. What a program holds: `texts` of its tokens; `values` V(s_t) before each of them;
// `end`, the outcome, or the bootstrap where the program was cut off; `bug`, first and last token of the mistake.
const BETAS = [.01, .012, .015, .02, .025, .03, .04, .05, .06, .08, .1, .12, .15, .2, .25, .3, .4, .5, .6, .7, .8, .9, 1, 1.2,
               1.5, 2, 3]

// td[t] = gamma V[t+1] - V[t]; the last is the end less V (30_td_error).
function tdErrors({ values, end }, gamma) {
  return values.map((v, t) => (t + 1 < values.length ? gamma * values[t + 1] : end) - v)
}

// A[t] = td[t] + gamma lam A[t+1] (31_lambda_return): lam 0 is td, lam 1 the end less V.
function advantages(td, decay) {
  const out = [...td]
  for (let t = out.length - 2; t >= 0; t--) out[t] += decay * out[t + 1]
  return out
}

// Weight of each token as the head that stands k choices before it has it: the product over the choices of its
// path, clipped after the product (32_weight_builder). k = 1 is the choice alone.
function weightsOf(A, { beta, low, high, k }) {
  return A.map((_, t) => {
    let sum = 0
    for (let i = Math.max(0, t - k + 1); i <= t; i++) sum += A[i]
    return Math.min(Math.max(Math.exp(sum / beta), low), high)
  })
}

// Mean, and Kish's effective sample size (sum w)^2 / sum w^2.
function summary(w, { low, high }) {
  let sum = 0, squares = 0, clipped = 0
  for (const x of w) { sum += x; squares += x * x; clipped += x <= low || x >= high }
  const ess = squares ? sum * sum / squares : 0
  return { n: w.length, mean: sum / w.length, ess, share: ess / w.length, clipped: clipped / w.length }
}

// Does the lowest td before EOS stand on the known mistake?
function isFound({ bug, texts }, td) {
  const open = td.slice(0, -1)
  const lowest = open.indexOf(Math.min(...open))
  return Boolean(bug) && texts.length > 1 && bug[0] <= lowest && lowest <= bug[1]
}

function explorer(root, data) {
  const { programs, gamma, scales } = data
  const state = { kind: 'weight', lam: 0, k: 1, chosen: -1, ...data.start }
  const part = name => root.querySelector(`[data-part="${name}"]`)
  for (const p of programs) p.td = tdErrors(p, gamma)
  const wrong = programs.flatMap((p, i) => p.correct ? [] : [i])
  const critic = p => !p.bug ? 'unknown' : isFound(p, p.td) ? 'found' : 'missed'

  // -- which programs
  function options(select, values) {
    const counts = {}
    for (const value of values) counts[value] = (counts[value] ?? 0) + 1
    select.append(...Object.keys(counts).sort().map(value =>
      make('option', { value, textContent: `${value} (${counts[value]})` })))
  }
  const pick = part('list'), search = part('search')
  options(part('mutation'), wrong.map(i => programs[i].mutation ?? 'not recorded'))
  options(part('family'), wrong.map(i => programs[i].family ?? 'not recorded'))
  options(part('critic'), wrong.map(i => critic(programs[i])))
  function filter() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean)
    const fits = p => ['mutation', 'family'].every(name => [p[name] ?? 'not recorded', ''].includes(part(name).value)) &&
      [critic(p), ''].includes(part('critic').value) &&
      words.every(word => `${p.prompt}\n${p.texts.join('')}`.toLowerCase().includes(word))
    const hits = wrong.filter(i => fits(programs[i]))
    pick.replaceChildren(...hits.map(i => make('option', {
      value: i, textContent: `${programs[i].mutation ?? 'incorrect'} · ${critic(programs[i])} · ${programs[i].prompt}` })))
    pick.size = Math.max(2, Math.min(6, hits.length))
    part('count').textContent = `${hits.length} of ${wrong.length} incorrect programs`
    if (hits.length) pick.value = hits.includes(state.chosen) ? state.chosen : hits[0]
    show(hits.length ? Number(pick.value) : -1)
  }

  // -- two programs side by side, token by token
  const sides = { program: [], twin: [] }
  function tokens(name, i) {
    const pre = part(name), p = programs[i]
    sides[name] = p ? p.texts.map((text, t) => make('span', {
      className: 'token', tabIndex: t ? -1 : 0, textContent: text,
      onmouseenter: () => describe(name, t), onfocus: () => describe(name, t) })) : []
    if (p?.bug) for (let t = p.bug[0]; t <= p.bug[1]; t++) sides[name][t].classList.add('bug')
    pre.replaceChildren(...sides[name])
    return p
  }
  function show(i) {
    state.chosen = i
    const p = tokens('program', i), twin = tokens('twin', p?.twin ?? -1)
    part('prompt').textContent = p ? p.prompt : 'no program fits'
    part('program-title').textContent = p ? `incorrect: ${p.mutation ?? 'mistake not recorded'}, ${p.problem}` : ''
    part('twin-title').textContent = twin ? 'the correct program that begins like it' : 'no correct program'
    draw()
    if (p) describe('program', p.bug ? p.bug[0] : 0)
  }
  const programOf = name => programs[name === 'program' ? state.chosen : programs[state.chosen]?.twin ?? -1]
  function describe(name, t) {
    const p = programOf(name)
    if (!p) return
    for (const spans of Object.values(sides)) for (const span of spans) span.classList.remove('here')
    sides[name][t].classList.add('here')
    const after = p.values[t + 1] ?? p.end
    state.token = [name, t]
    part('token').replaceChildren(
      make('b', { textContent: JSON.stringify(p.texts[t]) }), ` line ${p.lines[t]} `,
      ...[['V before', SPEC.value(p.values[t])], [t + 1 < p.texts.length ? 'V after' : 'outcome', SPEC.value(after)],
          ['td', SPEC.td(p.td[t])], ...(state.lam ? [['advantage', SPEC.td(p.A[t])]] : []), ['weight', SPEC.weight(p.w[t])]]
        .map(([label, text]) => make('span', {}, `${label} `, make('b', { textContent: text }))))
  }
  function move(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -1e9, End: 1e9 }[event.key]
    const name = event.currentTarget.dataset.part, spans = sides[name], at = spans.indexOf(event.target)
    if (!step || at < 0) return
    event.preventDefault()
    const to = spans[Math.max(0, Math.min(spans.length - 1, at + step))]
    spans[at].tabIndex = -1
    to.tabIndex = 0
    to.focus()
  }

  // -- the numbers
  function draw() {
    for (const p of programs) {
      p.A = advantages(p.td, gamma * state.lam)
      p.w = weightsOf(p.A, state)
    }
    for (const name of ['program', 'twin']) {
      const p = programOf(name)
      const numbers = p && { weight: p.w, td: p.td, value: [...p.values.slice(1), p.end] }[state.kind]
      if (p) sides[name].forEach((span, t) => colour(span, numbers[t], state.kind))
    }
    const rows = [['this program', programOf('program')?.w], ['its twin', programOf('twin')?.w],
                  [`all ${programs.length} programs`, programs.flatMap(p => p.w)]]
    part('numbers').replaceChildren(...rows.filter(([, w]) => w).map(([label, w]) => {
      const { n, mean, ess, share, clipped } = summary(w, state)
      const cells = [n, mean.toFixed(4), ess.toFixed(1), share.toFixed(4), `${(100 * clipped).toFixed(0)} %`]
      return make('tr', {}, make('th', { textContent: label, scope: 'row' }), ...cells.map(text => make('td', { textContent: text })))
    }))
    part('key').replaceChildren(...keyOf(state.kind, scales), state.kind === 'weight' || state.chosen < 0 ? '' :
      '; at <EOS> it contains the outcome, which the critic does not know', '; ', make('span', { className: 'bug', textContent: 'the known mistake' }))
    if (state.token) describe(...state.token)
  }
  function control(name, read, say) {
    const input = part(name), output = part(`${name}-says`)
    const changed = () => {
      state[name] = read(input)
      if (output) input.ariaValueText = output.textContent = say(state[name])
      draw()
    }
    input.addEventListener('input', changed)
    return changed
  }
  const two = x => x.toFixed(2)
  part('beta').max = BETAS.length - 1
  part('beta').value = BETAS.findIndex(beta => beta >= state.beta - 1e-9)
  for (const name of ['lam', 'low', 'high', 'kind', 'k']) part(name).value = state[name]
  const controls = [control('beta', input => BETAS[input.value], String), control('lam', input => Number(input.value), two),
    control('low', input => Number(input.value), two), control('high', input => Number(input.value), two),
    control('kind', input => input.value), control('k', input => Number(input.value))]
  for (const name of ['mutation', 'family', 'critic', 'search']) part(name).addEventListener('input', filter)
  pick.addEventListener('change', () => show(Number(pick.value)))
  for (const name of ['program', 'twin']) part(name).addEventListener('keydown', move)
  filter()
  controls.forEach(changed => changed())
}
