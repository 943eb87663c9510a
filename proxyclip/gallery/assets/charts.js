// Charts: small SVG drawings, made of plain numbers.
"use strict";

const Charts = (() => {
  const SVG = "http://www.w3.org/2000/svg";

  function node(name, attributes, ...children) {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  }

  function text(content, attributes) {
    const element = node("text", attributes);
    element.textContent = content;
    return element;
  }

  // A histogram over 0 to 100 %. series: [{counts, colour}], drawn over each other as shares of their sums.
  function histogram(series, { width = 320, height = 120, axis = true, label }) {
    const bottom = axis ? 18 : 0;
    const shares = series.map(({ counts }) => {
      const sum = counts.reduce((one, other) => one + other, 0) || 1;
      return counts.map((each) => each / sum);
    });
    const largest = Math.max(...shares.flat(), 1e-9);
    const chart = node("svg", { viewBox: `0 0 ${width} ${height}`, class: "chart", role: "img", "aria-label": label });
    const bars = shares[0].length;
    const step = width / bars;
    shares.forEach((values, at) => {
      values.forEach((value, bar) => {
        const tall = (value / largest) * (height - bottom - 2);
        if (!tall) return;
        const narrow = (step - 2) / shares.length;
        const drawn = node("rect", {
          x: bar * step + 1 + at * narrow,
          y: height - bottom - Math.max(1, tall),
          width: Math.max(1, narrow),
          height: Math.max(1, tall),
          rx: Math.min(1.5, narrow / 2),
        });
        drawn.style.fill = series[at].colour;
        const hint = node("title", {});
        hint.textContent = `${Math.round((100 * bar) / bars)} to ${Math.round((100 * (bar + 1)) / bars)} %: ${plural(series[at].counts[bar], "image")}`;
        drawn.append(hint);
        chart.append(drawn);
      });
    });
    chart.append(node("line", { x1: 0, x2: width, y1: height - bottom, y2: height - bottom, class: "axis" }));
    if (axis) {
      [0, 50, 100].forEach((value) =>
        chart.append(
          text(`${value} %`, {
            x: (value / 100) * width,
            y: height - 4,
            "text-anchor": value === 0 ? "start" : value === 100 ? "end" : "middle",
          }),
        ),
      );
    }
    return chart;
  }

  // A bar with its figure, for a cell of a table.
  function bar(value, largest, colour, figure) {
    return el(
      "span",
      { class: "cellbar" },
      el("span", { class: "figure" }, figure),
      el("span", { class: "track" }, el("span", { style: { width: `${(100 * value) / (largest || 1)}%`, background: colour } })),
    );
  }

  // A table whose columns sort. columns: [{name, of, by, cell, numeric}]; of: a second line in its head. The first click sorts numbers from the largest.
  function table(columns, rows, { sortedBy = 0, down = true, label }) {
    const body = el("tbody");
    let order = { at: sortedBy, down };
    const heads = columns.map((column, at) => {
      const sort = () => {
        order = { at, down: order.at === at ? !order.down : Boolean(column.numeric) };
        fill();
      };
      const head = el("th", { scope: "col", class: column.numeric ? "numeric" : "" });
      head.append(column.by ? el("button", { onclick: sort }, column.name) : column.name);
      if (column.of) head.append(el("span", { class: "of", title: column.of }, column.of));
      return head;
    });
    const LIMIT = 500;
    function fill() {
      const { by } = columns[order.at];
      const sign = order.down ? -1 : 1;
      const value = (row) => (by(row) === null ? -Infinity : by(row));
      const compare = (one, other) => (value(one) < value(other) ? -1 : value(one) > value(other) ? 1 : 0);
      const sorted = by ? [...rows].sort((one, other) => sign * compare(one, other)) : rows;
      heads.forEach((head, at) =>
        at === order.at && by ? head.setAttribute("aria-sort", order.down ? "descending" : "ascending") : head.removeAttribute("aria-sort"),
      );
      body.replaceChildren(
        ...sorted.slice(0, LIMIT).map((row) =>
          el("tr", {}, columns.map((column) => el("td", { class: column.numeric ? "numeric" : "" }, column.cell(row)))),
        ),
      );
      if (sorted.length > LIMIT) {
        body.append(el("tr", {}, el("td", { colspan: columns.length, class: "empty" }, `and ${count(sorted.length - LIMIT)} more`)));
      }
    }
    fill();
    return el("div", { class: "scroll" }, el("table", { "aria-label": label }, el("thead", {}, el("tr", {}, heads)), body));
  }

  return { histogram, bar, table };
})();
