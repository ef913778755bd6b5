// Two losses over the plane; where the steps of each method lead from a start.
{
  const { html, svg, digits, pen, slider, choice, link } = playground;
  const SIZE = 340;
  const FLOOR = 5e-6;

  /** log max(abs(u), 5e-6) and its derivative. */
  const logDistance = (u) => [Math.log(Math.max(Math.abs(u), FLOOR)), Math.abs(u) < FLOOR ? 0 : 1 / u];

  /** From a point to the two losses L and the gradients J. */
  const pcgrad = ([x, y]) => {
    const slope = 1 - Math.tanh(y) ** 2;
    const [first, p] = logDistance(x / 2 + Math.tanh(y));
    const [second, q] = logDistance(x / 2 - Math.tanh(y) + 2);
    return { L: [20 * first, 25 * second], J: [[10 * p, 20 * p * slope], [12.5 * q, -25 * q * slope]] };
  };

  const cagrad = ([x, y]) => {
    const slope = 1 - Math.tanh(y) ** 2;
    const half = Math.tanh(y / 2);
    const [c, dc] = [Math.abs(half), (Math.sign(half) * (1 - half ** 2)) / 2];
    const part = ([f, df], side) => {
      if (y > 0) return { L: c * (f + 6), J: [(-c * df) / 2, dc * (f + 6) + c * df * slope * Math.sign(side)] };
      const h = ((x - side) ** 2 + (y + 8) ** 2 / 10) / 10 - 20;
      return { L: c * h, J: [(c * (x - side)) / 5, dc * h + (c * (y + 8)) / 50] };
    };
    const first = part(logDistance(-(x + 7) / 2 + Math.tanh(y)), 7);
    const second = part(logDistance((3 - x) / 2 - Math.tanh(y) + 2), -7);
    return { L: [first.L, second.L], J: [first.J, second.J] };
  };

  const fonseca = (theta) => {
    const parts = [Math.SQRT1_2, -Math.SQRT1_2].map((c) => {
      const away = theta.map((x) => x - c);
      const square = away[0] ** 2 + away[1] ** 2;
      return [-Math.expm1(-square), away.map((x) => 2 * x * Math.exp(-square))];
    });
    return { L: parts.map((p) => p[0]), J: parts.map((p) => p[1]) };
  };

  /** A function with its name, window and start; the number of steps; the learning rates of Adam and of plain descent. */
  const toy = (f, title, at, start, steps, adam, sgd) => ({ f, title, at, start, steps, adam, sgd });
  playground.toys = {
    fonseca: toy(fonseca, "Fonseca's", [-1.6, 1.6, -1.6, 1.6], [1, 0.4], 300, 0.02, 0.1),
    pcgrad: toy(pcgrad, "PCGrad's", [-4.5, 3.5, -4, 4], [0.5, -3], 800, 0.02, 0.002),
    cagrad: toy(cagrad, "CAGrad's", [-11, 11, -11, 11], [-8.5, -5], 1500, 0.02, 0.2),
  };

  /** The points that a method visits, {theta, L}; it ends early where the method is not defined. */
  playground.walk = (f, key, start, steps, lr, adam) => {
    let theta = start;
    let [m, v] = [[0, 0], [0, 0]];
    const visited = [];
    for (let k = 1; ; k++) {
      const { L, J } = f(theta);
      visited.push({ theta, L });
      const { d } = playground.step(key, J, L);
      if (k > steps || d.some(Number.isNaN)) return visited;
      m = m.map((x, i) => 0.9 * x + 0.1 * d[i]);
      v = v.map((x, i) => 0.999 * x + 0.001 * d[i] ** 2);
      const move = (i) => m[i] / (1 - 0.9 ** k) / (Math.sqrt(v[i] / (1 - 0.999 ** k)) + 1e-8);
      theta = theta.map((x, i) => x - lr * (adam ? move(i) : d[i]));
    }
  };

  /** Level lines of the mean loss, as one path in units of the window. */
  const contours = (f, [left, right, low, high]) => {
    const n = 70;
    const grid = Array.from({ length: n + 1 }, (_, j) => Array.from({ length: n + 1 }, (_, i) => {
      const { L } = f([left + ((right - left) * i) / n, low + ((high - low) * j) / n]);
      return (L[0] + L[1]) / 2;
    }));
    const sorted = grid.flat().sort((a, b) => a - b);
    const parts = [];
    for (const share of [0.03, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.93]) {
      const level = sorted[Math.floor(share * sorted.length)];
      for (let j = 0; j < n; j++)
        for (let i = 0; i < n; i++) {
          const corners = [[i, j], [i + 1, j], [i + 1, j + 1], [i, j + 1]];
          const ends = corners.flatMap(([p, q], k) => {
            const [r, s] = corners[(k + 1) % 4];
            const [a, b] = [grid[q][p] - level, grid[s][r] - level];
            const t = a / (a - b);
            const [x, y] = [(p + t * (r - p)) / n, 1 - (q + t * (s - q)) / n];
            return a > 0 !== b > 0 ? [`${x.toFixed(4)} ${y.toFixed(4)}`] : [];
          });
          for (let k = 0; k + 1 < ends.length; k += 2) parts.push(`M${ends[k]}L${ends[k + 1]}`);
        }
    }
    return parts.join("");
  };

  /** A small plot of lines [points, look], with the ends of its axes. */
  const plot = (title, across, lines) => {
    const all = lines.flatMap(([points]) => points);
    const range = (k) => all.reduce(([a, b], p) => [Math.min(a, p[k]), Math.max(b, p[k])], [Infinity, -Infinity]);
    const [[left, right], [low, high]] = [range(0), range(1)];
    const x = (u) => 14 + (232 * (u - left)) / (right - left || 1);
    const y = (v) => 98 - (70 * (v - low)) / (high - low || 1);
    const path = (points) => `M${points.map((p) => `${x(p[0]).toFixed(1)} ${y(p[1]).toFixed(1)}`).join("L")}`;
    const words = [
      [8, 18, `${title}: ${digits(low)} to ${digits(high)}`],
      [8, 119, `${across}: ${digits(left)} to ${digits(right)}`],
    ];
    return svg("svg", { viewBox: "0 0 260 128", role: "img", "aria-label": words.map((w) => w[2]).join("; ") },
      svg("path", { d: "M8 24V102H252", stroke: "#555", fill: "none" }),
      ...lines.map(([points, look]) => svg("path", { d: path(points), ...look, "stroke-width": 1.8 })),
      ...words.map(([u, v, text]) => svg("text", { x: u, y: v }, text)));
  };

  playground.start("landscape", (place, read, save) => {
    const toys = playground.toys;
    const chosen = new Set((read("m") ?? "equal,pcgrad,mgda").split(","));
    let name = read("toy") in toys ? read("toy") : "fonseca";
    let adam = read("adam") === "1";
    let start, lr, lines;

    const picture = svg("svg", { viewBox: `0 0 ${SIZE} ${SIZE}`, role: "img", class: "spot" });
    const plots = html("div", { className: "map" });
    const settle = () => {
      const toy = toys[name];
      start = toy.start;
      lr = toy[adam ? "adam" : "sgd"];
    };
    settle();
    if (read("start")) start = read("start").split(",").map(Number);
    lr = Number(read("lr") ?? lr);

    const at = ([x, y]) => {
      const [left, right, low, high] = toys[name].at;
      return [(SIZE * (x - left)) / (right - left), (SIZE * (high - y)) / (high - low)];
    };

    /** Where every chosen method goes from here. */
    const draw = () => {
      const toy = toys[name];
      const steps = toy.steps;
      const walks = playground.picked(chosen).map((row) => {
        const points = playground.walk(toy.f, row.key, start, steps, lr, adam);
        return { row, points, end: points.at(-1) };
      });
      lines ??= contours(toy.f, toy.at);
      const [x, y] = at(start);
      const track = (points) => `M${points.map((p) => at(p.theta).map((u) => u.toFixed(1)).join(" ")).join("L")}`;
      const mark = ({ end, row }) => {
        const [cx, cy] = at(end.theta);
        return svg("circle", { cx, cy, r: 5, fill: pen(row).stroke });
      };
      picture.replaceChildren(
        svg("path", { d: lines, transform: `scale(${SIZE})`, stroke: "#999", "stroke-width": 1 / SIZE, fill: "none" }),
        ...walks.map((walk) => svg("path", { d: track(walk.points), ...pen(walk.row) })),
        ...walks.map(mark),
        svg("path", { d: `M${x - 6} ${y}h12M${x} ${y - 6}v12`, stroke: "#000", "stroke-width": 3 }),
      );
      const curve = (k) => walks.map((w) => [w.points.map((p, step) => [step, p.L[k]]), pen(w.row)]);
      plots.replaceChildren(
        picture,
        plot("L₂", "L₁", walks.map((w) => [w.points.map((p) => p.L), pen(w.row)])),
        plot("L₁", "step", curve(0)),
        plot("L₂", "step", curve(1)),
      );
      tell(walks, steps);
    };

    /** Words, numbers, code and address. */
    const tell = (walks, steps) => {
      const point = start.map(digits).join(", ");
      const ends = walks.map(({ row, end }) => `${row.name} ends at losses ${end.L.map(digits).join(" and ")}`);
      said.textContent = `From (${point}): ${ends.join("; ") || "no method is chosen"}.`;
      const about = `Level lines of the mean of ${toys[name].title} two losses`;
      picture.setAttribute("aria-label", `${about}, and the ways from (${point}).`);
      sliders.forEach((s, i) => s.show([...start, Math.log10(lr)][i]));
      const head = ["method", "θ at the end", "L₁", "L₂", "steps"];
      playground.fill(table, head, walks.map(({ row, points, end }) => [
        link(row),
        `(${end.theta.map(digits).join(", ")})`,
        ...end.L.map(digits),
        points.length > steps ? String(steps) : html("b", {}, `${points.length - 1}: it needs positive losses`),
      ]));
      const f = name === "fonseca" ? "fonseca" : `${name}_landscape`;
      const optimizer = `torch.optim.${adam ? "Adam" : "SGD"}`;
      code.textContent = playground.python(
        `from mtl_ref.problems.toy import ${f}, trajectories`,
        "",
        `way = {"steps": ${steps}, "lr": ${lr}, "optimizer": ${optimizer}}`,
        ...walks.map(({ row }) => `trajectories(${f}, ${row.call}, [[${start.join(", ")}]], **way)`),
      );
      save({ toy: name, adam: Number(adam), start, lr, m: [...chosen] });
    };

    const sliders = [0, 1].map((i) => slider(`start: θ${"₁₂"[i]}`, [-11, 11, 0.01], digits, (x) => {
      start = start.map((old, k) => (k === i ? x : old));
      draw();
    }));
    sliders.push(slider("learning rate", [-4, 1, 0.01], (x) => digits(10 ** x), (x) => {
      lr = Number((10 ** x).toPrecision(3));
      draw();
    }));
    const anew = () => {
      const [left, right, low, high] = toys[name].at;
      sliders.slice(0, 2).forEach((s, i) => {
        const input = s.element.querySelector("input");
        [input.min, input.max] = i ? [low, high] : [left, right];
      });
      lines = undefined;
      draw();
    };
    const problem = choice("Losses", Object.entries(toys).map(([key, toy]) => [key, toy.title]), (key) => {
      name = key;
      settle();
      anew();
    });
    const optimizer = choice("Steps by", [[0, "plain descent"], [1, "Adam"]], (k) => {
      adam = k === "1";
      settle();
      anew();
    });
    problem.select.value = name;
    optimizer.select.value = Number(adam);
    picture.addEventListener("click", (event) => {
      const to = playground.pointed(picture, event);
      const [left, right, low, high] = toys[name].at;
      start = [left + (to.x / SIZE) * (right - left), high - (to.y / SIZE) * (high - low)];
      start = start.map((x) => Number(x.toFixed(2)));
      draw();
    });
    const above = html("p", {}, problem.element, " ", optimizer.element);
    const shown = html("div", {}, ...sliders.map((s) => s.element));
    const { said, table, code } =
      playground.frame(place, [above], plots, [shown], chosen, draw, "Where the methods end");
    anew();
  });
}
