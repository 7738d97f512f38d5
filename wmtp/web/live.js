// A program that is coloured while it is typed. The kernel gets one question at a time; what was typed meanwhile is the next.
function render({ model, el }) {
  const part = {}
  const named = (name, element) => { element.dataset.part = name; return part[name] = element }
  const scales = model.get('scales'), names = model.get('names')
  const field = (label, input) => make('label', {}, `${label} `, input)
  const colours = Object.entries({ td: 'td', value: 'V after the token', weight: 'weight' })
  const kind = named('kind', make('select', {}, ...colours.map(([value, textContent]) => make('option', { value, textContent }))))
  const prompt = named('prompt', make('input', { type: 'text', value: model.get('question').prompt }))
  const text = named('program', make('textarea', { value: model.get('question').program, spellcheck: false, autocapitalize: 'off',
    ariaLabel: 'the program' }))
  const views = names.map((_, c) => named(`tokens${c}`, make('pre')))
  const titles = names.map((_, c) => named(`title${c}`, make('figcaption')))
  const figures = names.map((_, c) => make('figure', {}, titles[c],
    c ? make('div', { className: 'paper' }, views[c]) : make('div', { className: 'paper' }, views[0], text)))
  const path = document.createElementNS('http://www.w3.org/2000/svg', 'svg')
  const section = make('section', { className: 'wmtp wmtp-live' }, make('div', { className: 'row' }, field('sentence', prompt), field('colour', kind)),
    make('div', { className: 'pair' }, ...figures), named('path', path),
    make('p', { className: 'key', textContent: 'V along the program, from 0 to 1; the line in the middle is one half' }), named('token', make('p', { className: 'token-numbers', ariaLive: 'polite' })),
    named('alternatives', make('table')), named('error', make('p', { role: 'alert' })), named('key', make('p', { className: 'key' })))
  el.append(section)

  // -- asking
  let waiting = false
  function caret() { // the token before the caret
    const { texts } = model.get('answer')
    let at = 0, end = 0
    for (; at < texts.length - 1 && (end += texts[at].length) < text.selectionStart; at++);
    return at
  }
  const question = () => ({ prompt: prompt.value, program: text.value, at: caret() })
  const same = (a, b) => ['prompt', 'program', 'at'].every(name => a[name] === b[name])
  function ask() {
    draw()
    if (waiting || same(question(), model.get('question'))) return
    waiting = true
    model.set('question', question())
    model.save_changes()
  }
  function answered() { waiting = false; ask() }

  // -- showing
  function colourTokens(view, answer, numbers) {
    const { value } = text, pieces = []
    let end = 0
    for (const [i, piece] of answer.texts.entries()) { // what is not answered yet stays plain
      if (!value.startsWith(piece, end)) break
      const token = make('span', { className: 'token', textContent: piece })
      colour(token, numbers[i], kind.value)
      token.classList.toggle('here', i === caret())
      pieces.push(token)
      end += piece.length
    }
    view.replaceChildren(...pieces, value.slice(end), '\n')
  }
  function drawPath(critics) {
    const n = Math.max(2, critics[0].values.length + 1)
    const lines = critics.map((c, k) => {
      const points = [c.before, ...c.values].map((v, i) => `${(100 * i / (n - 1)).toFixed(2)},${(40 * (1 - v)).toFixed(2)}`)
      return `<polyline points="${points.join(' ')}" class="critic${k}"/>`
    })
    path.setAttribute('viewBox', '0 -1 100 42')
    path.setAttribute('preserveAspectRatio', 'none')
    path.innerHTML = `<line x1="0" x2="100" y1="20" y2="20"/>${lines.join('')}`
  }
  function drawToken({ texts, lines, critics }, at) {
    const numbers = critics.flatMap((c, k) => [['V before', SPEC.value(at ? c.values[at - 1] : c.before)],
      ['V after', SPEC.value(c.values[at])], ['td', SPEC.td(c.td[at])], ['weight', SPEC.weight(c.weights[at])]]
      .map(([label, textContent], i) => make('span', {}, critics.length > 1 && !i ? `${names[k]}: ` : '', `${label} `, make('b', { textContent }))))
    part.token.replaceChildren(make('b', { textContent: JSON.stringify(texts[at]) }), ` line ${lines[at]} `, ...numbers)
  }
  function drawAlternatives({ alternatives }) {
    if (!alternatives) return part.alternatives.replaceChildren()
    const head = ['in its place', 'probability', ...names.map(name => names.length > 1 ? `V, ${name}` : 'V after')]
    const rows = alternatives.map(({ text, probability, values, chosen }) => make('tr', { className: chosen ? 'chosen' : '' },
      make('th', { scope: 'row' }, make('code', { textContent: JSON.stringify(text) })),
      ...[probability.toFixed(3), ...(values ? values.map(SPEC.value) : names.map(() => 'the outcome'))]
        .map(textContent => make('td', { textContent }))))
    part.alternatives.replaceChildren(make('thead', {}, make('tr', {}, ...head.map(textContent => make('th', { textContent })))),
      make('tbody', {}, ...rows))
  }
  function draw() {
    const answer = model.get('answer')
    part.error.textContent = answer.error ?? ''
    const numbers = c => ({ td: c.td, value: c.values, weight: c.weights })[kind.value]
    names.forEach((_, c) => colourTokens(views[c], answer, answer.error ? [] : numbers(answer.critics[c])))
    part.key.replaceChildren(...keyOf(kind.value, scales))
    if (answer.error) return
    names.forEach((name, c) => {
      const { before, values } = answer.critics[c]
      titles[c].textContent = `${name}: V ${SPEC.value(before)} before the program, ${SPEC.value(values.at(-1))} at its end`
    })
    drawPath(answer.critics)
    drawToken(answer, Math.min(caret(), answer.texts.length - 1))
    drawAlternatives(answer)
  }
  for (const input of [prompt, text]) input.addEventListener('input', ask)
  for (const name of ['keyup', 'click', 'focus']) text.addEventListener(name, ask)
  for (const name of ['keydown', 'keypress', 'keyup']) section.addEventListener(name, event => event.stopPropagation())
  kind.addEventListener('input', draw)
  model.on('change:answer', answered)
  draw()
  return () => model.off('change:answer', answered)
}

export default { render }
