// Which images a page shows, and in which order.
"use strict";

const Orders = (() => {
  // The same shuffle for the same seed, in every browser.
  function shuffled(seed) {
    let state = seed >>> 0;
    const next = () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let t = state;
      t = Math.imul(t ^ (t >>> 15), t | 1);
      t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
      return (t ^ (t >>> 14)) >>> 0;
    };
    const ranks = Gallery.images.map(() => next());
    return (image) => ranks[image.number];
  }

  let rank = null;
  const all = {
    least: { name: "Least confident", by: (image) => image.confidence },
    most: { name: "Most confident", by: (image) => -image.confidence },
    share: { name: "Share of a class", by: (image) => -largestShare(image) },
    changed: { name: "Most changed", by: (image) => -(image.changed === null ? -1 : image.changed), compared: true },
    random: { name: "Random", by: (image) => (rank = rank || shuffled(Gallery.about.seed))(image) },
    name: { name: "Name", by: (image) => image.number },
  };

  // Of the selected classes, or else of any.
  function largestShare(image) {
    const { selected } = Gallery.state;
    const shares = image.classes.filter((each) => !selected.size || selected.has(each.of)).map((each) => each.share);
    return Math.max(0, ...shares);
  }

  function names() {
    return Object.keys(all).filter((key) => !all[key].compared || Gallery.compared);
  }

  function sorted(images, key) {
    const by = all[key].by;
    return images
      .map((image) => [by(image), image])
      .sort((one, other) => one[0] - other[0] || one[1].number - other[1].number)
      .map(([, image]) => image);
  }

  return { names, title: (key) => all[key].name, sorted };
})();

const Selection = {
  // The images that have every selected class, and the selected change.
  images() {
    const { selected, transition } = Gallery.state;
    return Gallery.images.filter((image) => {
      const found = new Set(image.classes.map((each) => each.of));
      if (Gallery.state.both) image.transitions.forEach(([, after]) => found.add(after));
      if (![...selected].every((number) => found.has(number))) return false;
      return !transition || image.transitions.some(([one, two]) => one === transition[0] && two === transition[1]);
    });
  },

  // The classes that masks show; null for all.
  classes() {
    const { highlighted, selected, transition } = Gallery.state;
    if (highlighted !== null) return new Set([highlighted]);
    if (transition) return new Set(transition);
    return selected.size ? selected : null;
  },

  toggle(number) {
    const selected = new Set(Gallery.state.selected);
    if (!selected.delete(number)) selected.add(number);
    Gallery.set({ selected });
  },

  clear() {
    Gallery.set({ selected: new Set(), transition: null, highlighted: null });
  },
};
