// Tables sort by a click on a heading: numbers by their full value, largest first; empty cells last. The
// page reads the same without it. Folded parts open for print.
(function () {
  'use strict';
  function key(row, column) {
    var cell = row.cells[column];
    if (cell.hasAttribute('data-v')) return parseFloat(cell.getAttribute('data-v'));
    var text = cell.textContent.trim();
    return text === '\u2013' || text === '' ? null : text;
  }
  function compare(a, b) {
    if (typeof a === 'number') {
      if (typeof b === 'number') return a - b;
      return -1;
    }
    if (typeof b === 'number') return 1;
    return a.localeCompare(b, 'en', { numeric: true });
  }
  function sort(table, head, column) {
    var number = head.classList.contains('n');
    var before = head.getAttribute('aria-sort');
    var down = before ? before === 'ascending' : number;
    var rows = Array.prototype.map.call(table.tBodies[0].rows, function (row, place) {
      return { row: row, key: key(row, column), place: place };
    });
    rows.sort(function (a, b) {
      if (a.key === null || b.key === null) {
        if (a.key === b.key) return a.place - b.place;
        return a.key === null ? 1 : -1;
      }
      var order = compare(a.key, b.key);
      return (down ? -order : order) || a.place - b.place;
    });
    rows.forEach(function (r) { table.tBodies[0].appendChild(r.row); });
    Array.prototype.forEach.call(table.tHead.rows[0].cells, function (cell) {
      cell.removeAttribute('aria-sort');
    });
    head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
  }
  document.querySelectorAll('table.sortable').forEach(function (table) {
    Array.prototype.forEach.call(table.tHead.rows[0].cells, function (head, column) {
      var button = document.createElement('button');
      button.type = 'button';
      while (head.firstChild) button.appendChild(head.firstChild);
      head.appendChild(button);
      button.addEventListener('click', function () { sort(table, head, column); });
    });
  });
  window.addEventListener('beforeprint', function () {
    document.querySelectorAll('details').forEach(function (d) { d.open = true; });
  });
})();
