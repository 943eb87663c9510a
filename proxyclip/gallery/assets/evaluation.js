// The scores of an evaluation: figures, classes, confusion, and the worst images.
"use strict";

Gallery.loadEvaluation = (evaluation) => (Gallery.evaluation = evaluation);

Gallery.pages.evaluation = (() => {
  const figure = (value) => (value === null ? "–" : value.toFixed(1));

  function scores(evaluation) {
    const headline = [
      ["mIoU", evaluation.miou],
      ["pixel accuracy", evaluation.aacc],
      ["mean class accuracy", evaluation.macc],
      ["boundary IoU", evaluation.boundary_iou],
    ].filter(([, value]) => value !== null);
    return el(
      "dl",
      { class: "figures panel" },
      headline.map(([name, value]) => el("div", {}, el("dd", {}, figure(value)), el("dt", {}, name))),
      el("div", {}, el("dd", {}, count(evaluation.num_images)), el("dt", {}, "labelled images")),
    );
  }

  // The colour and the page of a class that the gallery knows too.
  function named(name) {
    const known = Gallery.classes.find((each) => each.name.trim().toLowerCase() === name.trim().toLowerCase());
    if (!known) return el("span", { class: "class" }, swatch("transparent"), el("span", { class: "name" }, name));
    return el("a", { class: "class", href: `#class/${known.number}` }, swatch(known.colour), el("span", { class: "name" }, name));
  }

  function classes(evaluation) {
    const column = (name, key) => ({
      name,
      numeric: true,
      by: (row) => row[key],
      cell: (row) => (row[key] === null ? "–" : Charts.bar(row[key], 100, "var(--accent)", figure(row[key]))),
    });
    const columns = [
      { name: "Class", by: (row) => row.name.toLowerCase(), cell: (row) => named(row.name) },
      column("IoU", "iou"),
      column("Accuracy", "accuracy"),
      column("Boundary IoU", "boundary_iou"),
      { name: "Pixels", numeric: true, by: (row) => row.pixels, cell: (row) => count(row.pixels) },
    ];
    return el("section", { class: "panel" }, el("h3", {}, "Classes"), Charts.table(columns, evaluation.classes, { sortedBy: 1, label: "Scores of the classes" }));
  }

  function confusion({ confusion: rows, classes: all }) {
    if (!rows) return "";
    const shown = all.map((each, at) => at).filter((at) => rows[at].some((each) => each) || rows.some((row) => row[at]));
    const columns = rows.some((row) => row[all.length]) ? [...shown, all.length] : shown;
    const name = (at) => (at === all.length ? "no class" : all[at].name);
    const body = shown.map((at) => {
      const sum = rows[at].reduce((one, other) => one + other, 0);
      return el(
        "tr",
        {},
        el("th", { scope: "row" }, el("span", {}, name(at))),
        columns.map((to) => {
          const share = sum ? rows[at][to] / sum : 0;
          const shade = Math.round(100 * Math.sqrt(share));
          const tone = at === to ? "var(--accent)" : "var(--bad)";
          return el(
            "td",
            {
              title: `${name(at)} labelled ${name(to)}: ${percent(share)}`,
              class: share > 0.35 ? "strong" : "",
              style: { background: `color-mix(in srgb, ${tone} ${shade}%, transparent)` },
            },
            share >= 0.005 ? String(Math.round(100 * share)) : "",
          );
        }),
      );
    });
    return el(
      "section",
      { class: "panel" },
      el("h3", {}, "Confusion"),
      el("p", { class: "note" }, "Rows are the true classes, columns what they were labelled, in percent of the row."),
      el(
        "div",
        { class: "scroll" },
        el(
          "table",
          { class: "confusion", "aria-label": "Confusion" },
          el("thead", {}, el("tr", {}, el("td"), columns.map((at) => el("th", { scope: "col" }, el("span", {}, name(at)))))),
          el("tbody", {}, body),
        ),
      ),
    );
  }

  function worst(evaluation) {
    const known = new Map(Gallery.images.map((image) => [image.uri, image]));
    const shown = evaluation.worst.filter((each) => known.has(each.uri));
    const scored = new Map(shown.map((each) => [known.get(each.uri), each.miou]));
    const listed = evaluation.worst.filter((each) => !known.has(each.uri));
    return el(
      "section",
      {},
      el("div", { class: "controls" }, el("h3", {}, "Worst images"), Controls.opacity(), Controls.toggle()),
      scored.size ? Cards.grid([...scored.keys()], { of: (image) => ({ figure: `mIoU ${figure(scored.get(image))}` }) }) : "",
      listed.length
        ? el("p", { class: "note" }, "Not in this gallery: ", listed.map((each) => `${each.uri} (${figure(each.miou)})`).join(", "))
        : "",
    );
  }

  return {
    title: () => "Evaluation",
    available: () => Gallery.about.evaluation,
    legend: false,
    async show(content) {
      await Gallery.script("data/evaluation.js");
      const { evaluation } = Gallery;
      content.replaceChildren(scores(evaluation), classes(evaluation), confusion(evaluation), worst(evaluation));
    },
  };
})();
