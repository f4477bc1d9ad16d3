"use strict";
// Filters by grade, category and trainer. Without this script they stay hidden, and all there is is shown.
(() => {
  const form = document.getElementById("filters");
  const names = ["grade", "category", "trainer"];
  const parts = document.querySelectorAll(names.map((name) => `main [data-${name}]`).join(", "));
  const agrees = (part, name) => {
    const wanted = form.elements[name] ? form.elements[name].value : "";
    const own = part.getAttribute(`data-${name}`);
    return wanted === "" || own === null || own.split("\n").includes(wanted);
  };
  const apply = () => {
    for (const part of parts) part.hidden = !names.every((name) => agrees(part, name));
    for (const section of document.querySelectorAll("section[data-filtered]")) {
      const own = [...section.querySelectorAll("[data-trainer]")];
      section.hidden = own.length > 0 && own.every((part) => part.hidden);
    }
  };
  // A link into what is collapsed or filtered out leads there all the same.
  const reveal = () => {
    const target = document.getElementById(location.hash.slice(1));
    if (!target) return;
    if (target.closest("[hidden]")) {
      form.reset();
      apply();
    }
    for (let part = target; part; part = part.parentElement) if (part.localName === "details") part.open = true;
    target.scrollIntoView();
  };
  form.hidden = false;
  form.addEventListener("change", apply);
  form.addEventListener("reset", () => setTimeout(apply));
  addEventListener("hashchange", reveal);
  apply(); // a browser keeps what was chosen when the page is loaded again
  reveal();
})();
