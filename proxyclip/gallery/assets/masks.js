// Masks: loaded when they are needed, and drawn from class numbers.
"use strict";

const Masks = (() => {
  const KEPT = 80; // decoded images; 480 x 360 pixels with two masks are 1 MB
  const cache = new Map();
  const loading = new Map(); // asked for, and not there yet
  const waiting = new Map();

  // Called by masks/NNNNN.js: PNGs of mask and confidence, and those of the second output; and of the first one's margin.
  Gallery.loadMasks = (number, pngs, margin) => waiting.get(number)([pngs, margin]);

  async function pixels(base64) {
    const image = new Image();
    image.src = `data:image/png;base64,${base64}`;
    await image.decode();
    const canvas = document.createElement("canvas");
    canvas.width = image.naturalWidth;
    canvas.height = image.naturalHeight;
    const context = canvas.getContext("2d", { willReadFrequently: true, colorSpace: "srgb" });
    context.drawImage(image, 0, 0);
    return context.getImageData(0, 0, canvas.width, canvas.height);
  }

  async function decode(mask, confidence, margin) {
    const [numbers, certain, lead] = await Promise.all([pixels(mask), pixels(confidence), margin ? pixels(margin) : null]);
    const { width, height } = numbers;
    const classes = new Uint16Array(width * height);
    for (let at = 0; at < classes.length; at++) {
      classes[at] = Gallery.about.wide ? 256 * numbers.data[4 * at] + numbers.data[4 * at + 1] : numbers.data[4 * at];
    }
    return { width, height, classes, confidence: certain, margin: lead };
  }

  async function load(number) {
    const given = new Promise((resolve) => waiting.set(number, resolve));
    await Gallery.script(`masks/${String(number).padStart(5, "0")}.js`, false);
    const [pngs, margin] = await given;
    waiting.delete(number);
    const outputs = [];
    for (let at = 0; at < pngs.length; at += 2) outputs.push(decode(pngs[at], pngs[at + 1], at === 0 && margin));
    return Promise.all(outputs);
  }

  // The masks of an image: one for each output that has it.
  function get(number) {
    let found = cache.get(number) || loading.get(number);
    if (!found) {
      found = load(number);
      loading.set(number, found);
      found.catch(() => cache.delete(number)).finally(() => loading.delete(number));
    }
    cache.delete(number);
    cache.set(number, found); // the newest last
    if (cache.size > KEPT) cache.delete(cache.keys().next().value);
    return found;
  }

  const colours = (() => {
    let made = null;
    const word = (r, g, b) => ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0; // little-endian RGBA
    return () => {
      if (made) return made;
      const inside = new Uint32Array(65536);
      const edge = new Uint32Array(65536);
      Gallery.classes.forEach(({ colour }, number) => {
        const [r, g, b] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
        inside[number] = word(r, g, b);
        edge[number] = word(r * 0.55, g * 0.55, b * 0.55);
      });
      made = { inside, edge };
      return made;
    };
  })();

  // Draw a mask. only: a Set of class numbers, or null for all.
  function paint(canvas, mask, only) {
    const { width, height, classes } = mask;
    canvas.width = width;
    canvas.height = height;
    const context = canvas.getContext("2d");
    const data = context.createImageData(width, height);
    const out = new Uint32Array(data.data.buffer);
    const { inside, edge } = colours();
    for (let y = 0, at = 0; y < height; y++) {
      for (let x = 0; x < width; x++, at++) {
        const number = classes[at];
        if (only && !only.has(number)) continue;
        const border = (x + 1 < width && classes[at + 1] !== number) || (y + 1 < height && classes[at + width] !== number);
        out[at] = border ? edge[number] : inside[number];
      }
    }
    context.putImageData(data, 0, 0);
  }

  // What is at a place, given as shares of width and height.
  function at(mask, x, y) {
    const column = Math.min(mask.width - 1, Math.max(0, Math.floor(x * mask.width)));
    const row = Math.min(mask.height - 1, Math.max(0, Math.floor(y * mask.height)));
    const read = ({ width, height, data }) => {
      const block = Math.floor(((row + 0.5) / mask.height) * height) * width + Math.floor(((column + 0.5) / mask.width) * width);
      return data[4 * block] / 255;
    };
    const number = mask.classes[row * mask.width + column];
    return { column, row, number, confidence: read(mask.confidence), margin: mask.margin && read(mask.margin) };
  }

  return { get, paint, at };
})();
