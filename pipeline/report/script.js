"use strict";
(() => {
  // Numbers by size, words as people sort them; empty cells stay last either way.
  const words = new Intl.Collator(undefined, { numeric: true });
  const valueOf = (row, column) => {
    const cell = row.cells[column];
    return cell ? cell.dataset.sort ?? cell.textContent.trim() : "";
  };

  const compare = (a, b, sign) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    const [x, y] = [Number(a), Number(b)];
    const order = Number.isNaN(x) || Number.isNaN(y) ? words.compare(a, b) : x - y;
    return sign * order;
  };

  const sortBy = (table, header) => {
    const ascending = header.getAttribute("aria-sort") !== "ascending";
    for (const other of table.tHead.querySelectorAll("[aria-sort]")) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const body = table.tBodies[0];
    const keyed = [...body.rows].map((row) => [valueOf(row, header.cellIndex), row]);
    keyed.sort(([a], [b]) => compare(a, b, ascending ? 1 : -1));
    body.append(...keyed.map(([, row]) => row));
  };

  for (const table of document.querySelectorAll("table.sortable")) {
    for (const header of table.tHead.querySelectorAll("th")) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...header.childNodes);
      button.addEventListener("click", () => sortBy(table, header));
      header.append(button);
    }
  }

  const asked = (input) => input.value.toLowerCase().split(/\s+/).filter(Boolean);
  const tell = (tools, shown, all, noun) => {
    tools.querySelector("output").value = shown === all ? `${all} ${noun}` : `${shown} of ${all} ${noun}`;
  };

  // Rows of a table, by what their first cells say.
  for (const tools of document.querySelectorAll(".tools[data-table]")) {
    const rows = [...document.getElementById(tools.dataset.table).tBodies[0].rows];
    const input = tools.querySelector("input");
    const filter = () => {
      const wanted = asked(input);
      for (const row of rows) {
        const text = row.cells[0].textContent.toLowerCase();
        row.hidden = !wanted.every((word) => text.includes(word));
      }
      tell(tools, rows.filter((row) => !row.hidden).length, rows.length, "rows");
    };
    input.addEventListener("input", filter);
    tools.hidden = false;
    filter();
  }

  // Utterances, by text, speaker and kind of error.
  for (const tools of document.querySelectorAll(".tools[data-utterances]")) {
    const list = document.getElementById(tools.dataset.utterances);
    const cards = [...list.querySelectorAll(".utt")];
    const field = (name) => tools.querySelector(`[name="${name}"]`);
    const filter = () => {
      const wanted = asked(field("text"));
      const speaker = field("speaker").value;
      const kind = field("kind").value;
      for (const card of cards) {
        const { search, speaker: own, kinds } = card.dataset;
        const fits = wanted.every((word) => search.includes(word));
        card.hidden = !fits || (speaker !== "" && speaker !== own) || !kinds.includes(kind);
      }
      list.dataset.only = kind;
      tell(tools, cards.filter((card) => !card.hidden).length, cards.length, "utterances");
    };
    tools.addEventListener("input", filter);
    tools.hidden = false;
    filter();
  }

  // Boxes that have nothing to scroll are no stop for the keyboard.
  const watch = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      const scrolls = target.scrollWidth > target.clientWidth || target.scrollHeight > target.clientHeight;
      if (scrolls) target.tabIndex = 0;
      else target.removeAttribute("tabindex");
    }
  });
  for (const box of document.querySelectorAll(".scroll")) watch.observe(box);

  // One recording at a time.
  document.addEventListener("play", (event) => {
    for (const audio of document.querySelectorAll("audio")) if (audio !== event.target) audio.pause();
  }, true);
})();
