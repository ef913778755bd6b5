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
    const dash = DASHES[Math.floor(row.pen / COLOURS.length)];
    return { stroke: COLOURS[row.pen % COLOURS.length], "stroke-dasharray": dash, "stroke-width": 2.5, fill: "none" };
  };

  /** How a gradient is drawn. */
  const black = { stroke: "#000", "stroke-width": 3.5, fill: "none" };

  /** A row's short line, as a legend has it, with its name. */
  const sample = (row) => {
    const line = svg("path", { d: "M0 5H22", ...pen(row) });
    return html("span", {}, svg("svg", { width: 22, height: 10, "aria-hidden": true }, line), ` ${row.name}`);
  };

  /** A row's name, which leads to its chapter. */
  const link = (row) => html("a", { href: row.href }, sample(row));

  /** An arrow from one point of a picture to another. */
  const arrow = ([x, y], [u, v], look) => {
    const a = Math.atan2(v - y, u - x);
    const [p, q] = [-0.4, 0.4].map((b) => `${u - 11 * Math.cos(a + b)} ${v - 11 * Math.sin(a + b)}`);
    const line = svg("path", { d: `M${x} ${y}L${u} ${v}`, ...look });
    return [line, svg("path", { d: `M${p}L${u} ${v}L${q}`, ...look, "stroke-dasharray": "" })];
  };

  /** The names at the tips of arrows [tip, look, name] from one point; none stands on another. */
  const names = ([x, y], arrows) => {
    const taken = [];
    return arrows.map(([[u, v], look, text]) => {
      const away = Math.hypot(u - x, v - y) || 1;
      const [dx, dy] = [(u - x) / away, (v - y) / away];
      const anchor = Math.abs(dx) < 0.4 ? "middle" : dx < 0 ? "end" : "start";
      const left = u + 9 * dx;
      let height = v + 14 * dy + 5;
      const close = (other) => Math.abs(other[0] - left) < 120 && Math.abs(other[1] - height) < 15;
      while (taken.some(close)) height -= 5;
      taken.push([left, height]);
      return svg("text", { x: left, y: height, fill: look.stroke, "text-anchor": anchor }, text);
    });
  };

  /** A labelled slider; `say` turns its value into words. */
  const slider = (name, [min, max, step], say, act) => {
    const input = html("input", { type: "range", min, max, step });
    const output = html("span", { ariaHidden: "true" }); // a screen reader reads the slider's own words
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

  /** A box to tick for each method: it changes the set of the keys that are chosen. */
  const boxes = (chosen, act) => {
    const made = rows.map((row) => {
      const input = html("input", { type: "checkbox", value: row.key, checked: chosen.has(row.key) });
      input.addEventListener("change", () => {
        chosen[input.checked ? "add" : "delete"](row.key);
        act();
      });
      return html("label", {}, input, " ", sample(row));
    });
    return html("fieldset", { className: "boxes" }, html("legend", {}, "Methods"), ...made);
  };

  /** The rows of the methods that are chosen. */
  const picked = (chosen) => rows.filter((row) => chosen.has(row.key));

  /** Where a pointer is, in the units of a picture. */
  const pointed = (picture, { clientX, clientY }) =>
    new DOMPoint(clientX, clientY).matrixTransform(picture.getScreenCTM().inverse());

  /** A vector of a length at an angle in degrees. */
  const polar = (length, a) => [Math.cos, Math.sin].map((f) => length * f((a * Math.PI) / 180));

  /** Fill a table; a cell is a text or an element. */
  const fill = (table, head, lines) => {
    const cells = (tag, line) => html("tr", {}, ...line.map((cell, i) => html(i ? tag : "th", {}, cell)));
    const body = lines.map((line) => cells("td", line));
    table.replaceChildren(html("thead", {}, cells("th", head)), html("tbody", {}, ...body));
    table.querySelectorAll("th").forEach((th) => (th.scope = th.closest("thead") ? "col" : "row"));
  };

  const list = (x) => `[${x.map((y) => (Array.isArray(y) ? list(y) : String(y))).join(", ")}]`;

  /** Lines of Python that give the same numbers. */
  const python = (...lines) => ["import torch", "import mtl_ref as mtl", ...lines].join("\n");

  /** The lines for the directions that some methods [call, d] make of J and L. */
  const directions = (J, L, found) => python(
    "from mtl_ref.problems.toy.landscapes import direction",
    "",
    `J = torch.tensor(${list(J)}, dtype=torch.float64)`,
    `losses = torch.tensor(${list(L)}, dtype=torch.float64)`,
    ...found.map(([made, d]) => `direction(${made}, J, losses)  # ${d.map(digits).join(", ")}`),
  );

  /** What stands around the picture of every widget: words, controls, and for the whole of it a table and code. */
  const frame = (place, above, picture, sliders, chosen, act, name) => {
    const parts = { table: html("table"), code: html("pre", { tabIndex: 0 }) };
    parts.said = html("p", { className: "said", role: "status" });
    parts.controls = html("div", { className: "controls" }, ...sliders);
    const scroll = html("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: name }, parts.table);
    const same = html("details", {}, html("summary", {}, "The same in Python"), parts.code);
    const small = "small" in place.dataset;
    const rest = small ? [] : [boxes(chosen, act), scroll, same];
    place.append(...(small ? [] : above), picture, parts.said, parts.controls, ...rest);
    return parts;
  };

  /** Build each widget of a kind: what it starts from, and how it keeps its state in the address. */
  const start = (kind, build) => {
    document.querySelectorAll(`[data-widget="${kind}"]`).forEach((place) => {
      const linked = "state" in place.dataset;
      const given = new URLSearchParams(linked ? place.dataset.state : location.search);
      const read = (name) => given.get(`${kind}.${name}`);
      let timer; // undefined until the first picture, which is what the address says already
      const save = (state) => {
        const write = () => {
          const address = new URL(location.href);
          for (const [name, value] of Object.entries(state)) address.searchParams.set(`${kind}.${name}`, value);
          address.search = address.search.replaceAll("%2C", ",");
          history.replaceState(null, "", address);
        };
        clearTimeout(timer); // browsers refuse an address that changes with every move of a slider
        timer = setTimeout(timer === undefined || linked ? () => {} : write, 200);
      };
      place.replaceChildren();
      build(place, read, save);
    });
  };

  Object.assign(playground, { html, svg, digits, rows, pen, link, arrow, names, slider, choice, picked, pointed });
  Object.assign(playground, { black, polar, fill, python, directions, frame, start });
}
