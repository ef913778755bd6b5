// Two or three gradients in the plane, to be dragged; what each method makes of them; where every loss falls.
{
  const { html, svg, digits, pen, slider, choice, link, arrow, names, polar } = playground;
  const WIDTH = 600;
  const SIMPLE = "equal,normalized,pcgrad,mgda";
  const fan = [0, 130, -150].map((a) => polar(1, a));
  const PRESETS = [
    ["conflicting", [[3, 0.3], [-0.7, 0.7]], SIMPLE],
    ["aligned", [[2, 0.4], [1, 1.2]], SIMPLE],
    ["one long, one short", [[4, 0], [-0.2, 0.5]], SIMPLE],
    ["opposite", [[2, 1], [-1, -0.5]], `${SIMPLE},nash`],
    ["lengths 1 : 100", [[1, 0], [-30, 100]], "equal,upgrad,unit-upgrad,mgda", { alike: 1 }],
    ["IMTL-G uphill", [[-1, -0.2], [9, 4], [-9, 6]], "imtl-g,config", { alike: 1 }],
    ["three tasks, from the first", fan, "pcgrad,mgda"],
    ["three tasks, from the last", fan, "pcgrad,mgda", { backwards: true }],
  ];
  const SEEDS = [13, 0]; // with these PCGrad draws the two orders, for three tasks
  const name = (i) => `g${"₁₂₃"[i]}`;
  const numbers = (text) => text.split(",").map(Number);

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
    const chosen = new Set();
    const small = "small" in place.dataset;
    const height = small ? 300 : 380;
    let J, L, backwards, alike, fit, sliders;

    const preset = (k) => {
      J = PRESETS[k][1].map((g) => [...g]);
      L = J.map(() => 1);
      chosen.clear();
      PRESETS[k][2].split(",").forEach((key) => chosen.add(key));
      ({ backwards = false, alike = 0 } = PRESETS[k][3] ?? {});
    };

    /** Where a point of the plane is in the picture, which holds all the tips. */
    const at = ([x, y]) => [fit.x + fit.size * x, fit.y - fit.size * y];
    const refit = (tips) => {
      const [xs, ys] = [0, 1].map((k) => [0, ...tips.map((tip) => tip[k])]);
      const [left, right, low, high] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
      const size = Math.min((WIDTH - 280) / (right - left || 1), (height - 80) / (high - low || 1));
      fit = { size, x: (WIDTH - size * (left + right)) / 2, y: (height + size * (low + high)) / 2 };
    };

    /** Everything anew; the picture keeps its place while a tip is dragged. */
    const draw = (dragged) => {
      const orders = playground.orders(J.length, backwards);
      const found = playground.picked(chosen).map((row) => {
        const step = playground.step(row.key, J, L, orders);
        const [size, ...sizes] = [step.d, ...J].map((v) => Math.hypot(...v));
        const still = size <= 1e-12 * sizes.reduce((all, x, i) => all + Math.abs(step.alpha[i]) * x, 0);
        const rises = step.falls.flatMap((x, i) => (!still && x < -1e-9 * size * sizes[i] ? [i + 1] : []));
        const up = rises.length > 1 ? `losses ${rises.join(", ")} rise` : `loss ${rises} rises`;
        return { row, rises, verdict: still ? "no step" : rises.length ? up : "no loss rises", ...step };
      });
      const longest = Math.max(...J.map((g) => Math.hypot(...g))) || 1;
      const shown = (v) => (alike && Math.hypot(...v) ? v.map((x) => (longest * x) / Math.hypot(...v)) : v);
      const arrows = [
        ...found.map((f) => [shown(f.d), pen(f.row), f.row.name]),
        ...J.map((g, i) => [shown(g), playground.black, name(i)]),
      ];
      if (dragged !== true) refit(arrows.map(([tip]) => tip));
      const drawn = arrows.map(([tip, ...rest]) => [at(tip), ...rest]);
      const far = (2 * WIDTH) / fit.size;
      const cone = J.reduce(cut, [[far, far], [-far, far], [-far, -far], [far, -far]]);
      [...handles.children].forEach((handle, i) => {
        const [cx, cy] = at(shown(J[i]));
        handle.setAttribute("cx", cx);
        handle.setAttribute("cy", cy);
      });
      drawing.replaceChildren(
        svg("polygon", { points: cone.map(at).join(" "), fill: "#00694B", "fill-opacity": 0.15 }),
        ...drawn.flatMap(([tip, look]) => arrow(at([0, 0]), tip, look)),
        ...names(at([0, 0]), drawn.toReversed()),
      );
      tell(found);
    };

    /** Words, numbers, code and address. */
    const tell = (found) => {
      const words = found.map((f) => `${f.row.name}: ${f.verdict}`).join("; ");
      said.textContent = `${words || "No method is chosen"}.`;
      const gradients = J.map((g, i) => `${name(i)} = (${g.map(digits).join(", ")})`).join(", ");
      const shaded = "shaded, the directions in which every loss falls";
      picture.setAttribute("aria-label", `The gradients ${gradients}; ${shaded}.`);
      J.forEach(([x, y], i) => {
        const angle = (Math.atan2(y, x) * 180) / Math.PI;
        const values = [angle, Math.log10(Math.hypot(x, y) || 0.01), Math.log10(L[i])];
        sliders[i].forEach((s, k) => s.show(values[k]));
      });
      const bold = (on, text) => (on ? html("b", {}, text) : text);
      const head = ["method", "d", ...J.map((_, i) => `⟨${name(i)}, d⟩`), "weights", "verdict"];
      playground.fill(table, head, found.map((f) => [
        link(f.row),
        `(${f.d.map(digits).join(", ")})`,
        ...f.falls.map((x, i) => bold(f.rises.includes(i + 1), digits(x))),
        f.alpha.map(digits).join(", "),
        bold(f.rises.length, f.verdict),
      ]));
      const seeded = `(generator=torch.Generator().manual_seed(${SEEDS[Number(backwards)]}))`;
      const call = (row) => row.call.replace("(2)", `(${J.length})`).replace("PCGrad()", `PCGrad${seeded}`);
      code.textContent = playground.directions(J, L, found.map((f) => [call(f.row), f.d]));
      save({ g: J.flat(), l: L, m: [...chosen], order: Number(backwards), alike });
    };

    const drag = (event, i) => {
      event.preventDefault();
      const length = Math.hypot(...J[i]);
      const move = (now) => {
        const to = playground.pointed(picture, now);
        J[i] = [(to.x - fit.x) / fit.size, (fit.y - to.y) / fit.size].map((x) => Number(x.toPrecision(3)));
        if (alike) J[i] = J[i].map((x) => (x * length) / (Math.hypot(...J[i]) || 1));
        presets.select.value = "";
        draw(true);
      };
      const end = () => {
        event.target.removeEventListener("pointermove", move);
        draw();
      };
      event.target.setPointerCapture(event.pointerId);
      event.target.addEventListener("pointermove", move);
      event.target.addEventListener("lostpointercapture", end, { once: true });
    };

    /** The controls, anew for each number of tasks. */
    const build = () => {
      const logarithm = [-2, 2, 0.01];
      const power = (x) => digits(10 ** x);
      const make = (text, range, say, change) => slider(text, range, say, (x) => {
        change(x);
        presets.select.value = "";
        draw();
      });
      sliders = J.map((_, i) => [
        make(`${name(i)}: angle`, [-180, 180, 1], (x) => `${digits(Math.round(x))} degrees`, (a) => {
          J[i] = polar(Math.hypot(...J[i]), a);
        }),
        make(`${name(i)}: length`, logarithm, power, (x) => {
          const now = Math.hypot(...J[i]);
          J[i] = now ? J[i].map((y) => (y * 10 ** x) / now) : [10 ** x, 0];
        }),
        make(`loss ${i + 1}`, logarithm, power, (x) => {
          L[i] = Number((10 ** x).toPrecision(3));
        }),
      ]);
      handles.replaceChildren(...J.map((_, i) => {
        const handle = svg("circle", { r: 20, class: "handle" });
        handle.addEventListener("touchstart", (event) => event.preventDefault()); // or the page would scroll
        handle.addEventListener("pointerdown", (event) => drag(event, i));
        return handle;
      }));
      const shown = sliders.map((row) => html("div", {}, ...row.slice(0, small ? 2 : 3).map((s) => s.element)));
      const tasks = choice("Tasks", [[2, "2"], [3, "3"]], (T) => {
        J = [...J, [0, -1]].slice(0, T);
        L = [...L, 1].slice(0, T);
        build();
        controls.querySelector("select").focus();
      });
      const order = choice("PCGrad's order", [[0, "from the first"], [1, "from the last"]], (k) => {
        backwards = k === "1";
        draw();
      });
      tasks.select.value = J.length;
      order.select.value = Number(backwards);
      lengths.select.value = alike;
      const more = J.length > 2 ? [tasks.element, order.element] : [tasks.element];
      controls.replaceChildren(...shown, ...(small ? [] : more));
      place.querySelectorAll("[type=checkbox]").forEach((box) => (box.checked = chosen.has(box.value)));
      draw();
    };

    const first = Number(read("preset") ?? 0);
    preset(first);
    const presets = choice("Start from", PRESETS.map(([text], k) => [k, text]), (k) => {
      preset(Number(k));
      build();
    });
    const lengths = choice("Draw arrows", [[0, "as long as they are"], [1, "equally long"]], (k) => {
      alike = Number(k);
      draw();
    });
    presets.select.value = read("g") ? "" : first;
    alike = Number(read("alike") ?? alike);
    if (read("g")) {
      const flat = numbers(read("g"));
      J = flat.flatMap((x, k) => (k % 2 ? [] : [[x, flat[k + 1]]]));
      L = J.map((_, i) => numbers(read("l") ?? "")[i] || 1);
      backwards = read("order") === "1";
    }
    if (read("m") !== null) {
      chosen.clear();
      read("m").split(",").forEach((key) => chosen.add(key));
    }
    const [drawing, handles] = [svg("g"), svg("g")]; // what is dragged stays while all else is drawn anew
    const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${height}`, role: "img" }, drawing, handles);
    const above = html("p", {}, presets.element, " ", lengths.element);
    const { said, table, code, controls } =
      playground.frame(place, [above], picture, [], chosen, draw, "Directions of the methods");
    build();
  });
}
