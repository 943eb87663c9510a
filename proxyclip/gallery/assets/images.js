// The page of all images, and the controls above a grid.
"use strict";

const Controls = (() => {
  const opacity = () =>
    el(
      "label",
      { class: "control" },
      el("span", {}, "Mask"),
      el("input", {
        type: "range",
        class: "opacity",
        min: 0,
        max: 100,
        value: Math.round(100 * Gallery.state.opacity),
        "aria-label": "Opacity of the mask",
        title: "Opacity of the mask: [ and ]",
        oninput: (event) => Gallery.set({ opacity: event.target.value / 100, masked: true }),
      }),
    );

  const toggle = () =>
    el(
      "button",
      {
        class: "toggle",
        "aria-pressed": String(Gallery.state.masked),
        title: "Show or hide the masks (m)",
        onclick: () => Gallery.set({ masked: !Gallery.state.masked }),
      },
      Gallery.state.masked ? "Hide masks" : "Show masks",
    );

  const order = () =>
    el(
      "label",
      { class: "control" },
      el("span", {}, "Order"),
      el(
        "select",
        { class: "order", "aria-label": "Order of the images", title: "Order (o)", onchange: (event) => Gallery.set({ order: event.target.value }) },
        Orders.names().map((key) => el("option", { value: key, selected: key === Gallery.state.order }, Orders.title(key))),
      ),
    );

  const wipe = () =>
    el(
      "label",
      { class: "control wide" },
      el("span", { class: "side" }, Gallery.about.outputs[0].name),
      el("input", {
        type: "range",
        class: "wipe",
        min: 0,
        max: 100,
        value: Gallery.state.wipe,
        "aria-label": `Where ${Gallery.about.outputs[0].name} ends and ${Gallery.about.outputs[1].name} begins`,
        title: "Move between the masks: , and .",
        oninput: (event) => Gallery.set({ wipe: Number(event.target.value) }),
      }),
      el("span", { class: "side" }, Gallery.about.outputs[1].name),
    );

  Gallery.onChange((changes) => {
    const root = document.documentElement.style;
    root.setProperty("--mask", Gallery.state.masked ? Gallery.state.opacity : 0);
    root.setProperty("--wipe", `${Gallery.state.wipe}%`);
    if ("opacity" in changes || "masked" in changes) {
      document.querySelectorAll(".opacity").forEach((input) => (input.value = Math.round(100 * Gallery.state.opacity)));
      document.querySelectorAll(".toggle").forEach((button) => {
        button.setAttribute("aria-pressed", String(Gallery.state.masked));
        button.textContent = Gallery.state.masked ? "Hide masks" : "Show masks";
      });
    }
    if ("wipe" in changes) document.querySelectorAll(".wipe").forEach((input) => (input.value = Gallery.state.wipe));
    if ("order" in changes) document.querySelectorAll(".order").forEach((input) => (input.value = Gallery.state.order));
  });

  return { opacity, toggle, order, wipe };
})();

// What the selection shows, in words.
function selectionText(images) {
  const { selected, transition } = Gallery.state;
  const filters = [...selected].map((number) => classOf(number).name);
  if (transition) filters.push(transition.map((number) => classOf(number).name).join(" → "));
  const all = Gallery.about.outputs[0].num_images;
  if (filters.length) return `${plural(images.length, "image")} with ${filters.join(" and ")}`;
  return images.length === all ? plural(all, "image") : `${count(images.length)} of ${plural(all, "image")}`;
}

// A grid that follows the selection. sorted: how the images are ordered. options: those of Cards.grid.
function selectionGrid(content, { controls, sorted, watched, options, intro = [], empty }) {
  const number = el("p", { class: "number", role: "status" });
  const place = el("div");
  const fill = () => {
    const images = sorted(Selection.images());
    number.textContent = selectionText(images);
    place.replaceChildren(images.length ? Cards.grid(images, options) : el("p", { class: "empty" }, empty));
  };
  content.replaceChildren(...intro, el("div", { class: "controls" }, number, ...controls), place);
  fill();
  return (changes) => watched.some((name) => name in changes) && fill();
}

Gallery.pages.images = {
  title: () => "Images",
  legend: true,
  show(content) {
    return selectionGrid(content, {
      controls: [Controls.order(), Controls.opacity(), Controls.toggle()],
      sorted: (images) => Orders.sorted(images, Gallery.state.order),
      watched: ["selected", "transition", "order"],
      options: {
        of: (image) => (Gallery.state.order === "changed" ? { figure: percent(image.changed) } : {}),
      },
      empty: Gallery.images.length ? "No image of this gallery has all of these classes." : "No image has a mask yet.",
    });
  },
};
