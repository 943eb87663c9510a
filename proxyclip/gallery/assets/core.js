// What all pages share: the data, the state, and how elements and numbers are made.
"use strict";

const Gallery = {
  pages: {}, // by name: {title, show(content, argument), legend}
  state: {
    both: false, // whether the page shows the masks of both outputs
    order: "least",
    selected: new Set(), // classes that the legend filters by
    highlighted: null, // the class under the pointer in the legend
    transition: null, // [before, after] that the comparison filters by
    opacity: 0.65,
    masked: true,
    wipe: 50, // percent of the width that shows the first output
  },
  listeners: [],

  // Called by data/gallery.js.
  load(about, classes, images) {
    Gallery.about = about;
    Gallery.compared = about.outputs.length > 1;
    Gallery.classes = classes.name.map((name, number) => ({
      number,
      name,
      colour: classes.colour[number],
      outputs: classes.outputs.map((column) => Gallery.summary(column[number])),
    }));
    Gallery.images = images.uri.map((uri, number) => ({
      number,
      uri,
      size: images.size[number],
      small: images.small[number],
      gone: images.gone[number],
      confidence: images.confidence[number],
      ignored: images.ignored[number],
      classes: images.classes[number].map(([of, share, confidence]) => ({ of, share, confidence })),
      changed: images.changed[number],
      transitions: images.transitions[number],
    }));
  },

  summary(values) {
    if (!values) return null;
    const [index, images, pixels, share, confidence, bars] = values;
    const histogram = new Array(Gallery.about.outputs[0].histogram.length).fill(0);
    for (let at = 0; at < bars.length; at += 2) histogram[bars[at]] = bars[at + 1];
    return { index, images, pixels, share, confidence, histogram };
  },

  onChange(listener) {
    Gallery.listeners.push(listener);
  },

  // Change the state, and tell everyone what changed.
  set(changes) {
    Object.assign(Gallery.state, changes);
    for (const listener of Gallery.listeners) listener(changes);
  },

  // Load a script of this folder once.
  script: (() => {
    const loaded = new Map();
    return (path, keep = true) => {
      if (loaded.has(path)) return loaded.get(path);
      const promise = new Promise((resolve, reject) => {
        const script = document.createElement("script");
        script.src = path;
        script.onload = () => {
          script.remove();
          resolve();
        };
        script.onerror = () => {
          script.remove();
          loaded.delete(path);
          reject(new Error(`${path} cannot be read`));
        };
        document.head.append(script);
      });
      if (keep) loaded.set(path, promise);
      return promise;
    };
  })(),
};

// An element. Texts become text nodes, so that no name is ever read as HTML.
function el(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "style") for (const [what, how] of Object.entries(value)) element.style.setProperty(what, how);
    else if (key === "class") element.className = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

function percent(share, digits = share > 0 && share < 0.0995 ? 1 : 0) {
  if (share === null || share === undefined) return "–";
  if (share > 0 && share < 0.0005) return "< 0.1 %";
  return `${(100 * share).toFixed(digits)} %`;
}

function count(number) {
  return number.toLocaleString("en").replace(/,/g, "\u2009");
}

function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

function swatch(colour) {
  return el("span", { class: "swatch", style: { background: colour }, "aria-hidden": "true" });
}

const WITHOUT_CLASS = { number: -1, name: "no class", colour: "transparent", outputs: [] };

function classOf(number) {
  return Gallery.classes[number] || WITHOUT_CLASS;
}

function imageAddress(image) {
  return `thumbnails/${String(image.number).padStart(5, "0")}.jpg`;
}
