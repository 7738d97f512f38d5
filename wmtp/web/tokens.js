// Tokens on their colours, as nbs/5_training/54_viz.ipynb defines them: -1 red, 0 paper, 1 blue.
const POSITION = {
  value: v => 2 * v - 1,
  td: td => td / .4,
  weight: w => Math.log2(Math.max(w, 1e-9)),
}
const figure = v => (v < 0 ? '−' : '') + Math.abs(v).toFixed(3)
const SPEC = { value: figure, td: v => (v < 0 ? '' : '+') + figure(v), weight: figure }

function make(tag, fields = {}, ...children) {
  const element = Object.assign(document.createElement(tag), fields)
  element.append(...children)
  return element
}

function colour(element, number, kind) {
  const x = Math.max(-1, Math.min(1, POSITION[kind](number)))
  element.style.setProperty('--share', `${(100 * Math.abs(x)).toFixed(1)}%`)
  element.classList.toggle('low', x < 0)
}

// Five numbers in their colours and what they mean; `scales` are those of wmtp.viz.
function keyOf(kind, scales) {
  const swatches = scales[kind].ticks.map(x => {
    const swatch = make('span', { className: 'token', textContent: ` ${x} ` })
    colour(swatch, x, kind)
    return swatch
  })
  return [...swatches, ` ${scales[kind].symbol}: ${scales[kind].meaning}`]
}
