// Run at the end of a report's page by report_page.sh; what it finds stands in data-* attributes of the body.
(function () {
  'use strict';
  var body = document.body;
  function say(name, value) { body.setAttribute('data-' + name, String(value)); }
  function all(query) { return Array.prototype.slice.call(document.querySelectorAll(query)); }

  // A click sorts by value, largest first; another turns it round. Values are those of all digits.
  function sorted() {
    var table = document.querySelector('#table-leaderboard');
    var head = table.querySelector('th[data-column="mat"]');
    var column = Array.prototype.indexOf.call(head.parentNode.children, head);
    head.querySelector('button').click();
    var values = Array.prototype.map.call(table.tBodies[0].rows, function (row) {
      return parseFloat(row.cells[column].getAttribute('data-v'));
    });
    var good = values.length > 2 && values.every(function (v, i) { return i === 0 || v <= values[i - 1]; });
    return good ? head.getAttribute('aria-sort') : 'wrong order: ' + values.join(' ');
  }
  say('sorted', sorted() + ' ' + (function () {
    var head = document.querySelector('#table-leaderboard th[data-column="mat"]');
    head.querySelector('button').click();
    return head.getAttribute('aria-sort');
  })());

  say('requests', performance.getEntriesByType('resource').length);
  var root = document.documentElement;
  say('overflow', Math.max(0, root.scrollWidth - root.clientWidth));
  say('beyond', all('main *').filter(function (e) {
    return !e.closest('.scroll, svg') && e.getBoundingClientRect().right > root.clientWidth + 1;
  }).map(function (e) { return e.tagName; }).slice(0, 3).join(' '));
  function visible(e) { return getComputedStyle(e).display !== 'none'; }
  say('layout', all('svg.plot.wide').every(visible) && !all('svg.plot.narrow').some(visible) ? 'wide'
    : all('svg.plot.narrow').every(visible) && !all('svg.plot.wide').some(visible) ? 'narrow' : 'mixed');
  say('names', all('svg.plot').filter(function (svg) {
    var ids = (svg.getAttribute('aria-labelledby') || '').split(' ');
    return svg.getAttribute('role') !== 'img' ||
      !ids.every(function (id) { var e = document.getElementById(id); return e && e.textContent; });
  }).length);

  // Contrast of texts with what is behind them (WCAG 2: 4.5).
  function channel(v) { v /= 255; return v <= 0.03928 ? v / 12.92 : Math.pow((v + 0.055) / 1.055, 2.4); }
  function luminance(rgb) { return 0.2126 * channel(rgb[0]) + 0.7152 * channel(rgb[1]) + 0.0722 * channel(rgb[2]); }
  function parse(colour) { return (colour.match(/[\d.]+/g) || []).map(Number); }
  function ground(e) {
    for (; e; e = e.parentElement) {
      var c = parse(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] > 0.5) return c;
    }
    return [255, 255, 255];
  }
  // A plot lies on the page's own paper; its texts are seen on it, but for those on bars, which have its colour.
  var paper = getComputedStyle(body).backgroundColor;
  say('paper', all('svg.plot').filter(visible).filter(function (svg) {
    return getComputedStyle(svg.querySelector('rect')).fill !== paper;
  }).length);
  var faint = all('svg.plot text').filter(function (e) {
    var fill = getComputedStyle(e).fill;
    if (fill === paper) return false;
    var a = luminance(parse(fill)), b = luminance(parse(paper));
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 4.5;
  });
  faint = faint.concat(all('p, dt, dd, th, td, h1, h2, h3, figcaption, summary, button, .word').filter(function (e) {
    var a = luminance(parse(getComputedStyle(e).color)), b = luminance(ground(e));
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 4.5;
  }));
  say('contrast', faint.slice(0, 3).map(function (e) { return e.tagName + ' ' + e.textContent.slice(0, 20); }).join(', '));
})();
