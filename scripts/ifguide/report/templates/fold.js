for (const [id, open] of [["unfold", true], ["fold", false]])
  document.getElementById(id)?.addEventListener("click", () => {
    for (const fold of document.querySelectorAll("details"))
      if (!fold.closest("[hidden]")) fold.open = open;
  });
