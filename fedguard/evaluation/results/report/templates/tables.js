// Sort the rows of each group by a column, and show only rows that contain a word. Works on what is there.
for (const table of document.querySelectorAll('table.summary')) {
  const heads = [...table.querySelectorAll('thead th')];
  heads.forEach((head, place) => {
    const button = document.createElement('button');
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener('click', () => {
      const down = head.getAttribute('aria-sort') !== 'descending';
      heads.forEach(other => other.removeAttribute('aria-sort'));
      head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
      for (const body of table.tBodies) sort(body, place, down ? -1 : 1);
    });
  });
}
function sort(body, place, sign) {
  const text = row => row.cells[place].textContent.trim().replace(/^~/, '');
  const rows = [...body.rows].filter(row => !row.classList.contains('group'));
  const order = (a, b) => {
    const [x, y] = [text(a), text(b)];
    if (!x || !y) return !x - !y;
    const [p, q] = [parseFloat(x), parseFloat(y)];
    return sign * (place && !isNaN(p) && !isNaN(q) ? p - q : x.localeCompare(y));
  };
  body.append(...rows.sort(order));
}
for (const part of document.querySelectorAll('[data-filter]')) {
  const label = document.createElement('label');
  const input = document.createElement('input');
  input.type = 'search';
  label.className = 'filter';
  label.append('Show only ', input);
  input.placeholder = 'attack or defense';
  part.prepend(label);
  input.addEventListener('input', () => {
    const word = input.value.trim().toLowerCase();
    for (const body of part.querySelectorAll('tbody')) {
      const head = body.querySelector('.group');
      const all = head.textContent.toLowerCase().includes(word);
      let shown = 0;
      for (const row of body.rows) {
        if (row === head) continue;
        row.hidden = !all && !row.cells[0].textContent.toLowerCase().includes(word);
        shown += !row.hidden;
      }
      body.hidden = !shown;
      const box = body.closest('details');
      if (box) { box.hidden = !shown; if (word && shown) box.open = true; }
    }
  });
}
