// Cards: an image with its mask over it. Masks of cards that are out of sight are dropped again.
"use strict";

const Cards = (() => {
  const visible = new Map(); // card -> its image, while it is near the window

  const watcher = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        if (isIntersecting) {
          visible.set(target, target.image);
          draw(target);
        } else if (visible.delete(target)) {
          for (const canvas of target.querySelectorAll("canvas")) canvas.width = canvas.height = 0;
        }
      }
    },
    { rootMargin: "400px" },
  );

  async function draw(card) {
    const canvases = card.querySelectorAll("canvas");
    try {
      const masks = await Masks.get(card.image.number);
      if (!visible.has(card)) return;
      masks.slice(0, canvases.length).forEach((mask, at) => Masks.paint(canvases[at], mask, Selection.classes()));
      card.dataset.drawn = "";
    } catch (error) {
      card.dataset.broken = error.message;
    }
  }

  let asked = false;
  function redraw() {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      for (const card of visible.keys()) {
        if (card.isConnected) draw(card);
        else {
          visible.delete(card);
          watcher.unobserve(card);
        }
      }
    });
  }

  Gallery.onChange((changes) => {
    if ("selected" in changes || "highlighted" in changes || "transition" in changes) redraw();
  });

  // The picture of an image: thumbnail and masks above each other. both: with the mask of the second output.
  function picture(image, both) {
    const [width, height] = image.small;
    const canvas = (side) => el("canvas", { class: `mask ${side}`, width: 0, height: 0, "aria-hidden": "true" });
    const second = both && image.changed !== null;
    return el(
      "span",
      { class: `picture${second ? " both" : ""}${image.gone ? " gone" : ""}`, style: { "--ratio": width / height } },
      image.gone ? null : el("img", { src: imageAddress(image), alt: "", loading: "lazy", decoding: "async", width, height }),
      canvas("before"),
      second ? canvas("after") : null,
    );
  }

  // A card. list: the images that the viewer leads through. both: compare. figure: the number beside the name.
  function card(image, list, { both = false, figure = percent(image.confidence) } = {}) {
    const [folder, name] = [image.uri.slice(0, image.uri.lastIndexOf("/") + 1), image.uri.slice(image.uri.lastIndexOf("/") + 1)];
    const parts = image.classes.slice(0, 12).map((each) =>
      el("span", { style: { "flex-grow": each.share, background: classOf(each.of).colour } }),
    );
    const button = el(
      "button",
      {
        class: "card",
        "data-image": image.number,
        title: image.gone ? `${image.uri}\n${image.gone}` : image.uri,
        "aria-label": `${image.uri}, ${image.classes.slice(0, 3).map((each) => classOf(each.of).name).join(", ")}`,
        onclick: () => Viewer.open(image, list, both),
      },
      picture(image, both),
      image.gone ? el("span", { class: "badge" }, "image gone") : null,
      el("span", { class: "parts", "aria-hidden": "true" }, parts),
      el("span", { class: "caption" }, el("span", { class: "name" }, el("span", { class: "folder" }, folder), name), el("span", { class: "figure" }, figure)),
    );
    button.image = image;
    watcher.observe(button);
    return button;
  }

  // A grid that grows while one scrolls.
  function grid(images, options = {}) {
    const PAGE = 48;
    const root = el("div", { class: "grid" });
    const end = el("div", { class: "end" });
    let shown = 0;
    const more = () => {
      root.append(...images.slice(shown, shown + PAGE).map((image) => card(image, images, options.of ? options.of(image) : options)));
      shown += PAGE;
      if (shown >= images.length) growing.disconnect();
    };
    const growing = new IntersectionObserver((entries) => entries.some((each) => each.isIntersecting) && more(), { rootMargin: "1200px" });
    more();
    if (shown < images.length) growing.observe(end);
    return el("div", {}, root, end);
  }

  return { grid, card, picture };
})();
