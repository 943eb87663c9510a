// The images that could not be labelled, and why.
"use strict";

Gallery.loadFailures = (failures) => (Gallery.failures = failures);

Gallery.pages.failures = {
  title: () => "Failures",
  number: () => Gallery.about.outputs[0].failed,
  legend: false,
  async show(content) {
    await Gallery.script("data/failures.js");
    const { count: all, statuses, rows } = Gallery.failures;
    if (!all) {
      content.replaceChildren(el("p", { class: "empty" }, "Every image that was tried has a mask."));
      return;
    }
    const columns = [
      { name: "Image", by: (row) => row[0], cell: (row) => row[0] },
      { name: "Failed at", by: (row) => row[1], cell: (row) => row[1] },
      { name: "Status", by: (row) => row[2], cell: (row) => el("code", {}, row[2]) },
      { name: "Reason", by: (row) => row[3], cell: (row) => row[3] },
    ];
    content.replaceChildren(
      el(
        "dl",
        { class: "figures panel" },
        statuses.map(([status, number]) => el("div", {}, el("dd", {}, count(number)), el("dt", {}, status.replace(/_/g, " ")))),
      ),
      el("section", { class: "panel" }, Charts.table(columns, rows, { sortedBy: 0, down: false, label: "Failed images" })),
      rows.length < all ? el("p", { class: "note" }, `The first ${count(rows.length)} of ${count(all)}.`) : "",
    );
  },
};
