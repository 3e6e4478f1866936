// Sorts a table by the column whose title is clicked; again turns the order.
(() => {
  const key = (row, column) => {
    const text = row.cells[column].textContent.trim();
    const number = parseFloat(text.replaceAll(",", ""));
    return Number.isNaN(number) ? text : number;
  };
  const compare = (a, b) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b), undefined, {numeric: true});
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const titles = [...table.tHead.rows[0].cells];
    titles.forEach((title, column) => title.querySelector("button").addEventListener("click", () => {
      const turn = title.ariaSort === "ascending" ? -1 : 1;
      const body = table.tBodies[0];
      const rows = [...body.rows].map((row) => [key(row, column), row]);
      rows.sort((a, b) => turn * compare(a[0], b[0]));
      body.append(...rows.map((pair) => pair[1]));
      titles.forEach((other) => { other.ariaSort = null; });
      title.ariaSort = turn === 1 ? "ascending" : "descending";
    }));
  }
})();
