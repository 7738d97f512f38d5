// Sections that hold all words of the query; those that hold them in a heading come first.
const query = document.getElementById('query'), found = document.getElementById('found')
function search() {
  const words = query.value.toLowerCase().split(/\s+/).filter(Boolean)
  const holds = text => words.every(word => text.toLowerCase().includes(word))
  const hits = words.length ? SECTIONS.filter(([, title, , heading, text]) => holds(`${title} ${heading} ${text}`)) : []
  hits.sort((a, b) => holds(`${b[1]} ${b[3]}`) - holds(`${a[1]} ${a[3]}`))
  found.replaceChildren(...hits.slice(0, 30).map(([page, title, anchor, heading, text]) => {
    const at = Math.max(0, text.toLowerCase().indexOf(words[0]) - 40)
    const item = document.createElement('li'), link = document.createElement('a'), said = document.createElement('small')
    link.href = `${query.dataset.up}${page}#${anchor}`
    link.textContent = heading === title ? title : `${title}: ${heading}`
    said.textContent = text.slice(at, at + 120)
    item.append(link, said)
    return item
  }))
}
query.addEventListener('input', search)
document.addEventListener('keydown', event => {
  if (event.key === '/' && document.activeElement !== query) { event.preventDefault(); query.focus() }
})
