// Two or three gradients in the plane, to be dragged; what each method makes of them; where every loss falls.
{
  const { html, svg, digits, rows, pen, slider, choice, boxes, fill, scroll, call, list, link } = playground;
  const WIDTH = 600;
  const HEIGHT = 380;
  const around = (...degrees) => degrees.map((x) => [Math.cos((x * Math.PI) / 180), Math.sin((x * Math.PI) / 180)]);
  const PRESETS = [
    ["conflicting", [[3, 0.3], [-0.7, 0.7]], "equal,normalized,pcgrad,mgda"],
    ["aligned", [[2, 0.4], [1, 1.2]], "equal,normalized,pcgrad,mgda"],
    ["one long, one short", [[4, 0], [-0.2, 0.5]], "equal,normalized,pcgrad,mgda"],
    ["opposite", [[2, 1], [-1, -0.5]], "equal,normalized,pcgrad,mgda,nash"],
    ["lengths 1 : 100", [[-0.6, 0.8], [100, 0]], "equal,upgrad,unit-upgrad,mgda"],
    ["IMTL-G uphill", [[-1, -0.1], [9, 3.5], [-8.5, 5.5]], "imtl-g,config"],
    ["three tasks, from the first", around(0, 130, -150), "pcgrad,mgda"],
    ["three tasks, from the last", around(0, 130, -150), "pcgrad,mgda", true],
  ];
  const SEEDS = [13, 0]; // with which three tasks draw the two orders
  const name = (i) => `g${"₁₂₃"[i]}`;
  const angle = ([x, y]) => Math.round((Math.atan2(y, x) * 180) / Math.PI);
  const degrees = (x) => `${digits(x)} degrees`;

  /** The part of a polygon in which ⟨g, d⟩ ≥ 0. */
  const cut = (points, g) => {
    const at = ([x, y]) => g[0] * x + g[1] * y;
    return points.flatMap((p, k) => {
      const q = points[(k + 1) % points.length];
      const t = at(p) / (at(p) - at(q));
      const kept = at(p) >= 0 ? [p] : [];
      return at(p) * at(q) < 0 ? [...kept, [p[0] + t * (q[0] - p[0]), p[1] + t * (q[1] - p[1])]] : kept;
    });
  };

  playground.start("cone", (place, read, save) => {
    const small = "small" in place.dataset;
    const numbers = (text) => text.split(",").map(Number);
    const given = read("g") && numbers(read("g"));
    let J, L, chosen, backwards, fit;
    let alike = read("alike") === "1";

    /** Start from a preset. */
    const preset = (k) => {
      J = PRESETS[k][1].map((g) => [...g]);
      L = J.map(() => 1);
      chosen = new Set(PRESETS[k][2].split(","));
      backwards = Boolean(PRESETS[k][3]);
    };
    preset(Number(read("preset") ?? 0));
    if (given) J = given.slice(0, given.length / 2).map((_, i) => given.slice(2 * i, 2 * i + 2));
    L = J.map((_, i) => numbers(read("l") ?? "")[i] || 1);
    if (read("m")) chosen = new Set(read("m").split(","));
    if (read("order")) backwards = read("order") === "1";

    const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
    const said = html("p", { className: "said", role: "status" });
    const controls = html("div", { className: "controls" });
    const table = html("table");
    const same = playground.python();
    const presets = choice("Start from", PRESETS.map(([text], k) => [k, text]), (k) => {
      preset(Number(k));
      build();
    });
    const lengths = choice("Draw arrows", [[0, "as long as they are"], [1, "equally long"]], (k) => {
      alike = k === "1";
      draw(true);
    });
    lengths.select.value = Number(alike);
    presets.select.value = read("preset") ?? (given ? "" : 0);
    let sliders = [];

    /** The controls, anew for each number of tasks. */
    const build = () => {
      const turn = (i, a) => {
        const length = Math.hypot(...J[i]);
        J[i] = [length * Math.cos((a * Math.PI) / 180), length * Math.sin((a * Math.PI) / 180)];
      };
      const stretch = (i, length) => {
        const now = Math.hypot(...J[i]);
        J[i] = now ? J[i].map((x) => (x * length) / now) : [length, 0];
      };
      const act = (change, i) => (x) => {
        change(i, x);
        presets.select.value = "";
        draw(true);
      };
      sliders = J.map((_, i) => [
        slider(`${name(i)}: angle`, [-180, 180, 1], degrees, act(turn, i)),
        slider(`${name(i)}: length`, [-2, 2, 0.01], (x) => digits(10 ** x), act((k, x) => stretch(k, 10 ** x), i)),
        slider(`loss ${i + 1}`, [-2, 2, 0.01], (x) => digits(10 ** x), act((k, x) => (L[k] = 10 ** x), i)),
      ]);
      const count = choice("Tasks", [[2, "2"], [3, "3"]], (T) => {
        J = T === "3" ? [...J, [0, -1]] : J.slice(0, 2);
        L = J.map((_, i) => L[i] ?? 1);
        build();
        controls.querySelector("select[name=tasks]").focus();
      });
      Object.assign(count.select, { value: J.length, name: "tasks" });
      const order = choice("PCGrad's order", [[0, "from the first"], [1, "from the last"]], (k) => {
        backwards = k === "1";
        draw(true);
      });
      order.select.value = Number(backwards);
      const tick = (key, on) => {
        if (on) chosen.add(key);
        else chosen.delete(key);
        draw(true);
      };
      const more = small ? [] : [count.element, ...(J.length > 2 ? [order.element] : []), boxes(chosen, tick)];
      const shown = sliders.map((row) => html("div", {}, ...row.slice(0, small ? 2 : 3).map((s) => s.element)));
      controls.replaceChildren(...shown, ...more);
      draw(true);
    };

    /** What every chosen method does with the present gradients. */
    const results = () => {
      const orders = playground.orders(J.length, backwards);
      return rows.filter((row) => chosen.has(row.key)).map((row) => {
        const step = playground.step(row.key, J, L, orders);
        const size = Math.hypot(...step.d);
        const rises = step.falls.flatMap((x, i) => (x < -1e-9 * size * Math.hypot(...J[i]) ? [i + 1] : []));
        const verdict = rises.length ? `loss ${rises.join(" and ")} ${rises.length > 1 ? "rise" : "rises"}` : "no loss rises";
        return { row, size, rises, verdict, ...step };
      });
    };

    /** Where a point of the plane is in the picture; the whole is fitted anew unless something is being dragged. */
    const refit = (tips) => {
      const [xs, ys] = [0, 1].map((k) => [0, ...tips.map((tip) => tip[k])]);
      const [left, right, low, high] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
      const size = Math.min((WIDTH - 190) / (right - left || 1), (HEIGHT - 90) / (high - low || 1));
      fit = { size, x: WIDTH / 2 - (size * (left + right)) / 2, y: HEIGHT / 2 + (size * (low + high)) / 2 };
    };
    const at = ([x, y]) => [fit.x + fit.size * x, fit.y - fit.size * y];

    const arrow = (tip, look) => {
      const [[x, y], [u, v]] = [at([0, 0]), at(tip)];
      const a = Math.atan2(v - y, u - x);
      const head = [-0.4, 0.4].map((b) => `${u - 11 * Math.cos(a + b)} ${v - 11 * Math.sin(a + b)}`);
      const line = svg("path", { d: `M${x} ${y}L${u} ${v}`, ...look });
      return [line, svg("path", { d: `M${head[0]}L${u} ${v}L${head[1]}`, ...look, "stroke-dasharray": "" })];
    };

    const draw = (anew) => {
      const found = results();
      const longest = Math.max(...J.map((g) => Math.hypot(...g))) || 1;
      const shown = (v) => (alike && Math.hypot(...v) ? v.map((x) => (longest * x) / Math.hypot(...v)) : v);
      const arrows = [
        ...found.map((f) => [shown(f.d), pen(f.row), f.row.name]),
        ...J.map((g, i) => [shown(g), { stroke: "#000", "stroke-width": 3.5, fill: "none" }, name(i)]),
      ];
      if (anew) refit(arrows.map(([tip]) => tip));
      const far = (2 * WIDTH) / fit.size;
      const corners = [[far, far], [-far, far], [-far, -far], [far, -far]];
      const cone = J.reduce(cut, corners).map(at);
      const taken = [];
      const label = ([tip, look, text]) => {
        const [x, y] = at(tip);
        let height = y + (y > fit.y ? 16 : -6);
        const close = (other) => Math.abs(other[0] - x) < 110 && Math.abs(other[1] - height) < 15;
        while (taken.some(close)) height += 15;
        taken.push([x, height]);
        const left = x < fit.x - 1;
        return svg("text", { x: left ? x - 6 : x + 6, y: height, fill: look.stroke, "text-anchor": left ? "end" : "start" }, text);
      };
      const handles = J.map((g, i) => {
        const [cx, cy] = at(shown(g));
        const handle = svg("circle", { cx, cy, r: 20, class: "handle" });
        handle.addEventListener("pointerdown", (event) => drag(event, i));
        return [svg("circle", { cx, cy, r: 5 }), handle];
      });
      picture.replaceChildren(
        svg("polygon", { points: cone.join(" "), fill: "#00694B", "fill-opacity": 0.15 }),
        ...arrows.flatMap(([tip, look]) => arrow(tip, look)),
        ...[...arrows].reverse().map(label),
        ...handles.flat(),
      );
      tell(found);
    };

    /** Words, numbers, code and address. */
    const tell = (found) => {
      said.textContent = `${found.map((f) => `${f.row.name}: ${f.verdict}`).join("; ")}.`;
      const gradients = J.map((g, i) => `${name(i)} = (${g.map(digits).join(", ")})`).join(", ");
      picture.setAttribute("aria-label", `The gradients ${gradients}; shaded, the directions in which every loss falls.`);
      sliders.forEach(([turned, long, loss], i) => {
        turned.show(angle(J[i]));
        long.show(Math.log10(Math.hypot(...J[i]) || 0.01));
        loss.show(Math.log10(L[i]));
      });
      const head = ["method", "d", ...J.map((_, i) => `⟨${name(i)}, d⟩`), "weights", "verdict"];
      fill(table, head, found.map((f) => [
        link(f.row),
        `(${f.d.map(digits).join(", ")})`,
        ...f.falls.map((x, i) => (f.rises.includes(i + 1) ? html("b", {}, digits(x)) : digits(x))),
        f.alpha.map(digits).join(", "),
        f.rises.length ? html("b", {}, f.verdict) : f.verdict,
      ]));
      const made = (row) => {
        const seed = `generator=torch.Generator().manual_seed(${SEEDS[Number(backwards)]})`;
        return row.key === "pcgrad" && J.length > 2 ? row.call.replace("()", `(${seed})`) : call(row, J.length);
      };
      same.code.textContent = [
        "import torch",
        "import mtl_ref as mtl",
        "from mtl_ref.problems.toy.landscapes import direction",
        "",
        `J = torch.tensor(${list(J)}, dtype=torch.float64)`,
        `losses = torch.tensor(${list(L)}, dtype=torch.float64)`,
        ...found.map((f) => `direction(${made(f.row)}, J, losses)  # ${f.d.map(digits).join(", ")}`),
      ].join("\n");
      save({ g: J.flat(), l: L, m: [...chosen], order: Number(backwards), alike: Number(alike) });
    };

    const drag = (event, i) => {
      event.preventDefault();
      const size = Math.hypot(...J[i]);
      const move = ({ clientX, clientY }) => {
        const to = new DOMPoint(clientX, clientY).matrixTransform(picture.getScreenCTM().inverse());
        J[i] = [(to.x - fit.x) / fit.size, (fit.y - to.y) / fit.size].map((x) => Number(x.toPrecision(3)));
        if (alike) J[i] = J[i].map((x) => (x * size) / (Math.hypot(...J[i]) || 1));
        presets.select.value = "";
        draw(false);
      };
      const end = () => {
        removeEventListener("pointermove", move);
        draw(true);
      };
      addEventListener("pointermove", move);
      for (const last of ["pointerup", "pointercancel"]) addEventListener(last, end, { once: true });
    };

    const rest = small ? [] : [scroll("Directions of the methods", table), same.element];
    const choices = html("p", {}, presets.element, " ", lengths.element);
    place.append(choices, picture, said, controls, ...rest);
    build();
  });
}
