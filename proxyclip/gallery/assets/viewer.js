// One image, large: what is under the pointer, its classes, and the images before and after it.
"use strict";

const Viewer = (() => {
  const LISTED = 100; // classes of an image
  let dialog, stage, canvases, readout, panel;
  let list = [];
  let at = 0;
  let both = false;
  let masks = [];
  let point = null; // shares of width and height
  let opener = null;

  const current = () => list[at];

  function open(image, images, compare) {
    dialog = document.getElementById("viewer");
    opener = document.activeElement;
    [list, at, both] = [images, images.indexOf(image), compare];
    show();
    if (!dialog.open) dialog.showModal();
    stage.focus({ preventScroll: true });
  }

  function close() {
    dialog.close();
  }

  function step(by) {
    const next = at + by;
    if (next < 0 || next >= list.length) return;
    at = next;
    show();
    stage.focus({ preventScroll: true });
  }

  function show() {
    const image = current();
    point = null;
    masks = [];
    stage = el(
      "div",
      {
        class: "stage",
        tabindex: 0,
        role: "img",
        "aria-label": `${image.uri}. Shift and arrow keys move the point that is read.`,
        onpointermove: read,
        onpointerdown: read,
        onpointerleave: (event) => event.pointerType === "mouse" && readAt(null),
      },
      Cards.picture(image, both),
      el("span", { class: "cross", hidden: true, "aria-hidden": "true" }),
    );
    const picture = stage.querySelector(".picture");
    picture.style.setProperty("--width", image.small[0]);
    canvases = [...picture.querySelectorAll("canvas")];
    readout = el("output", { class: "readout", "aria-live": "polite" });
    panel = el("div", { class: "panel-body" });
    dialog.replaceChildren(
      el(
        "div",
        { class: "top" },
        el("span", { class: "name" }, image.uri),
        el("span", { class: "figure" }, `${count(at + 1)} / ${count(list.length)}`),
        el("button", { class: "quiet", onclick: () => step(-1), disabled: at === 0, "aria-label": "Previous image" }, "←"),
        el("button", { class: "quiet", onclick: () => step(1), disabled: at === list.length - 1, "aria-label": "Next image" }, "→"),
        el("button", { class: "quiet", onclick: close, "aria-label": "Close" }, "✕"),
      ),
      el("div", { class: "room" }, stage),
      el(
        "div",
        { class: "side-panel" },
        readout,
        el("div", { class: "controls" }, both && image.changed !== null ? Controls.wipe() : null, Controls.opacity(), Controls.toggle()),
        panel,
      ),
    );
    readAt(null);
    describe(image);
    load(image);
  }

  async function load(image) {
    try {
      const found = await Masks.get(image.number);
      if (image !== current()) return;
      masks = both ? found : found.slice(0, 1);
      draw();
      readAt(point);
      for (const beside of [list[at + 1], list[at - 1]]) if (beside) Masks.get(beside.number).catch(() => {});
    } catch (error) {
      readout.textContent = `The mask cannot be shown: ${error.message}.`;
    }
  }

  function draw() {
    masks.forEach((mask, which) => canvases[which] && Masks.paint(canvases[which], mask, Selection.classes()));
    dialog.dataset.drawn = String(current().number);
  }

  function describe(image) {
    const largest = Math.max(...image.classes.map((each) => each.share), 0.0001);
    const rows = image.classes.slice(0, LISTED).map(({ of, share, confidence }) => {
      const each = classOf(of);
      const highlight = (value) => () => Gallery.set({ highlighted: value });
      return el(
        "li",
        {},
        el(
          "a",
          {
            class: "class",
            href: `#class/${of}`,
            title: `All about ${each.name}`,
            onclick: close,
            onpointerenter: (event) => event.pointerType === "mouse" && highlight(of)(),
            onpointerleave: highlight(null),
            onfocus: (event) => event.target.matches(":focus-visible") && highlight(of)(),
            onblur: highlight(null),
          },
          swatch(each.colour),
          el("span", { class: "name" }, each.name),
          el("span", { class: "figure" }, percent(share)),
          el("span", { class: "figure faint", title: "Mean confidence" }, percent(confidence, 0)),
          el("span", { class: "track" }, el("span", { style: { width: `${(100 * share) / largest}%`, background: each.colour } })),
        ),
      );
    });
    const changes = both
      ? image.transitions.map(([before, after, share]) =>
          el(
            "li",
            { class: "change" },
            swatch(classOf(before).colour),
            el("span", { class: "name" }, classOf(before).name),
            "→",
            swatch(classOf(after).colour),
            el("span", { class: "name" }, classOf(after).name),
            el("span", { class: "figure" }, percent(share)),
          ),
        )
      : [];
    panel.replaceChildren(
      ...[
        image.gone ? el("p", { class: "notice" }, `The image is not shown: ${image.gone}.`) : null,
        el(
          "dl",
          { class: "figures" },
          el("div", {}, el("dd", {}, percent(image.confidence, 0)), el("dt", {}, "confidence")),
          el("div", {}, el("dd", {}, `${image.size[0]} × ${image.size[1]}`), el("dt", {}, "pixels")),
          image.ignored ? el("div", {}, el("dd", {}, percent(image.ignored)), el("dt", {}, "no class")) : null,
          both && image.changed !== null ? el("div", {}, el("dd", {}, percent(image.changed)), el("dt", {}, "changed")) : null,
        ),
        changes.length ? el("h3", {}, "What changed") : null,
        changes.length ? el("ul", { class: "list" }, changes) : null,
        el("h3", { class: "columns" }, el("span", {}, both ? `Classes, ${Gallery.about.outputs[0].name}` : "Classes"), el("span", { class: "figure" }, "area"), el("span", { class: "figure faint" }, "conf.")),
        el("ul", { class: "list" }, rows),
        image.classes.length > LISTED ? el("p", { class: "note" }, `and ${count(image.classes.length - LISTED)} smaller ones`) : null,
      ].filter((each) => each),
    );
  }

  function read(event) {
    const box = stage.querySelector(".picture").getBoundingClientRect();
    const [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    readAt(x < 0 || y < 0 || x >= 1 || y >= 1 ? null : [x, y]);
    if (masks.length > 1 && event.buttons & 1) Gallery.set({ wipe: Math.round(100 * Math.min(1, Math.max(0, x))) });
  }

  function readAt(place) {
    point = place;
    const cross = stage.querySelector(".cross");
    cross.hidden = true;
    if (!place || !masks.length) {
      readout.replaceChildren(el("span", { class: "faint" }, "Point at the image to read its class and confidence"));
      delete readout.dataset.class;
      return;
    }
    const found = masks.map((mask) => Masks.at(mask, ...place));
    readout.dataset.class = classOf(found[0].number).name;
    readout.dataset.at = `${found[0].column},${found[0].row}`;
    readout.replaceChildren(
      ...found.map((each, which) => {
        const known = classOf(each.number);
        return el(
          "span",
          { class: "class" },
          found.length > 1 ? el("span", { class: "faint" }, Gallery.about.outputs[which].name) : null,
          swatch(known.colour),
          el("strong", { class: "name" }, known.name),
          el(
            "span",
            { class: "measures" },
            measure("confidence", each.confidence, "Probability of this class"),
            each.margin === null ? null : measure("margin", each.margin, "Confidence minus the probability of the second class"),
          ),
        );
      }),
    );
  }

  const measure = (name, value, title) =>
    el("span", { class: "measure faint", title }, `${name} `, el("span", { class: "figure" }, percent(value, 0)));

  // Move the point that is read, by pixels of the thumbnail.
  function move(right, down) {
    const [width, height] = current().small;
    const [x, y] = point || [0.5, 0.5];
    const inside = (value) => Math.min(0.9999, Math.max(0, value));
    readAt(point ? [inside(x + right / width), inside(y + down / height)] : [x, y]);
    const cross = stage.querySelector(".cross");
    const box = stage.querySelector(".picture").getBoundingClientRect();
    const around = stage.getBoundingClientRect();
    cross.hidden = false;
    cross.style.left = `${box.left - around.left + point[0] * box.width}px`;
    cross.style.top = `${box.top - around.top + point[1] * box.height}px`;
  }

  Gallery.onChange((changes) => {
    if (dialog && dialog.open && masks.length && ("highlighted" in changes || "selected" in changes)) draw();
  });

  document.getElementById("viewer").addEventListener("close", () => {
    Gallery.set({ highlighted: null });
    const card = document.querySelector(`.card[data-image="${current().number}"]`) || opener;
    if (card) card.focus({ preventScroll: false });
  });

  return { open, close, step, move, isOpen: () => Boolean(dialog && dialog.open) };
})();
