// In a long table the reader types to filter its rows, and clicks the head of a column to sort by it.
addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll(".sortable table").forEach((table) => {
    const rows = [...table.tBodies[0].rows]; // in their first order, which ties keep
    const heads = [...table.tHead.rows[0].cells];

    const label = document.createElement("label");
    const typed = Object.assign(document.createElement("input"), { type: "search" });
    const found = document.createElement("output");
    const filter = () => {
      const words = typed.value.toLowerCase().split(/\s+/);
      rows.forEach((row) => {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
      });
      found.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length}`;
    };
    typed.addEventListener("input", filter);
    label.append("Filter ", typed);
    const controls = document.createElement("p");
    controls.className = "table-filter";
    controls.append(label, " ", found);
    table.closest(".sortable").prepend(controls);
    filter();

    const sort = (column) => {
      const upwards = heads[column].ariaSort !== "ascending";
      heads.forEach((head) => head.removeAttribute("aria-sort"));
      heads[column].ariaSort = upwards ? "ascending" : "descending";
      const text = (row) => row.cells[column].textContent.trim();
      const number = (row) => parseFloat(text(row).replace("−", "-")); // of "−0.3 ± 0.9" the −0.3
      const compare = (a, b) =>
        number(a) - number(b) || text(a).localeCompare(text(b), "en", { numeric: true }); // or as words
      table.tBodies[0].append(...rows.toSorted((a, b) => (upwards ? compare(a, b) : compare(b, a))));
    };
    heads.forEach((head, column) => {
      const button = Object.assign(document.createElement("button"), { type: "button" });
      button.append(...head.childNodes);
      button.addEventListener("click", () => sort(column));
      head.append(button);
    });
  });
});
