// Charts of all classes, and a page for each: its figures, its clearest and its worst images.
"use strict";

Gallery.pages.classes = {
  title: () => "Classes",
  legend: false,
  show(content) {
    const outputs = Gallery.about.outputs;
    const colours = ["var(--accent)", "var(--second)"];
    const heads = outputs.map((output, at) => {
      const series = [{ counts: output.histogram, colour: colours[at] }];
      return el(
        "section",
        { class: "panel" },
        el("h3", {}, outputs.length > 1 ? output.name : "Confidence of the images"),
        Charts.histogram(series, { width: 480, height: 130, label: `Images of ${output.name} by mean confidence` }),
        el(
          "p",
          { class: "note" },
          `${plural(output.num_images, "image")} by mean confidence. Vocabulary ${output.vocabulary} with ${plural(output.num_classes, "class", "classes")}.` +
            (output.unlabelled ? ` ${percent(output.unlabelled)} of the pixels have no class.` : ""),
        ),
      );
    });
    content.replaceChildren(el("div", { class: "panels" }, heads), table(outputs));
  },
};

function table(outputs) {
  const largest = (of) => Math.max(0, ...Gallery.classes.map(of));
  const columns = [
    {
      name: "Class",
      by: (row) => row.name.toLowerCase(),
      cell: (row) => el("a", { class: "class", href: `#class/${row.number}` }, swatch(row.colour), el("span", { class: "name" }, row.name)),
    },
  ];
  outputs.forEach((output, at) => {
    const of = (key) => (row) => (row.outputs[at] ? row.outputs[at][key] : 0);
    const named = { of: outputs.length > 1 ? output.name : null };
    const column = (name, key, figure, top) => ({
      name,
      ...named,
      numeric: true,
      by: of(key),
      cell: (row) => (row.outputs[at] ? Charts.bar(of(key)(row), top, row.colour, figure(of(key)(row))) : "–"),
    });
    columns.push(column("Share", "share", percent, largest(of("share"))));
    columns.push(column("Images", "images", count, largest(of("images"))));
    columns.push(column("Confidence", "confidence", (value) => percent(value, 0), 1));
    columns.push({
      name: "Histogram",
      ...named,
      cell: (row) =>
        row.outputs[at]
          ? Charts.histogram([{ counts: row.outputs[at].histogram, colour: row.colour }], {
              width: 120,
              height: 26,
              axis: false,
              label: `${row.name}: images by confidence`,
            })
          : "",
    });
  });
  return el("section", { class: "panel" }, Charts.table(columns, Gallery.classes, { sortedBy: 1, label: "Classes" }));
}

Gallery.pages.class = {
  title: () => "Classes",
  within: "classes",
  legend: false,
  show(content, argument) {
    const each = Gallery.classes[Number(argument)];
    if (!each) {
      content.replaceChildren(el("p", { class: "empty" }, "There is no such class."));
      return;
    }
    const SHOWN = 12;
    const found = Gallery.images
      .map((image) => [image.classes.find((part) => part.of === each.number), image])
      .filter(([part]) => part)
      .sort((one, other) => other[0].confidence - one[0].confidence || one[1].number - other[1].number);
    const few = Math.min(SHOWN, Math.ceil(found.length / 2));
    const grid = (some) => {
      const parts = new Map(some.map(([part, image]) => [image, part]));
      return Cards.grid([...parts.keys()], { of: (image) => ({ figure: percent(parts.get(image).confidence) }) });
    };
    const beside = (step) => (each.number + step + Gallery.classes.length) % Gallery.classes.length;
    const figures = Gallery.about.outputs.map((output, at) => {
      const summary = each.outputs[at];
      return el(
        "section",
        { class: "panel" },
        Gallery.compared ? el("h3", {}, output.name) : null,
        summary
          ? [
              el(
                "dl",
                { class: "figures" },
                [
                  ["of the labelled pixels", percent(summary.share)],
                  ["images", count(summary.images)],
                  ["mean confidence", percent(summary.confidence, 0)],
                ].map(([name, value]) => el("div", {}, el("dd", {}, value), el("dt", {}, name))),
              ),
              Charts.histogram([{ counts: summary.histogram, colour: each.colour }], {
                width: 480,
                height: 120,
                label: `Images with ${each.name} by its confidence`,
              }),
              el("p", { class: "note" }, "Images by the mean confidence of this class in them."),
            ]
          : el("p", { class: "empty" }, "This output has no pixel of this class."),
      );
    });
    content.replaceChildren(
      el(
        "div",
        { class: "heading" },
        el("h2", {}, swatch(each.colour), each.name),
        el(
          "span",
          { class: "steps" },
          el("a", { class: "button", href: `#class/${beside(-1)}`, "data-step": "-1", "aria-label": "Previous class" }, "←"),
          el("a", { class: "button", href: `#class/${beside(1)}`, "data-step": "1", "aria-label": "Next class" }, "→"),
          el("a", { class: "button", href: "#images", onclick: () => Gallery.set({ selected: new Set([each.number]), transition: null }) }, "All its images"),
        ),
      ),
      el("div", { class: "panels" }, figures),
      el("div", { class: "controls" }, el("h3", {}, "Clearest"), Controls.opacity(), Controls.toggle()),
      found.length ? grid(found.slice(0, few)) : el("p", { class: "empty" }, "No image of this gallery has it in the first output."),
      el("h3", { class: "below" }, "Least certain"),
      found.length ? grid(found.slice(few).slice(-SHOWN).reverse()) : "",
    );
  },
};
