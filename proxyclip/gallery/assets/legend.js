// The legend: colours, names and areas; a click filters, the pointer or the focus highlights.
"use strict";

const Legend = (() => {
  const STEP = 200;
  let limit = STEP;
  let query = "";
  let list = null;
  let root = null;
  let clear = null;

  // The share of a class; in the second output, if the first does not have it.
  function area(each) {
    return each.outputs.find((output) => output).share;
  }

  function item(each, largest) {
    const number = each.number;
    const highlight = (value) => () => {
      if (Gallery.state.highlighted !== value) Gallery.set({ highlighted: value });
    };
    return el(
      "li",
      {},
      el(
        "button",
        {
          class: "class",
          "data-class": number,
          "aria-pressed": String(Gallery.state.selected.has(number)),
          title: each.name,
          onclick: () => Selection.toggle(number),
          onpointerenter: (event) => event.pointerType === "mouse" && highlight(number)(),
          onpointerleave: highlight(null),
          onfocus: (event) => event.target.matches(":focus-visible") && highlight(number)(),
          onblur: highlight(null),
        },
        swatch(each.colour),
        el("span", { class: "name" }, each.name),
        el("span", { class: "figure" }, percent(area(each))),
        el(
          "span",
          { class: "track", "aria-hidden": "true" },
          el("span", { style: { width: `${(100 * area(each)) / (largest || 1)}%`, background: each.colour } }),
        ),
      ),
    );
  }

  function fill() {
    const found = Gallery.classes
      .filter((each) => each.outputs[0] || Gallery.state.both)
      .filter((each) => each.name.toLowerCase().includes(query))
      .sort((one, other) => area(other) - area(one) || one.number - other.number);
    const largest = Math.max(0, ...found.slice(0, 1).map(area));
    root.querySelector(".fold .figure").textContent = count(found.length);
    list.replaceChildren(...found.slice(0, limit).map((each) => item(each, largest)));
    if (found.length > limit) {
      const more = () => {
        limit += STEP;
        fill();
      };
      list.append(el("li", {}, el("button", { class: "quiet", onclick: more }, `${count(found.length - limit)} more`)));
    }
    if (!found.length) list.append(el("li", { class: "empty" }, "No class has this in its name."));
  }

  function show(element) {
    root = element;
    list = el("ul", { id: "classes" });
    clear = el("button", { class: "quiet", hidden: true, onclick: Selection.clear, title: "Clear the filter (c)" }, "Clear");
    const search = el("input", {
      type: "search",
      id: "search",
      placeholder: "Find a class",
      "aria-label": "Find a class",
      oninput: (event) => {
        query = event.target.value.trim().toLowerCase();
        fill();
      },
    });
    const toggle = el(
      "button",
      {
        class: "fold",
        "aria-expanded": "false",
        "aria-controls": "classes",
        onclick: () => toggle.setAttribute("aria-expanded", String(root.classList.toggle("open"))),
      },
      "Classes",
      el("span", { class: "figure" }),
    );
    const head = el("div", { class: "head" }, el("h2", {}, "Classes"), clear);
    root.replaceChildren(toggle, head, el("div", { class: "find" }, search), list);
    fill();
  }

  Gallery.onChange((changes) => {
    if (list && "both" in changes) fill();
    if (!list || !("selected" in changes || "transition" in changes)) return;
    for (const button of list.querySelectorAll("[data-class]")) {
      button.setAttribute("aria-pressed", String(Gallery.state.selected.has(Number(button.dataset.class))));
    }
    clear.hidden = !Gallery.state.selected.size && !Gallery.state.transition;
  });

  return { show };
})();
