const field = document.getElementById("search");
const only = document.getElementById("only-selected");
const count = document.getElementById("count");
const entries = [...document.querySelectorAll("[data-entry]")].map(
  (entry) => ({ entry, text: entry.textContent.toLowerCase() }));
function filter() {
  const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const { entry, text } of entries) {
    const keep = words.every((word) => text.includes(word))
      && !(only?.checked && entry.dataset.selected === "0");
    entry.hidden = !keep;
    shown += keep;
  }
  count.textContent = `${shown} of ${entries.length} shown`;
}
field.addEventListener("input", filter);
only?.addEventListener("change", filter);
filter();
