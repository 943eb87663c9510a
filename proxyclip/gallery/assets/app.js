// Pages, tabs and keys.
"use strict";

(() => {
  const content = document.getElementById("content");
  const legend = document.getElementById("legend");
  const help = document.getElementById("help");
  const TABS = ["images", "classes", "compare", "evaluation", "failures"];
  let update = null; // what the page does when the state changes

  const available = (name) => !Gallery.pages[name].available || Gallery.pages[name].available();
  const tabs = () => TABS.filter(available);

  async function route() {
    const [name, argument] = decodeURIComponent(location.hash.slice(1)).split("/");
    if (name === "content") return; // the link that skips to the content
    const known = Gallery.pages[name] && available(name) ? name : "images";
    const page = Gallery.pages[known];
    update = null;
    document.body.dataset.page = known;
    const both = Boolean(page.both);
    if (both !== Gallery.state.both) {
      const selected = [...Gallery.state.selected].filter((number) => both || classOf(number).outputs[0]);
      Gallery.set({ both, selected: new Set(selected), transition: null });
    }
    legend.hidden = !page.legend || !Gallery.classes.length;
    for (const link of document.querySelectorAll("#tabs a")) {
      if (link.dataset.page === (page.within || known)) {
        link.setAttribute("aria-current", "page");
        link.scrollIntoView({ block: "nearest", inline: "nearest" });
      } else link.removeAttribute("aria-current");
    }
    try {
      update = (await page.show(content, argument)) || null;
    } catch (error) {
      content.replaceChildren(el("p", { class: "notice" }, `This page cannot be shown: ${error.message}.`));
    }
    window.scrollTo(0, 0);
    content.dataset.shown = known;
  }

  Gallery.onChange((changes) => {
    if (update) update(changes);
    try {
      localStorage.setItem("proxyclip.gallery.opacity", String(Gallery.state.opacity));
    } catch {
      // A browser may forbid it; the gallery then forgets the opacity.
    }
  });

  function notice() {
    const unfinished = Gallery.about.outputs.filter((output) => !output.finished);
    const element = document.getElementById("notice");
    element.hidden = !unfinished.length;
    element.textContent = unfinished
      .map(({ name, shards }) => `${name} is not finished: ${count(shards[0])} of ${plural(shards[1], "shard")} are labelled.`)
      .join(" ");
  }

  const KEYS = [
    ["m", "show or hide the masks"],
    ["[ and ]", "make the masks fainter or stronger"],
    ["o", "next order"],
    ["/", "find a class"],
    ["c", "clear the filter"],
    ["arrow keys", "move among images; in an open image: previous and next"],
    ["Enter", "open the image"],
    ["Shift + arrow keys", "in an open image: move the point that is read"],
    [", and .", "move the slider between two masks"],
    ["x", "change from one mask to the other"],
    ["1 to 5", "pages"],
    ["Esc", "close"],
    ["?", "this help"],
  ];

  function showHelp() {
    help.replaceChildren(
      el("h2", {}, "Keys"),
      el("dl", { class: "keys" }, KEYS.map(([key, what]) => el("div", {}, el("dt", {}, el("kbd", {}, key)), el("dd", {}, what)))),
      el("button", { class: "button", onclick: () => help.close() }, "Close"),
    );
    help.showModal();
  }

  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
  const opacity = (by) => Gallery.set({ opacity: clamp(Math.round(10 * (Gallery.state.opacity + by)) / 10, 0, 1), masked: true });
  const wipe = (by) => Gallery.compared && Gallery.set({ wipe: clamp(Gallery.state.wipe + by, 0, 100) });

  const actions = {
    m: () => Gallery.set({ masked: !Gallery.state.masked }),
    "[": () => opacity(-0.1),
    "]": () => opacity(0.1),
    o: () => {
      const names = Orders.names();
      Gallery.set({ order: names[(names.indexOf(Gallery.state.order) + 1) % names.length] });
    },
    "/": () => {
      if (legend.hidden) return;
      legend.classList.add("open");
      document.getElementById("search").focus();
    },
    c: Selection.clear,
    ",": () => wipe(-5),
    ".": () => wipe(5),
    x: () => Gallery.compared && Gallery.set({ wipe: Gallery.state.wipe > 50 ? 0 : 100 }),
    "?": showHelp,
  };

  // The card in a direction from the one in focus.
  function moveFocus(key) {
    const cards = [...content.querySelectorAll(".card")];
    const at = cards.indexOf(document.activeElement);
    if (at < 0) {
      if (cards.length && key === "ArrowRight") cards[0].focus();
      return cards.length > 0 && key === "ArrowRight";
    }
    const columns = cards.filter((card) => Math.abs(card.offsetTop - cards[at].offsetTop) < 4).length;
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
    const next = cards[at + steps[key]];
    if (next) next.focus();
    return true;
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
    const target = event.target;
    if (target.matches("input[type=search]")) {
      if (event.key === "Escape") target.blur();
      return;
    }
    const arrow = event.key.startsWith("Arrow");
    if (arrow && target.matches("input, select")) return;
    if (arrow && Viewer.isOpen()) {
      const [right, down] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (event.shiftKey) Viewer.move(4 * right, 4 * down);
      else if (right) Viewer.step(right);
      event.preventDefault();
    } else if (arrow) {
      if (moveFocus(event.key)) event.preventDefault();
    } else if (/^[1-5]$/.test(event.key) && !Viewer.isOpen()) {
      const name = tabs()[Number(event.key) - 1];
      if (name) location.hash = name;
    } else if (actions[event.key] && !(target.matches("select") && event.key.length === 1)) {
      actions[event.key]();
      event.preventDefault();
    }
  });

  document.title = `${Gallery.about.title} - gallery`;
  document.getElementById("title").textContent = Gallery.about.title;
  document.getElementById("help-button").addEventListener("click", showHelp);
  document.getElementById("tabs").append(
    ...tabs().map((name) => {
      const { title, number } = Gallery.pages[name];
      return el("a", { href: `#${name}`, "data-page": name }, title(), number && number() ? el("span", { class: "badge" }, count(number())) : null);
    }),
  );
  try {
    const kept = Number.parseFloat(localStorage.getItem("proxyclip.gallery.opacity"));
    if (kept >= 0 && kept <= 1) Gallery.state.opacity = kept;
  } catch {
    // see above
  }
  notice();
  Legend.show(legend);
  Gallery.set({});
  window.addEventListener("hashchange", () => {
    if (Viewer.isOpen()) Viewer.close();
    route();
  });
  route();
})();
