// The comparison of two outputs: a slider between the masks, and which class became which.
"use strict";

Gallery.loadChanges = (changes) => (Gallery.changes = changes);

Gallery.pages.compare = {
  title: () => "Compare",
  available: () => Gallery.compared,
  legend: true,
  both: true,
  async show(content) {
    await Gallery.script("data/changes.js");
    const changes = Gallery.changes;
    const [before, after] = Gallery.about.outputs;
    const missing = Gallery.images.filter((image) => image.changed === null).length;
    const share = changes.pixels ? changes.changed / changes.pixels : 0;
    const name = (number) => el("span", { class: "class" }, swatch(classOf(number).colour), el("span", { class: "name" }, classOf(number).name));
    const filter = (row) =>
      el(
        "button",
        {
          class: "quiet",
          "aria-label": `Show the images where ${classOf(row[0]).name} became ${classOf(row[1]).name}`,
          onclick: () => Gallery.set({ transition: [row[0], row[1]], selected: new Set() }),
        },
        "Show",
      );
    const columns = [
      { name: `In ${before.name}`, by: (row) => classOf(row[0]).name, cell: (row) => name(row[0]) },
      { name: `In ${after.name}`, by: (row) => classOf(row[1]).name, cell: (row) => name(row[1]) },
      {
        name: "Pixels",
        numeric: true,
        by: (row) => row[2],
        cell: (row) => Charts.bar(row[2], changes.rows[0][2], classOf(row[1]).colour, percent(row[2] / changes.pixels)),
      },
      { name: "", cell: filter },
    ];
    const intro = [
      el(
        "section",
        { class: "panel" },
        el("h3", {}, `${percent(share)} of the pixels have another class in ${after.name}`),
        el(
          "p",
          { class: "note" },
          `Measured on ${plural(Gallery.images.length - missing, "image")} of this gallery.` +
            (missing ? ` ${plural(missing, "image")} not in both outputs at the same size.` : "") +
            " Classes with the same name count as the same.",
        ),
        changes.rows.length
          ? el(
              "details",
              { open: window.innerWidth > 760 },
              el("summary", {}, "Which class became which"),
              Charts.table(columns, changes.rows, { sortedBy: 2, label: "Which class became which" }),
              changes.pairs > changes.rows.length ? el("p", { class: "note" }, `The ${changes.rows.length} largest of ${count(changes.pairs)} changes.`) : null,
            )
          : null,
      ),
    ];
    return selectionGrid(content, {
      intro,
      controls: [Controls.wipe(), Controls.opacity(), Controls.toggle()],
      sorted: (images) => Orders.sorted(images, "changed"),
      watched: ["selected", "transition"],
      options: { of: (image) => ({ both: true, figure: image.changed === null ? "not in both" : `${percent(image.changed)} changed` }) },
      empty: "No image of this gallery has this.",
    });
  },
};
