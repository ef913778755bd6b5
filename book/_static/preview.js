// An equation appears beside a link to it, while the link is pointed at or has the focus.
addEventListener("DOMContentLoaded", () => {
  const card = document.createElement("div");
  card.className = "equation-preview";
  card.setAttribute("aria-hidden", "true"); // the link itself leads a reader of the text there
  document.body.append(card);

  const show = (link) => {
    const address = new URL(link.href);
    if (address.pathname !== location.pathname) return; // the equation is on another page
    const row = document.getElementById(decodeURIComponent(address.hash.slice(1)));
    const equation = row?.closest("mjx-container")?.cloneNode(true);
    if (!equation) return;
    equation.querySelectorAll("[id]").forEach((element) => element.removeAttribute("id"));
    card.replaceChildren(equation);
    card.classList.add("shown");
    const place = link.getBoundingClientRect();
    const left = Math.min(place.left, innerWidth - card.offsetWidth - 16);
    const below = place.bottom + card.offsetHeight + 16 < innerHeight;
    card.style.left = `${Math.max(8, left) + scrollX}px`; // it moves with the page: a focus may scroll
    card.style.top = `${(below ? place.bottom + 8 : place.top - card.offsetHeight - 8) + scrollY}px`;
  };
  const hide = () => card.classList.remove("shown");
  document.querySelectorAll('a[href*="#mjx-eqn"]').forEach((link) => {
    for (const event of ["mouseenter", "focus"]) link.addEventListener(event, () => show(link));
    for (const event of ["mouseleave", "blur"]) link.addEventListener(event, hide);
  });
});

// What is wider than its place can be scrolled by the keyboard, too.
const reachable = () =>
  document.querySelectorAll("div.math").forEach((block) => {
    if (block.scrollWidth > block.clientWidth) block.tabIndex = 0;
  });
addEventListener("load", () => window.MathJax?.startup?.promise?.then(reachable));
addEventListener("resize", reachable);
