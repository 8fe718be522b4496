const readout = document.getElementById("readout");
let current = null;
function describe(token) {
  current?.classList.remove("at");
  current = token;
  token.classList.add("at");
  const parts = [JSON.stringify(token.textContent), "score " + token.title];
  if (token.classList.contains("sel")) parts.push("selected");
  if (token.classList.contains("true")) parts.push("marked toxic");
  readout.textContent = parts.join(" \u00b7 ");
}
document.addEventListener("click", (event) => {
  if (event.target.classList.contains("t")) describe(event.target);
});
document.addEventListener("keydown", (event) => {
  const block = event.target.closest(".tokens");
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!block || !step) return;
  const tokens = [...block.querySelectorAll(".t")];
  const place = tokens.indexOf(current);
  const next = tokens[place < 0 ? 0 : place + step];
  if (next) { describe(next); next.scrollIntoView({ block: "nearest" }); }
  event.preventDefault();
});
