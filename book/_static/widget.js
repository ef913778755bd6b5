// What the three widgets of the playground share: elements, controls, the state in the address.
{
  const SVG = "http://www.w3.org/2000/svg";
  const COLOURS = ["#0072B2", "#A84300", "#00694B", "#8E3A80", "#6B5B00", "#3A3AB0", "#A3002F"];
  const DASHES = ["", "7 3", "2 3"];

  /** An HTML element with properties and children. */
  const html = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  /** An SVG element with attributes and children. */
  const svg = (tag, attributes = {}, ...children) => {
    const element = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };

  /** A number with three digits that count, and a true minus. */
  const digits = (x) => {
    const size = Math.abs(x);
    if (size < 1e-12) return "0";
    const text = size >= 1e4 || size < 1e-3 ? x.toExponential(1) : String(Number(x.toPrecision(3)));
    return text.replaceAll("-", "−").replace("e+", "e");
  };

  const rows = JSON.parse(document.querySelector("#playground-methods").textContent);

  /** How a method is drawn: a colour and a dash of its own. */
  const pen = (row) => {
    const i = rows.indexOf(row);
    const dash = DASHES[Math.floor(i / COLOURS.length)];
    return { stroke: COLOURS[i % COLOURS.length], "stroke-dasharray": dash, "stroke-width": 2.5, fill: "none" };
  };

  /** A row's short line, as a legend has it, with its name. */
  const sample = (row) => {
    const line = svg("path", { d: "M0 5H22", ...pen(row) });
    return html("span", {}, svg("svg", { width: 22, height: 10, "aria-hidden": true }, line), ` ${row.name}`);
  };

  /** A row's name, which leads to its chapter. */
  const link = (row) => html("a", { href: row.href }, sample(row));

  /** A labelled slider; `say` turns its value into words. */
  const slider = (name, [min, max, step], say, act) => {
    const input = html("input", { type: "range", min, max, step });
    const output = html("output");
    const show = (value) => {
      input.value = value;
      output.textContent = say(value);
      input.setAttribute("aria-valuetext", say(value));
    };
    input.addEventListener("input", () => act(Number(input.value)));
    return { element: html("label", { className: "slider" }, html("span", {}, name), input, output), show };
  };

  /** A labelled choice of one of several [value, name]. */
  const choice = (name, options, act) => {
    const select = html("select", {}, ...options.map(([value, text]) => html("option", { value }, text)));
    select.addEventListener("change", () => act(select.value));
    return { element: html("label", {}, `${name} `, select), select };
  };

  /** A box to tick for each method. */
  const boxes = (keys, act) => {
    const made = rows.map((row) => {
      const input = html("input", { type: "checkbox", value: row.key, checked: keys.has(row.key) });
      input.addEventListener("change", () => act(row.key, input.checked));
      return html("label", {}, input, " ", sample(row));
    });
    return html("fieldset", { className: "boxes" }, html("legend", {}, "Methods"), ...made);
  };

  /** Fill a table; a cell is a text or an element. */
  const fill = (table, head, lines) => {
    const cells = (tag, line) => html("tr", {}, ...line.map((cell, i) => html(i ? tag : "th", {}, cell)));
    table.replaceChildren(html("thead", {}, cells("th", head)), html("tbody", {}, ...lines.map((l) => cells("td", l))));
    table.querySelectorAll("th").forEach((th) => (th.scope = th.closest("thead") ? "col" : "row"));
  };

  /** A place for a wide table, which the keyboard can scroll. */
  const scroll = (name, table) => {
    const place = html("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: name }, table);
    return place;
  };

  /** The code that gives the same numbers. */
  const python = () => {
    const code = html("pre", { tabIndex: 0 });
    return { code, element: html("details", {}, html("summary", {}, "The same in Python"), code) };
  };

  /** The call that makes a method for T tasks. */
  const call = (row, T) => row.call.replace("(2)", `(${T})`);
  const list = (x) => `[${x.map((y) => (Array.isArray(y) ? list(y) : String(y))).join(", ")}]`;

  /** Build each widget of a kind: what it starts from, and how it keeps its state in the address. */
  const start = (kind, build) => {
    document.querySelectorAll(`[data-widget="${kind}"]`).forEach((place) => {
      const linked = "state" in place.dataset;
      const given = new URLSearchParams(linked ? place.dataset.state : location.search);
      const read = (name) => given.get(`${kind}.${name}`);
      const save = (state) => {
        if (linked) return;
        const address = new URL(location.href);
        for (const [name, value] of Object.entries(state)) address.searchParams.set(`${kind}.${name}`, value);
        address.search = address.search.replaceAll("%2C", ",");
        history.replaceState(null, "", address);
      };
      place.replaceChildren();
      build(place, read, save);
    });
  };

  Object.assign(playground, { html, svg, digits, rows, pen, sample, slider, choice, boxes, fill, scroll });
  Object.assign(playground, { python, call, link, list, start });
}
